"""Which backend runs an operation: what the user asked for, or a fixed rule."""

from __future__ import annotations

from types import ModuleType, TracebackType

from mmgraph.kernels import fused_backend, torch_backend

_BACKENDS: dict[str, ModuleType] = {"torch": torch_backend, "fused": fused_backend}
_OPS = ("edge_attention", "edge_softmax", "aggregate", "segment_matmul")
_CHOICES = ("auto", *_BACKENDS)

_choice = "auto"


class use_backend:
    """Choose the backend of every kernel: as a setting, or as a context manager.

    Args:
        name: ``"torch"`` is plain PyTorch: any device, any float type, second derivatives.
            ``"auto"``, the default, follows a fixed rule, never a timing at run time, so that a
            program computes the same thing every time.

    Raises:
        ValueError: if there is no such backend.

    Example:
        >>> with use_backend("torch"):
        ...     print(backend_report()["edge_attention"])
        torch: chosen by use_backend('torch')
    """

    def __init__(self, name: str) -> None:
        if name not in _CHOICES:
            raise ValueError(f"name: expected one of {_CHOICES}, got {name!r}")
        self._previous = _set(name)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _set(self._previous)


def backend_report() -> dict[str, str]:
    """What each operation runs on now, and why."""
    if _choice == "auto":
        return dict.fromkeys(_OPS, "torch: the only backend")
    return dict.fromkeys(_OPS, f"{_choice}: chosen by use_backend({_choice!r})")


def backend() -> ModuleType:
    """The module that runs the operations."""
    return _BACKENDS["torch" if _choice == "auto" else _choice]


def _set(name: str) -> str:
    global _choice
    previous, _choice = _choice, name
    return previous
