"""Batches for a `torch.utils.data.DataLoader`: graphs and targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmgraph import _checks as check
from mmgraph.builder import SequenceGraphBuilder
from mmgraph.graph import SequenceGraph

_KEYS = ("history", "target", "present", "codes")


class GraphCollator:
    """Turns a list of samples into ``(graph, targets)``: a ``collate_fn`` for a ``DataLoader``.

    It pickles and starts no threads, so it works in any number of workers, forked or spawned; a
    worker passes a graph on as one piece of shared memory. (A builder alone is a ``collate_fn``
    for a data set of bare histories.)

    A sample is a pair ``(history, target)``, or a mapping with ``"history"``, ``"target"`` and
    optionally ``"present"`` and ``"codes"``: what the builder takes per step, for this history
    alone. A sample without ``present`` has all its modalities there; ``codes`` come with every
    sample of a batch or with none.

    Args:
        builder: makes the graphs.

    Example:
        >>> schema = GraphSchema(("item",))
        >>> instances = [([0, 1], 2), ([0, 1, 2], 0), ([4], 1)]
        >>> loader = torch.utils.data.DataLoader(
        ...     instances, batch_size=2, collate_fn=GraphCollator(SequenceGraphBuilder(schema))
        ... )
        >>> for graph, targets in loader:
        ...     print(graph.num_graphs, targets)
        2 tensor([2, 0])
        1 tensor([1])
    """

    def __init__(self, builder: SequenceGraphBuilder) -> None:
        check.instance("builder", builder, SequenceGraphBuilder)
        self.builder = builder

    def __call__(self, samples: Sequence[Any]) -> tuple[SequenceGraph, Tensor]:
        """Build one batch.

        Args:
            samples: pairs ``(history, target)``, or mappings as described above.

        Returns:
            The graph of all histories, and the targets ``[B]`` (int64), both on the CPU.

        Raises:
            TypeError: if a sample has another form or its target is no integer.
            ValueError: if a mapping lacks a key, has an unknown one, or only some samples bring
                codes; and whatever the builder raises.
        """
        parts = [_parts(number, sample) for number, sample in enumerate(samples)]
        histories = [part["history"] for part in parts]
        targets = [_target(number, part["target"]) for number, part in enumerate(parts)]
        graph = self.builder(
            histories,
            present=_per_history(parts, "present"),
            codes=_per_history(parts, "codes"),
        )
        return graph, torch.tensor(targets, dtype=torch.int64, device="cpu")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.builder})"


def _parts(number: int, sample: Any) -> Mapping[str, Any]:
    if isinstance(sample, Mapping):
        for name in _KEYS[:2]:
            if name not in sample:
                raise ValueError(f"samples[{number}]: expected a {name!r}, got {list(sample)}")
        for name in sample:
            if name not in _KEYS:
                raise ValueError(f"samples[{number}]: expected keys of {_KEYS}, got {name!r}")
        return sample
    if not isinstance(sample, tuple | list) or len(sample) != 2:
        raise TypeError(
            f"samples[{number}]: expected a pair (history, target) or a mapping, got "
            f"{type(sample).__name__}"
            + (f" of {len(sample)} entries" if isinstance(sample, tuple | list) else "")
        )
    return {"history": sample[0], "target": sample[1]}


def _target(number: int, target: Any) -> int:
    value = target.item() if isinstance(target, Tensor) and target.numel() == 1 else target
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(
            f"samples[{number}]: expected an integer target, got {type(value).__name__} {value!r}"
        )
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"samples[{number}]: expected a target that fits int64, got {value}")
    return int(value)


def _length(number: int, history: Any) -> int:
    try:
        return len(history)
    except TypeError:
        raise TypeError(
            f"samples[{number}]: expected a history as a sequence of steps, got "
            f"{type(history).__name__}"
        ) from None


def _given(number: int, key: str, value: Any) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise TypeError(
            f"samples[{number}][{key!r}]: expected a mapping from modalities, "
            f"got {type(value).__name__}"
        )
    return value or {}


def _per_history(parts: list[Mapping[str, Any]], key: str) -> dict[str, list[Any]] | None:
    """What the samples bring per step: a list over histories for each modality named."""
    given = [_given(number, key, part.get(key)) for number, part in enumerate(parts)]
    found: dict[str, list[Any]] = {}
    for name in dict.fromkeys(name for own in given for name in own):
        found[name] = []
        for number, (part, own) in enumerate(zip(parts, given, strict=True)):
            if name in own:
                found[name].append(own[name])
            elif key == "present":
                found[name].append([True] * _length(number, part["history"]))
            else:
                raise ValueError(
                    f"samples[{number}]: expected codes[{name!r}], which other samples bring"
                )
    return found or None
