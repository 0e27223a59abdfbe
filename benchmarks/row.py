"""What a measurement yields, and what it runs under."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.timing import Call, Effort, Scope, in_turn

FORWARD, BOTH, CALL, TOTAL = "forward", "forward + backward", "call", "whole step"
WIDEST = "floats of the widest edge"


@dataclass
class Row:
    """One line of the report: a formulation's time, or why there is none.

    ``unit`` is ``s`` or ``B``; ``status`` is ``ok``, ``absent``, ``does not fit``, ``skipped``,
    ``wrong`` or ``failed``, with the reason in ``detail``.
    """

    suite: str
    workload: str
    case: str
    peer: str
    variant: str
    quantity: str
    threads: int
    status: str = "ok"
    unit: str = "s"
    q1: float | None = None
    median: float | None = None
    q3: float | None = None
    repeats: int = 0
    cold: float | None = None
    first_call: float | None = None
    error: float | None = None
    edges: int = 0
    detail: str = ""

    def fill(self, times: list[float]) -> None:
        """Write the quartiles of some readings."""
        self.q1, self.median, self.q3 = (float(q) for q in np.percentile(times, [25, 50, 75]))
        self.repeats = len(times)

    @property
    def formulation(self) -> str:
        return f"{self.peer}, {self.variant}" if self.variant else self.peer


@dataclass(frozen=True)
class Settings:
    """What a worker process runs under."""

    threads: int
    smoke: bool
    effort: Effort
    workload: str | None = None  # all of a suite's by default

    def chosen(self, names: Sequence[str]) -> list[str]:
        """Of a suite's workloads, by name, those that are measured."""
        return [name for name in names if self.workload in (None, name)]

    @property
    def memory(self) -> float:
        """Bytes that a formulation's predicted peak may have: half the machine's memory."""
        return total_memory() / 2


Timed = tuple[Row, Scope, Call]


def fill_cold(timed: Sequence[Timed], settings: Settings) -> None:
    """Read all calls in turn, with cold caches, into their rows."""
    seconds = in_turn([(scope, call) for _, scope, call in timed], settings.effort)
    for (row, _, _), median in zip(timed, seconds, strict=True):
        row.cold = median


def total_memory() -> int:
    """Bytes of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
