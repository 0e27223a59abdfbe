"""The ratios that must hold, each a line of the table that the project set itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.row import BOTH, CALL, FORWARD, Row


@dataclass(frozen=True)
class Pick:
    """Selects rows; of several the fastest counts."""

    suite: str
    workload: str
    case: str
    peer: str
    variant: str | None = None
    threads: int = 1

    def best(self, rows: Iterable[Row], quantity: str) -> Row | None:
        timed = [
            row
            for row in rows
            if row.median is not None
            and row.quantity == quantity
            and (row.suite, row.workload, row.case) == (self.suite, self.workload, self.case)
            and (row.peer, row.threads) == (self.peer, self.threads)
            and (self.variant is None or row.variant == self.variant)
        ]
        return min(timed, key=lambda row: row.median or 0.0, default=None)


@dataclass(frozen=True)
class Floor:
    """``slower`` takes at least so many times as long as ``faster``.

    With ``at_most`` the bound is turned: ``slower`` takes at most so many times as long.
    """

    name: str
    faster: Pick
    slower: Pick
    bounds: dict[str, float]
    at_most: bool = False


@dataclass(frozen=True)
class Verdict:
    """A floor as it was measured; ``ratio`` is None where a side was not, and that holds not."""

    name: str
    quantity: str
    bound: float
    at_most: bool
    ratio: float | None
    detail: str

    @property
    def holds(self) -> bool:
        if self.ratio is None:
            return False
        return self.ratio <= self.bound if self.at_most else self.ratio >= self.bound


def _pass(peer: str, threads: int = 1) -> Pick:
    variant = "fused" if peer == "mmgraph" else None
    return Pick("kernels", "paper", "heterogeneous pass", peer, variant, threads)


def _layers(case: str, peer: str, variant: str | None = None) -> Pick:
    return Pick("propagation", "paper", case, peer, variant)


def _builder(peer: str) -> Pick:
    return Pick("builder", "paper", "512 histories", peer, "from lists")


_FUSED = _layers("layer", "mmgraph", "fused")
FLOORS = (
    Floor(
        "a pass against torch-scatter",
        _pass("mmgraph"),
        _pass("torch-scatter"),
        {FORWARD: 8, BOTH: 6},
    ),
    Floor(
        "a pass against eager PyTorch", _pass("mmgraph"), _pass("PyTorch"), {FORWARD: 8, BOTH: 6}
    ),
    Floor(
        "a pass against compiled PyTorch, one thread",
        _pass("mmgraph"),
        _pass("PyTorch compiled"),
        {FORWARD: 1.2, BOTH: 1.2},
    ),
    Floor(
        "a pass against compiled PyTorch, two threads",
        _pass("mmgraph", 2),
        _pass("PyTorch compiled", 2),
        {FORWARD: 3, BOTH: 3},
    ),
    Floor(
        "the layer against its eight matrix products",
        _layers("the layer's eight matrix products", "PyTorch"),
        _FUSED,
        {BOTH: 1.6},
        at_most=True,
    ),
    Floor(
        "the layer against MMSR's dense layout",
        _FUSED,
        _layers("layer", "MMSR's dense layout", "all pairs stored"),
        {FORWARD: 50, BOTH: 50},
    ),
    Floor(
        "GAT against PyG", _layers("GAT", "mmgraph", "fused"), _layers("GAT", "PyG"), {BOTH: 2.5}
    ),
    Floor(
        "GGNN against PyG",
        _layers("GGNN", "mmgraph", "fused"),
        _layers("GGNN", "PyG"),
        {BOTH: 1.15},
    ),
    Floor(
        "GGNN's aggregation against PyG",
        _layers("GGNN's aggregation", "mmgraph", "fused"),
        _layers("GGNN's aggregation", "PyG"),
        {BOTH: 5},
    ),
    Floor(
        "the builder against dictionaries",
        _builder("mmgraph"),
        _builder("dictionaries"),
        {CALL: 12},
    ),
)
EVERY_SIZE = (40_000, 1_000_000)
EVEN_COST = (40_000, 300_000)


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Every floor of the suites that were run."""
    suites = {row.suite for row in rows}
    found = [
        _verdict(floor, quantity, rows)
        for floor in FLOORS
        if floor.faster.suite in suites
        for quantity in floor.bounds
    ]
    if "scaling" in suites:
        found += _scaling([row for row in rows if row.suite == "scaling" and row.threads == 1])
    return found


def _verdict(floor: Floor, quantity: str, rows: Iterable[Row]) -> Verdict:
    bound = floor.bounds[quantity]
    faster, slower = floor.faster.best(rows, quantity), floor.slower.best(rows, quantity)
    verdict = Verdict(floor.name, quantity, bound, floor.at_most, None, "")
    if faster is None or slower is None:
        pick = floor.faster if faster is None else floor.slower
        return replace(verdict, detail=f"not measured: {pick.peer}, {pick.case}")
    assert faster.median is not None
    assert slower.median is not None
    detail = f"{slower.formulation} {1e3 * slower.median:.3g} ms, "
    detail += f"{faster.formulation} {1e3 * faster.median:.3g} ms"
    return replace(verdict, ratio=slower.median / faster.median, detail=detail)


def _scaling(rows: Sequence[Row]) -> Iterator[Verdict]:
    """Fused against eager at every size, and an even time per edge."""
    sizes = sorted({(row.edges, row.workload) for row in rows})
    for quantity in (FORWARD, BOTH):
        costs: list[float] = []
        for edges, workload in sizes:
            ours = Pick("scaling", workload, "heterogeneous pass", "mmgraph", "fused")
            eager = replace(ours, peer="PyTorch", variant=None)
            if _among(edges, EVERY_SIZE):
                floor = Floor(
                    f"fused against eager PyTorch, {workload}", ours, eager, {quantity: 5}
                )
                yield _verdict(floor, quantity, rows)
            row = ours.best(rows, quantity)
            if _among(edges, EVEN_COST) and row is not None and row.median:
                costs.append(row.median / edges)
        ratio = max(costs) / min(costs) if costs else None
        detail = "slowest against fastest size" if costs else "not measured: mmgraph, fused"
        yield Verdict("time per edge, 4e4 to 3e5 edges", quantity, 2, True, ratio, detail)


def _among(edges: int, bounds: tuple[int, int]) -> bool:
    return 0.9 * bounds[0] <= edges <= 1.1 * bounds[1]  # histories make no round numbers
