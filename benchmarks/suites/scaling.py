"""The heterogeneous pass from ten thousand to ten million edges."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.case import Case, measure
from benchmarks.row import Row, Settings
from benchmarks.suites.kernels import HETEROGENEOUS, attention_pass
from benchmarks.workloads import WORKLOADS, small

EDGES = (10_000, 40_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
NAMES = tuple(f"{edges:,} edges" for edges in EDGES)
SMOKE_EDGES = (500, 2_000)


def run(settings: Settings) -> Iterator[Row]:
    for case in cases(settings):
        yield from measure("scaling", case, settings)


def cases(settings: Settings) -> Iterator[Case]:
    """The paper's workload with as many histories as give so many heterogeneous edges."""
    base = WORKLOADS["paper"]
    if settings.smoke:
        base = small(base)
    per_graph = base.with_graphs(2_000).graph().heterogeneous.num_edges / 2_000
    for edges in SMOKE_EDGES if settings.smoke else EDGES:
        name = f"{edges:,} edges"
        if settings.chosen([name]):
            workload = base.with_graphs(max(1, round(edges / per_graph)), name)
            yield attention_pass(workload, settings, HETEROGENEOUS)
