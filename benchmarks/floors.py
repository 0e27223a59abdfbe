"""The ratios that must hold, each a line of the table that the project set itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from benchmarks.row import BOTH, CALL, FORWARD, TOTAL, WIDEST, Row


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

    Args:
        name: what the report calls it.
        faster: usually ours.
        slower: usually a peer.
        bounds: by quantity; None only reports.
        aims: what we would like, by quantity.
        at_most: turns the bound: ``slower`` takes at most so many times as long.
    """

    name: str
    faster: Pick
    slower: Pick
    bounds: dict[str, float | None]
    aims: dict[str, float] = field(default_factory=dict)
    at_most: bool = False


@dataclass(frozen=True)
class Verdict:
    """A floor as it was measured; where a side was not, ``ratio`` is None and it does not hold."""

    name: str
    quantity: str
    bound: float | None
    aim: float | None
    at_most: bool
    ratio: float | None
    detail: str

    @property
    def holds(self) -> bool:
        if self.bound is None:
            return True
        if self.ratio is None:
            return False
        return self.ratio <= self.bound if self.at_most else self.ratio >= self.bound


def _pass(peer: str, threads: int = 1) -> Pick:
    variant = "fused" if peer == "mmgraph" else None
    return Pick("kernels", "paper", "heterogeneous pass", peer, variant, threads)


def _layers(case: str, peer: str, variant: str | None = None) -> Pick:
    return Pick("propagation", "paper", case, peer, variant)


def _fused(case: str) -> Pick:
    return _layers(case, "mmgraph", "fused")


def _reported(case: str) -> Floor:
    """What compiled PyTorch makes of a block; nothing is asked of it."""
    name = "the layer" if case == "layer" else case
    bounds: dict[str, float | None] = {FORWARD: None, BOTH: None}
    compiled = _layers(case, "PyTorch compiled")
    return Floor(f"{name} against compiled PyTorch", _fused(case), compiled, bounds)


def _builder(peer: str) -> Pick:
    return Pick("builder", "paper", "512 histories", peer, "from lists")


def _scatter(case: str) -> Floor:
    """Our scatter backend uses torch-scatter as well as it can be used."""
    ours = Pick("kernels", "paper", case, "mmgraph", "scatter")
    theirs = replace(ours, peer="torch-scatter", variant=None)
    bounds: dict[str, float | None] = {FORWARD: 1.1, BOTH: 1.1}
    return Floor(f"scatter backend, {case}", theirs, ours, bounds, at_most=True)


FLOORS = (
    Floor(
        "a pass against torch-scatter",
        _pass("mmgraph"),
        _pass("torch-scatter"),
        {FORWARD: 8, BOTH: 6},
        {FORWARD: 15, BOTH: 10},
    ),
    Floor(
        "a pass against eager PyTorch",
        _pass("mmgraph"),
        _pass("PyTorch"),
        {FORWARD: 8, BOTH: 6},
        {FORWARD: 15, BOTH: 10},
    ),
    Floor(
        "a pass against compiled PyTorch, one thread",
        _pass("mmgraph"),
        _pass("PyTorch compiled"),
        {FORWARD: 1.2, BOTH: 1.2},
        {FORWARD: 2, BOTH: 2},
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
        _fused("layer"),
        {BOTH: 1.6},
        {BOTH: 1.35},
        at_most=True,
    ),
    Floor(
        "the layer against MMSR's dense layout",
        _fused("layer"),
        _layers("layer", "MMSR's dense layout", "as released"),
        {FORWARD: 50, BOTH: 50},
        {FORWARD: 100, BOTH: 100},
    ),
    Floor(
        "the layer against MMSR's dense layout at its best",
        _fused("layer"),
        _layers("layer", "MMSR's dense layout"),
        {FORWARD: 5, BOTH: 5},
    ),
    _reported("layer"),
    Floor(
        "the layer against one GatedGraphConv step",
        _fused("layer"),
        _layers("GGNN", "PyG"),
        {FORWARD: None, BOTH: None},
        {FORWARD: 1, BOTH: 1},
    ),
    Floor("GAT against PyG", _fused("GAT"), _layers("GAT", "PyG"), {BOTH: 2.5}),
    _reported("GAT"),
    Floor("GGNN against PyG", _fused("GGNN"), _layers("GGNN", "PyG"), {BOTH: 1.15}),
    _reported("GGNN"),
    Floor(
        "GGNN's aggregation against PyG",
        _fused("GGNN's aggregation"),
        _layers("GGNN's aggregation", "PyG"),
        {BOTH: 5},
    ),
    _reported("GGNN's aggregation"),
    Floor(
        "a training step against plain PyTorch",
        Pick("end_to_end", "paper", "training step", "mmgraph", "fused"),
        Pick("end_to_end", "paper", "training step", "mmgraph", "torch"),
        {TOTAL: None},
    ),
    Floor(
        "the builder against dictionaries",
        _builder("mmgraph"),
        _builder("dictionaries"),
        {CALL: 12},
        {CALL: 22},
    ),
    *map(
        _scatter,
        (
            "heterogeneous pass",
            "homogeneous pass",
            "edge_softmax",
            "aggregate, weighted sum",
            "aggregate, sum over all edges",
            "aggregate, maximum over all edges",
        ),
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
    if "memory" in suites:
        found += _memory([row for row in rows if row.suite == "memory"])
    return found


def _verdict(floor: Floor, quantity: str, rows: Iterable[Row]) -> Verdict:
    faster, slower = floor.faster.best(rows, quantity), floor.slower.best(rows, quantity)
    verdict = Verdict(
        floor.name,
        quantity,
        floor.bounds[quantity],
        floor.aims.get(quantity),
        floor.at_most,
        None,
        "",
    )
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
                name = f"fused against eager PyTorch, {workload}"
                floor = Floor(name, ours, eager, {quantity: 5})
                yield _verdict(floor, quantity, rows)
            row = ours.best(rows, quantity)
            if _among(edges, EVEN_COST) and row is not None and row.median:
                costs.append(row.median / edges)
        ratio = max(costs) / min(costs) if costs else None
        detail = "the dearest size against the cheapest" if costs else "not measured: mmgraph"
        yield Verdict("time per edge, 4e4 to 3e5 edges", quantity, 2, None, True, ratio, detail)


def _memory(rows: Sequence[Row]) -> Iterator[Verdict]:
    """Of floats per edge the backward pass gets ``[E', H]`` only, with one head a single one."""
    for case in dict.fromkeys(row.case for row in rows):
        pick = Pick("memory", "paper", case, "mmgraph", "fused")
        row = pick.best(rows, WIDEST)
        width, detail = (None, "not measured: mmgraph") if row is None else (row.median, "")
        yield Verdict(f"{WIDEST} that fused keeps, {case}", BOTH, 1, None, True, width, detail)


def _among(edges: int, bounds: tuple[int, int]) -> bool:
    return 0.9 * bounds[0] <= edges <= 1.1 * bounds[1]  # histories make no round numbers
