"""One history in, the items that a model would recommend next out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from examples.mmsr.protocol import Instances
from examples.mmsr.recommender import Recommender


class Recommendation(NamedTuple):
    """An item with its score."""

    item: int
    score: float


def as_instance(history: Sequence[int]) -> Instances:
    """A history alone, whose target nobody knows.

    Raises:
        ValueError: the history is empty.
    """
    if len(history) == 0:
        raise ValueError("history: expected at least one item, got none")
    # The step after the last stands for the target; no input reads it.
    items = np.array([*history, 0])
    only = np.zeros(1, dtype=np.int64)
    return Instances(items, user=only, start=only, target=only + len(history))


def recommend(model: Recommender, history: Sequence[int], top: int = 10) -> list[Recommendation]:
    """The items that score highest after a history, best first.

    Args:
        model: a model in evaluation mode.
        history: item indices, oldest first.
        top: how many items, at most the whole catalogue.

    Raises:
        ValueError: ``top`` is not positive, or the history is empty or holds an item that the model
            does not know.
    """
    if top < 1:
        raise ValueError(f"top: expected a positive number, got {top}")
    scores = model.score(as_instance(history))[0]
    best = scores.topk(min(top, len(scores)))
    return [
        Recommendation(item, score)
        for item, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def listing(recommendations: Sequence[Recommendation], names: Sequence[str] | None = None) -> str:
    """Recommendations as lines: place, score, item index, and its name where names are known."""
    lines = [f"{'':4}{'score':>9}  item"]
    for place, (item, score) in enumerate(recommendations, start=1):
        name = "" if names is None else f"  {names[item]}"
        lines.append(f"{place:3d} {score:9.4f}  {item}{name}")
    return "\n".join(lines)
