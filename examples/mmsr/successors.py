"""Counted successors as a part of the score: what a Markov chain knows, weighed by training.

A chain alone ranks by how often an item followed the last one, and a neural model learns such pairs
slowly, from few examples each. Here the counts enter the score as classes of evidence, each with a
learned weight: how often, out of how many, how many steps apart, in which direction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from examples.mmsr.protocol import Instances, Parts

COUNTS = np.array([1, 2, 3, 4, 6, 10])
"""Where classes of counts begin."""
TOTALS = np.array([1, 2, 3, 5, 9, 17, 33])
"""Where classes of the number of all successors begin."""


@dataclass
class SuccessorRows:
    """Evidence for items after some histories.

    Args:
        place: ``[evidence]``, where in the flattened scores ``[B * num_items]``.
        kind: ``[evidence]``, its class.
    """

    place: Tensor
    kind: Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> SuccessorRows:
        """The same on another device."""
        return SuccessorRows(
            self.place.to(device, non_blocking=non_blocking),
            self.kind.to(device, non_blocking=non_blocking),
        )

    def of(self, rows: slice, num_items: int) -> SuccessorRows:
        """The evidence for these histories alone."""
        begin, end = rows.start * num_items, rows.stop * num_items
        inside = (self.place >= begin) & (self.place < end)
        return SuccessorRows(self.place[inside] - begin, self.kind[inside])


class SuccessorScore(nn.Module):
    r"""What the counts add to the score of an item ``y`` after a history ``x_1 .. x_m``.

    .. math::
        s(y) = \sum_{l} w_l\big[c_l(x, y),\; \textstyle\sum_z c_l(x, z)\big],
        \qquad x = x_{m + 1 - |l|}

    with :math:`c_l(x, y)` how often ``y`` came ``l`` steps after ``x`` in the counted parts; for a
    negative ``l``, how often it came so many steps *before* it. :math:`w_l` is a learned table
    over classes of the two numbers, which starts from :math:`\log(1 + 200\, c / (5 + \sum c))`
    with the numbers where their classes begin, a fifth of it for every lag but 1.

    The counts contain each training instance's own transition; :meth:`look_up` takes it out.

    Args:
        counts: by lag ``[num_items, num_items]``, as :func:`count` makes them.
    """

    def __init__(self, counts: Mapping[int, sparse.csr_array]) -> None:
        super().__init__()
        self.counts = dict(counts)
        self.num_items = next(iter(counts.values())).shape[0]
        self.totals = {lag: matrix.sum(axis=1) for lag, matrix in counts.items()}
        start = np.log1p(200 * COUNTS[:, None] / (5 + TOTALS))
        near = np.array([1.0 if lag == 1 else 0.2 for lag in counts])[:, None, None]
        self.weight = nn.Parameter(torch.from_numpy(near * start).float())

    def look_up(self, instances: Instances, training: bool) -> SuccessorRows:
        """The evidence for some instances.

        Args:
            instances: some of a data set's.
            training: whether they are among the counted transitions, and leave their own out.
        """
        places, kinds = [], []
        classes = math.prod(self.weight.shape[1:])
        for number, (lag, counts) in enumerate(self.counts.items()):
            steps = abs(lag)
            rows = np.flatnonzero(instances.target - steps >= instances.start)
            item = instances.items[instances.target[rows] - steps]
            begin, end = counts.indptr[item].astype(np.int64), counts.indptr[item + 1]
            size = end - begin
            within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
            entry, row = np.repeat(begin, size) + within, np.repeat(rows, size)
            successor, count = counts.indices[entry], counts.data[entry]
            total = np.repeat(self.totals[lag][item], size)
            if training:
                # With a negative lag its own transition begins at its target.
                target = instances.targets[row]
                own = (lag > 0) | (np.repeat(item, size) == target)
                count = count - (own & (successor == target))
                total = total - own
            seen = np.flatnonzero(count)
            of_count = np.searchsorted(COUNTS, count[seen], side="right") - 1
            of_total = np.searchsorted(TOTALS, total[seen], side="right") - 1
            places.append(row[seen] * self.num_items + successor[seen])
            kinds.append(number * classes + of_count * len(TOTALS) + of_total)
        return SuccessorRows(
            torch.from_numpy(np.concatenate(places)), torch.from_numpy(np.concatenate(kinds))
        )

    def forward(self, scores: Tensor, rows: SuccessorRows) -> Tensor:
        """The scores ``[B, num_items]``, changed in place."""
        added = self.weight.flatten()[rows.kind].to(scores.dtype)
        return scores.view(-1).scatter_add_(0, rows.place, added).view_as(scores)

    def recipe(self) -> dict[int, list[Tensor]]:
        """The counts as tensors, which :meth:`from_recipe` takes."""
        return {
            lag: [torch.from_numpy(part.copy()) for part in (m.data, m.indices, m.indptr)]
            for lag, m in self.counts.items()
        }

    @classmethod
    def from_recipe(cls, recipe: dict[int, list[Tensor]]) -> SuccessorScore:
        """The counts of a recipe, with the weights that training starts from."""
        counts = {}
        for lag, parts in recipe.items():
            data, indices, indptr = (part.numpy() for part in parts)
            size = (len(indptr) - 1,) * 2
            counts[lag] = sparse.csr_array((data, indices, indptr), shape=size)
        return cls(counts)

    def extra_repr(self) -> str:
        return f"lags={tuple(self.counts)}"


def count(parts: Parts, num_items: int, lags: Sequence[int]) -> dict[int, sparse.csr_array]:
    """The transitions of the parts, for :class:`SuccessorScore`.

    Args:
        parts: whose.
        num_items: the size of the catalogue.
        lags: numbers of steps.

    Raises:
        ValueError: there is no lag, one is zero, or one comes twice.
    """
    if not lags or 0 in lags or len(set(lags)) != len(lags):
        raise ValueError(f"lags: expected different numbers of steps, not 0, got {list(lags)}")
    steps = parts.prefixes()
    return {lag: _count(steps, num_items, lag) for lag in lags}


def _count(steps: Instances, num_items: int, lag: int) -> sparse.csr_array:
    """How often each item came so many steps after (before) another."""
    apart = abs(lag)
    target = steps.target[steps.target - apart >= steps.start]
    pair = steps.items[target - apart], steps.items[target]
    if lag < 0:
        pair = pair[::-1]
    counts = sparse.csr_array(
        (np.ones(len(target), np.int64), pair), shape=(num_items, num_items), dtype=np.int64
    )
    counts.sum_duplicates()
    return counts
