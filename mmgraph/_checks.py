"""Checks of arguments: each raises an error that names the argument, what was expected, what came.

A check of values reads the tensor, so the hot path (`forward`) calls only those of shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

_INTEGER_TYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def instance(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected a {kind.__name__}, got {type(value).__name__}")


def device(name: str, value: Any) -> None:
    """A device and no type: what moves integers must not turn them into other numbers."""
    if isinstance(value, bool) or not isinstance(value, torch.device | str | int):
        raise TypeError(f"{name}: expected a device, got {type(value).__name__} {value!r}")


def same_device(name: str, value: Tensor, expected: torch.device, owner: str) -> None:
    """A kernel reads another device's memory for its own, and may say nothing."""
    if value.device != expected:
        raise ValueError(
            f"{name}: expected it on {expected}, where {owner} is, got it on {value.device}"
        )


def boolean(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected a bool, got {type(value).__name__} {value!r}")


def positive(name: str, value: Any, *, least: int = 1) -> int:
    """An int of Python's, whether it came as one or as NumPy's, such as ``array.max() + 1``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__} {value!r}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    return int(value)


def heads(channels: int, heads: int) -> None:
    """Channels can be split evenly over the heads."""
    positive("channels", channels)
    positive("heads", heads)
    if channels % heads:
        raise ValueError(f"heads: expected a divisor of channels {channels}, got {heads}")


def number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__} {value!r}")


def probability(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected a probability, got {type(value).__name__} {value!r}")
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{name}: expected a probability in [0, 1), got {value}")


def shape(name: str, value: Tensor, expected: tuple[int | None, ...], meaning: str = "") -> None:
    """The tensor's sizes are those expected; None stands for any size."""
    instance(name, value, Tensor)
    got = tuple(value.shape)
    if len(got) != len(expected) or any(
        e is not None and e != g for e, g in zip(expected, got, strict=True)
    ):
        wanted = ", ".join("*" if e is None else str(e) for e in expected)
        detail = f" ({meaning})" if meaning else ""
        raise ValueError(f"{name}: expected shape [{wanted}]{detail}, got {list(got)}")


def rows(name: str, value: Tensor, expected: int, meaning: str) -> None:
    """The tensor has a first dimension of the expected size."""
    instance(name, value, Tensor)
    if value.dim() == 0 or value.shape[0] != expected:
        raise ValueError(
            f"{name}: expected {meaning}, {expected} in all, got shape {list(value.shape)}"
        )


def floating(name: str, value: Tensor) -> None:
    instance(name, value, Tensor)
    if not value.is_floating_point():
        raise TypeError(f"{name}: expected floating-point numbers, got {value.dtype}")


def integers(name: str, value: Tensor, expected: tuple[int | None, ...], meaning: str = "") -> None:
    instance(name, value, Tensor)
    if value.dtype not in _INTEGER_TYPES:
        raise TypeError(f"{name}: expected integers, got {value.dtype}")
    shape(name, value, expected, meaning)


def index_range(name: str, value: Tensor, size: int | None) -> None:
    """Every value is in [0, size), or at least not negative where no size is given."""
    value = value.long()  # in a narrower type, a size could wrap
    bad = value < 0 if size is None else (value < 0) | (value >= size)
    wanted = "0 or more" if size is None else f"0 to {size - 1}" if size else "no entries"
    first_bad(bad, lambda i: f"{name}[{i}]: expected {wanted}, got {int(value[i])}")


def non_decreasing(name: str, value: Tensor, rule: str) -> None:
    first_bad(
        value[1:] < value[:-1],
        lambda i: f"{name}[{i + 1}]: {rule}, and this one comes after a larger one",
    )


def offsets(name: str, value: Tensor, total: int, count: int | None = None) -> None:
    """Offsets begin at 0, never fall, and end at the number of values."""
    integers(name, value, (None if count is None else count + 1,))
    if value.shape[0] == 0 or int(value[0]) != 0:
        got = int(value[0]) if value.shape[0] else "no offsets"
        raise ValueError(f"{name}[0]: expected 0, got {got}")
    non_decreasing(name, value, "offsets must not fall")
    if int(value[-1]) != total:
        raise ValueError(
            f"{name}[-1]: expected the number of values, {total}, got {int(value[-1])}"
        )


def segment_bounds(name: str, value: Tensor, total: int) -> list[int]:
    """Offsets as numbers, held to the rules of :func:`offsets`.

    That makes several tensor operations, so it is left to word the error.
    """
    found: list[int] = value.tolist() if value.dim() == 1 else []
    if not found or found != sorted(found) or found[0] != 0 or found[-1] != total:
        offsets(name, value, total)
    return found


def first_bad(bad: Tensor, message: Callable[[int], str]) -> None:
    """Raise a ValueError for the first true entry."""
    if bad.numel() and bool(bad.any()):
        raise ValueError(message(int(bad.to(torch.uint8).argmax())))
