"""Two recommenders that count: how far a model must come to be worth its training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from examples.mmsr.metrics import Scorer, rank_all, summarise
from examples.mmsr.protocol import Instances, Parts
from examples.mmsr.successors import count


class Popularity:
    """Score of an item: how often it occurs in the train parts, whatever the history.

    Args:
        parts: the train parts.
        num_items: the size of the catalogue.
    """

    def __init__(self, parts: Parts, num_items: int) -> None:
        self.counts = torch.from_numpy(np.bincount(parts.values(), minlength=num_items)).double()

    def __call__(self, instances: Instances) -> Tensor:
        return self.counts.expand(len(instances), -1)


class Markov:
    r"""A first-order Markov chain: successors counted, popularity where nothing else decides.

    .. math:: s(y \mid x) = \#\{y \text{ follows } x\} + \frac{p(y)}{1 + \max_z p(z)}

    with :math:`x` the last item of the history and :math:`p` the popularity.

    Args:
        parts: the train parts.
        num_items: the size of the catalogue.
    """

    def __init__(self, parts: Parts, num_items: int) -> None:
        self.successors = count(parts, num_items, (1,))[1]
        popularity = Popularity(parts, num_items).counts
        self.popularity = (popularity / (1 + popularity.max())).numpy()

    def __call__(self, instances: Instances) -> Tensor:
        counts = self.successors[instances.last_items].toarray()
        return torch.from_numpy(counts + self.popularity)


def baselines(parts: Parts, num_items: int) -> dict[str, Scorer]:
    """The baselines by name, fitted on these parts."""
    return {"popularity": Popularity(parts, num_items), "Markov": Markov(parts, num_items)}


def judge_baselines(
    parts: Parts, num_items: int, instances: Instances
) -> dict[str, dict[str, float]]:
    """Metrics of every baseline, fitted on the parts, on the instances."""
    return {
        name: summarise(rank_all(scorer, instances))
        for name, scorer in baselines(parts, num_items).items()
    }
