"""Whether one recommender is ahead of another, judged by resampled users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from examples.mmsr.metrics import values

_AT_A_TIME = 32
"""Resamples multiplied in one go."""


@dataclass(frozen=True)
class Difference:
    """A metric's mean paired difference, in percent, and the interval around it."""

    mean: float
    low: float
    high: float

    @property
    def ahead(self) -> bool:
        """Whether the interval lies above zero."""
        return self.low > 0

    def __str__(self) -> str:
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def compare(
    ours: Sequence[np.ndarray],
    others: Sequence[Sequence[np.ndarray]],
    user: np.ndarray,
    metrics: Sequence[str],
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> list[list[Difference]]:
    """The paired differences between a recommender and others, averaged over their seeds.

    Users are drawn with replacement, each with all of his test instances, and the difference of
    the means over instances is taken anew; the interval lies between the quantiles. All metrics and
    all others see the same draws.

    Args:
        ours: ranks ``[instances]``, an array for each seed.
        others: the same of each other, of any number of seeds.
        user: ``[instances]``, whose they are.
        metrics: such as ``HR@k`` or ``MRR@k``.
        resamples: how often users are drawn.
        level: of the interval.
        seed: of the draws.

    Returns:
        For each other a difference for each metric.

    Raises:
        ValueError: arrays are not equally long, there are none, or a metric is unknown.
    """
    named = {"ours": ours, **{f"others[{place}]": each for place, each in enumerate(others)}}
    if not others:
        raise ValueError("others: expected at least one, got none")
    for name, seeds in named.items():
        lengths = [len(ranks) for ranks in seeds]
        if not lengths or set(lengths) != {len(user)}:
            raise ValueError(
                f"{name}: expected ranks as long as user, {len(user)}, got lengths {lengths}"
            )
    mine, *theirs = (
        np.mean([[values(ranks, metric) for metric in metrics] for ranks in seeds], axis=0)
        for seeds in (ours, *others)
    )
    differences = np.concatenate([mine - other for other in theirs])
    _, place = np.unique(user, return_inverse=True)
    totals = np.stack([np.bincount(place, weights=row) for row in differences], axis=1)
    count = np.bincount(place).astype(float)
    generator = np.random.default_rng(seed)
    means = np.empty((resamples, len(differences)))
    for begin in range(0, resamples, _AT_A_TIME):
        part = means[begin : begin + _AT_A_TIME]
        users = (generator.integers(len(count), size=len(count)) for _ in part)
        drawn = np.stack([np.bincount(each, minlength=len(count)) for each in users]).astype(float)
        part[:] = (drawn @ totals) / (drawn @ count)[:, None]
    quantiles = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    rows = 100 * np.stack([differences.mean(1), *quantiles], axis=1)
    found = [Difference(*row) for row in rows.tolist()]
    return [found[at : at + len(metrics)] for at in range(0, len(found), len(metrics))]
