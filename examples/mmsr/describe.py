"""What a data set holds, and what the protocol makes of it."""

from __future__ import annotations

import numpy as np

from examples.mmsr.data import Dataset
from examples.mmsr.protocol import SMALL, Split


def describe(data: Dataset, split: Split) -> str:
    """Users, items, modalities with what is missing, and the numbers of instances."""
    training = len(split.train.prefixes())
    whose = "every user" if data.num_users < SMALL else "every second user, drawn by seed"
    share = len(split.validation) / max(training, 1)
    lengths = np.diff(data.offsets)
    rows = [
        ("users", f"{data.num_users:,}"),
        ("items", f"{data.num_items:,}"),
        ("interactions", f"{len(data.items):,}"),
        ("history lengths", f"{lengths.min()} to {lengths.max()}, mean {lengths.mean():.1f}"),
    ]
    for modality, features in data.features.items():
        lacking = ~data.has(modality)
        steps = lacking[data.items]
        rows.append(
            (
                f"modality {modality}",
                f"{features.shape[1]:,} features; missing for {lacking.sum():,} items "
                f"({lacking.mean():.1%}), {steps.sum():,} interactions ({steps.mean():.1%})",
            )
        )
    if not data.features:
        rows.append(("modalities", "none"))
    rows += [
        ("training prefixes", f"{training:,}, before validation is taken out"),
        (
            "validation instances",
            f"{len(split.validation):,}, {share:.1%} of them: the last training step of {whose}",
        ),
        ("test instances", f"{len(split.test):,}"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join([data.name, *(f"  {name:{width}}  {value}" for name, value in rows)])
