"""Whether one recommender is ahead of another, judged by resampled users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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


def values(ranks: np.ndarray, metric: str) -> np.ndarray:
    """Each instance's part in a metric such as ``MRR@5``."""
    name, cutoff = metric.split("@")
    hit = ranks <= int(cutoff)
    return hit / ranks if name == "MRR" else hit.astype(float)


def compare(
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    user: np.ndarray,
    metrics: Sequence[str],
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Difference]:
    """The paired differences between two recommenders, averaged over their seeds.

    Users are drawn with replacement, each with all of his test instances, and the difference of
    the means over instances is taken anew; the interval lies between the quantiles. All metrics see
    the same draws.

    Args:
        ours: ranks ``[instances]``, an array for each seed.
        theirs: the same of the other, of any number of seeds.
        user: ``[instances]``, whose they are.
        metrics: such as ``HR@k`` or ``MRR@k``.
        resamples: how often users are drawn.
        level: of the interval.
        seed: of the draws.

    Raises:
        ValueError: arrays are not equally long, or there are none.
    """
    sizes = {len(ranks) for ranks in (*ours, *theirs)} | {len(user)}
    if not ours or not theirs or len(sizes) != 1:
        raise ValueError(f"ranks: expected some, all as long as user, got lengths {sorted(sizes)}")
    mine, other = (
        np.mean([[values(ranks, metric) for metric in metrics] for ranks in seeds], axis=0)
        for seeds in (ours, theirs)
    )
    _, place = np.unique(user, return_inverse=True)
    totals = np.stack([np.bincount(place, weights=row) for row in mine - other], axis=1)
    count = np.bincount(place).astype(float)
    generator = np.random.default_rng(seed)
    means = np.empty((resamples, len(metrics)))
    for number in range(resamples):
        drawn = np.bincount(generator.integers(len(count), size=len(count)), minlength=len(count))
        means[number] = (drawn @ totals) / (drawn @ count)
    quantiles = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    rows = 100 * np.stack([(mine - other).mean(1), *quantiles], axis=1)
    return [Difference(*row) for row in rows.tolist()]
