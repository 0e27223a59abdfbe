"""A graph's integers as one tensor: how a `SequenceGraph` is pickled.

A graph holds some thirty tensors. Passed from a loader's worker one by one, each would take a file
descriptor of its own for as long as the graph lives, and most of the time of passing it on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

_ALIGNMENT = 8  # int64 numbers: a cache line


class _Place(NamedTuple):
    """Where a tensor lies in the packed one."""

    begin: int
    shape: tuple[int, ...]


def pack(graph: Any, edge_sets: type) -> tuple[Tensor, dict[str, Any]]:
    """All integers of a graph in one tensor, and its fields with places instead of tensors.

    Tensors that share memory stay shared. ``type_ptr``, which lives on the CPU whatever the graph's
    device, becomes a list; ``edge_attr``, which has a type of its own, stays as it is.
    """
    pieces: list[Tensor] = []
    begins: dict[tuple[int, int, tuple[int, ...]], int] = {}
    total = 0

    def place(value: Tensor) -> _Place:
        nonlocal total
        begin = begins.get(_memory(value))
        if begin is None:
            begin = total
            gap = -value.numel() % _ALIGNMENT
            pieces.extend((value.reshape(-1), value.new_zeros(gap)))
            total += value.numel() + gap
            begins[_memory(value)] = begin
            if value.dim() == 2:
                for number, row in enumerate(value):
                    begins.setdefault(_memory(row), begin + number * row.numel())
        return _Place(begin, tuple(value.shape))

    def described(owner: Any) -> dict[str, Any]:
        state: dict[str, Any] = {}
        for field in fields(owner):
            value = getattr(owner, field.name)
            if isinstance(value, edge_sets):
                state[field.name] = described(value)
            elif field.name == "type_ptr":
                state[field.name] = value.tolist()
            elif isinstance(value, Tensor) and field.name != "edge_attr":
                state[field.name] = place(value)
            else:
                state[field.name] = value
        return state

    state = described(graph)
    return _joined(pieces, total), state


def unpack(packed: Tensor, state: dict[str, Any], edge_sets: Callable[..., Any]) -> dict[str, Any]:
    """The fields again; the tensors are views of the packed one, but for :func:`pack`'s two."""
    views: dict[_Place, Tensor] = {}

    def restored(value: Any) -> Any:
        if isinstance(value, dict):
            return edge_sets(**{name: restored(member) for name, member in value.items()})
        if isinstance(value, _Place):
            if value not in views:
                end = value.begin + math.prod(value.shape)
                views[value] = packed[value.begin : end].view(value.shape)
            return views[value]
        return value

    found = {name: restored(value) for name, value in state.items()}
    found["type_ptr"] = torch.tensor(found["type_ptr"], dtype=torch.int64, device="cpu")
    return found


def _memory(value: Tensor) -> tuple[int, int, tuple[int, ...]]:
    return value.data_ptr(), value.numel(), value.stride()


def _joined(pieces: list[Tensor], total: int) -> Tensor:
    if get_worker_info() is None or pieces[0].device.type != "cpu":
        return torch.cat(pieces)
    # In a loader's worker, straight into the memory that is passed on (as PyTorch's own collate).
    storage = torch.UntypedStorage._new_shared(8 * total)  # type: ignore[no-untyped-call]
    packed = torch.empty(0, dtype=torch.int64).set_(storage, 0, (total,))  # type: ignore[call-overload]
    return torch.cat(pieces, out=packed)
