"""Which fields of a configuration name a training."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

LATER = {"later": True}
"""Metadata of a field with a default that came after trainings were recorded.

Only records of trainings that are the same at its default may be kept.
"""


def decisive(config: Any) -> dict[str, Any]:
    """A configuration as plain values, without later fields that are at their defaults."""
    plain: dict[str, Any] = {}
    for each in fields(config):
        value = getattr(config, each.name)
        if not each.metadata.get("later") or value != each.default:
            plain[each.name] = decisive(value) if is_dataclass(value) else value
    return plain
