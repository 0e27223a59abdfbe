"""Which backend runs an operation: what the user asked for, or a fixed rule."""

from __future__ import annotations

import os
from types import ModuleType, TracebackType
from typing import NamedTuple

import torch
from torch import Tensor

from mmgraph.graph import EdgeSet
from mmgraph.kernels import fused_backend, scatter_backend, torch_backend

OPS = ("edge_attention", "edge_softmax", "aggregate", "segment_matmul")
_BACKENDS: dict[str, ModuleType] = {
    "fused": fused_backend,
    "scatter": scatter_backend,
    "torch": torch_backend,
}
_CHOICES = ("auto", *_BACKENDS)


class _Rule(NamedTuple):
    device: str
    dtypes: tuple[tuple[torch.dtype, ...], ...]  # each a set of types that may be mixed
    backend: str
    reason: str


# What "auto" takes: the first rule that fits and whose backend runs here, else "torch". No rule
# looks at sizes: from 3 edges to 10 million, forward + backward, attention is never slower fused
# on the CPU (`python -m benchmarks kernels scaling` measures it), and a bound on a size would make
# torch.compile specialise on it. Nothing takes "scatter", which is never the fastest.
_RULES = (
    _Rule("cpu", ((torch.float32,), (torch.float64,)), "fused", "one pass in cache (Numba)"),
    _Rule(
        "cuda",
        ((torch.float32, torch.bfloat16, torch.float16),),
        "fused",
        "no tensor per edge and channel (Triton)",
    ),
)

_VARIABLE = "MMGRAPH_BACKEND"
_choice = os.environ.get(_VARIABLE, "auto")
_source = f"{_VARIABLE}={_choice}"
if _choice not in _CHOICES:
    raise ValueError(f"{_VARIABLE}: expected one of {_CHOICES}, got {_choice!r}")


class use_backend:
    """Choose the backend of every kernel: as a setting, or as a context manager.

    The environment variable ``MMGRAPH_BACKEND`` is what holds until this is called. The choice is
    the process's, not a thread's: contexts of two threads that overlap undo each other's.

    Args:
        name: ``"fused"`` is one pass over the edges, on the CPU (compiled by Numba; float32,
            float64) or CUDA (by Triton; float32, bfloat16, float16). ``"scatter"`` is torch-scatter
            and torch-sparse, where they are installed. ``"torch"`` is plain PyTorch: any device,
            any float type, and second and forward-mode derivatives and those of ``torch.func``,
            which the two others refuse. ``"auto"``, the default, follows a fixed rule over device
            and type, never a timing at run time, so that a program computes the same thing every
            time; :func:`backend_report` tells it.

    Raises:
        ValueError: if there is no such backend.
        ImportError: if the backend's packages are missing or broken.

    Example:
        >>> with use_backend("torch"):
        ...     print(backend_report()["edge_attention"])
        torch: chosen by use_backend('torch')
    """

    def __init__(self, name: str) -> None:
        if name not in _CHOICES:
            raise ValueError(f"name: expected one of {_CHOICES}, got {name!r}")
        _check_available(name)
        self._choice = name, f"use_backend({name!r})"
        self._previous = [_set(*self._choice)]
        self._entered = False

    def __enter__(self) -> None:
        # The choice is made anew, unless what holds is that of this very object's beginning.
        if self._entered or _source is not self._choice[1]:
            self._previous.append(_set(*self._choice))
        self._entered = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _set(*self._previous.pop())


def backend_report() -> dict[str, str]:
    """What each operation runs on now and why, and which backends run here.

    Returns:
        A line for each operation, and one for each backend.
    """
    if _choice == "auto":
        parts = []
        for rule in _RULES:
            dtypes = (dtype for mixed in rule.dtypes for dtype in mixed)
            types = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
            reason = _unavailable(rule.backend, rule.device)
            parts.append(
                f"{rule.backend} on {rule.device} for {types}: {rule.reason}"
                if reason is None
                else f"torch on {rule.device}: {rule.backend} does not run, as {reason}"
            )
        line = "; ".join((*parts, "torch for anything else"))
    else:
        line = f"{_choice}: chosen by {_source}"
    report = dict.fromkeys(OPS, line)
    for device in ("cpu", "cuda"):
        report[f"fused on {device}"] = _unavailable("fused", device) or "runs"
    report["scatter"] = _unavailable("scatter", "") or "runs"
    report["torch"] = "runs"
    return report


def backend(*tensors: Tensor | None, edges: EdgeSet | None = None) -> ModuleType:
    """The module that runs an operation on these tensors, the first of which is given."""
    if _choice != "auto":
        return _BACKENDS[_choice]
    given = [tensor for tensor in tensors if tensor is not None]
    device = given[0].device.type
    dtypes = {_dtype(tensor) for tensor in given}
    # A set that is itself a transpose has none of its own, which gradients need.
    if edges is not None and edges.transpose is None:
        return torch_backend
    for rule in _RULES:
        if rule.device == device and any(dtypes <= set(types) for types in rule.dtypes):
            return _BACKENDS["torch" if _unavailable(rule.backend, device) else rule.backend]
    return torch_backend


def _dtype(tensor: Tensor) -> torch.dtype:
    """The type in which an operation gets a tensor: on the CPU, autocast makes it float32."""
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    if half and tensor.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        return torch.float32
    return tensor.dtype


@torch.compiler.assume_constant_result
def _unavailable(name: str, device: str) -> str | None:
    """Why a backend does not run on a device; ``None`` where it does."""
    if name == "fused":
        return fused_backend.unavailable(device)
    return scatter_backend.unavailable() if name == "scatter" else None


def _check_available(name: str) -> None:
    """A backend that someone chose runs on some device."""
    reasons = [_unavailable(name, device) for device in ("cpu", "cuda")]
    if all(reasons):
        raise ImportError(f"the {name} backend does not run: {reasons[0]}")


_check_available(_choice)


def _set(name: str, source: str) -> tuple[str, str]:
    global _choice, _source
    previous = _choice, _source
    _choice, _source = name, source
    return previous
