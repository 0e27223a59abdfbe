"""Our own backends, each a formulation of whatever is written on mmgraph."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.case import Formulation, Program
from mmgraph import kernels

BACKENDS = ("fused", "scatter", "torch")


def formulations(
    prepare: Callable[[], Program], peaks: dict[str, tuple[int, int]]
) -> list[Formulation]:
    """One per backend of `peaks`, which predicts each one's memory."""
    return [
        Formulation("mmgraph", backend, prepare, peak, partial(on, backend))
        for backend, peak in peaks.items()
    ]


@contextlib.contextmanager
def on(backend: str) -> Iterator[None]:
    """Run mmgraph's operations on a backend.

    Raises:
        ImportError: if it is not there, or does not run on this machine.
    """
    try:
        setting = kernels.use_backend(backend)
    except (ValueError, RuntimeError) as error:
        raise ImportError(str(error)) from None
    with setting:
        report = kernels.backend_report()["edge_attention"]
        if not report.startswith(backend):
            raise ImportError(report)
        yield
