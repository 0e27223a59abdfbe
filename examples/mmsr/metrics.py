"""Ranks over the whole catalogue, and what is read off them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from examples.mmsr.protocol import Instances

Scorer = Callable[[Instances], Tensor]
"""Scores of every item of the catalogue after each of some histories: ``[instances, items]``."""

METRICS = ("HR", "MRR", "NDCG")
CUTOFFS = (5, 20)


def ranks(scores: Tensor, targets: Tensor) -> Tensor:
    r"""The rank of each target: :math:`1 + \#\{s_y > s_t\} + \tfrac12 \#\{y \ne t: s_y = s_t\}`.

    Args:
        scores: ``[B, num_items]``.
        targets: ``[B]``, the items to find.

    Returns:
        ``[B]``, float64; fractional where an odd number of items tie with the target.

    Raises:
        ValueError: a score is not finite.
    """
    if not torch.isfinite(scores).all():
        row, item = torch.nonzero(~torch.isfinite(scores))[0].tolist()
        raise ValueError(
            f"scores must be finite, but scores[{row}, {item}] is {scores[row, item].item()}"
        )
    own = scores.gather(1, targets[:, None])
    above = (scores > own).sum(1)
    ties = (scores == own).sum(1) - 1
    return 1 + above + ties.double() / 2


def rank_all(scorer: Scorer, instances: Instances, batch_size: int = 512) -> np.ndarray:
    """The rank of every instance's target, ``[instances]`` float64.

    Args:
        scorer: scores a batch of instances.
        instances: what to rank.
        batch_size: instances scored at a time.
    """
    found = np.empty(len(instances))
    with torch.inference_mode():
        for begin in range(0, len(instances), batch_size):
            batch = instances[begin : begin + batch_size]
            rows = ranks(scorer(batch), torch.from_numpy(batch.targets))
            found[begin : begin + batch_size] = rows.cpu().numpy()
    return found


def values(found: np.ndarray, metric: str) -> np.ndarray:
    r"""Each instance's part in a metric:

    .. math:: \text{HR@}k = [r \le k], \quad \text{MRR@}k = [r \le k] / r, \quad
        \text{NDCG@}k = [r \le k] / \log_2(1 + r)

    Args:
        found: the ranks :math:`r` of the relevant items, one an instance.
        metric: its name.

    Raises:
        ValueError: the metric is unknown.
    """
    name, _, cutoff = metric.partition("@")
    if name not in METRICS or not cutoff.isdecimal():
        raise ValueError(f"metric: expected {', '.join(METRICS)} @ a number, got {metric!r}")
    hit = found <= int(cutoff)
    if name == "HR":
        return hit.astype(float)
    return hit / (found if name == "MRR" else np.log2(1 + found))


def summarise(found: np.ndarray, cutoffs: Iterable[int] = CUTOFFS) -> dict[str, float]:
    """Means of :func:`values` over instances, in percent.

    Args:
        found: the ranks of the relevant items, one an instance.
        cutoffs: the numbers of places that count.

    Raises:
        ValueError: there are no ranks.
    """
    if len(found) == 0:
        raise ValueError("there are no ranks to summarise: no instance was ranked")
    names = [f"{name}@{cutoff}" for cutoff in cutoffs for name in METRICS]
    return {name: 100 * float(values(found, name).mean()) for name in names}


def table(rows: dict[str, dict[str, float]], columns: Sequence[str] | None = None) -> str:
    """A markdown table of metrics, one row a recommender.

    Args:
        rows: metrics by the recommender's name.
        columns: which metrics; None takes those of the first row.
    """
    columns = list(next(iter(rows.values()))) if columns is None else list(columns)
    width = max(map(len, rows))
    lines = [
        f"| {'':{width}} | " + " | ".join(f"{column:>7}" for column in columns) + " |",
        f"|{'-' * (width + 2)}|" + "|".join("-" * 8 + ":" for _ in columns) + "|",
    ]
    for name, metrics in rows.items():
        cells = " | ".join(f"{metrics[column]:7.3f}" for column in columns)
        lines.append(f"| {name:{width}} | {cells} |")
    return "\n".join(lines)
