"""The figures of README and documentation, made from a run's results.

A file says where: what stands between ``<!-- benchmarks: NAME -->`` and ``<!-- end -->`` is
replaced by one of :data:`BLOCKS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.floors import FLOORS, Floor, verdicts
from benchmarks.row import BOTH, FORWARD, Row

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results.json"
FILES = ("README.md", "docs/benchmarks.md")
PLOTS = ROOT / "docs" / "_static" / "benchmarks"

SUMMARY = {
    "a pass against torch-scatter": "one attention pass, against torch-scatter",
    "a pass against eager PyTorch": "the same, against PyTorch",
    "a pass against compiled PyTorch, one thread": "the same, against compiled PyTorch",
    "the layer against MMSR's dense layout": "MMSR's layer, against its authors' layout (one run)",
    "the layer against MMSR's dense layout at its best": "the same, against that at its best",
    "the layer against compiled PyTorch": "the same, against compiled PyTorch",
    "GAT against PyG": "GAT, against PyG",
    "GAT against compiled PyTorch": "the same, against compiled PyTorch",
    "GGNN against PyG": "GGNN, one step, against PyG",
    "GGNN against compiled PyTorch": "the same, against compiled PyTorch",
    "GGNN's aggregation against PyG": "GGNN's aggregation, against PyG",
    "GGNN's aggregation against compiled PyTorch": "the same, against compiled PyTorch",
    "a training step against plain PyTorch": "a training step of MMSR, against plain PyTorch",
    "the builder against dictionaries": "graphs of 512 histories (one call), against dictionaries",
}
"""Floors that the README shows, and what it calls them."""


Job = tuple[str, str, int]
"""A suite, a workload and a number of threads: what a process measures."""


def publish(results: dict[str, Any], jobs: Sequence[Job]) -> Iterator[Path]:
    """Write the results, the blocks of every file, and the plots; yields what was written.

    Raises:
        ValueError: the results are of a smoke test, or lack one of the jobs of a whole run.
    """
    if "sizes" in results["environment"]:
        raise ValueError(f"results: expected a whole run, got {results['environment']['sizes']}")
    rows = [Row(**row) for row in results["rows"]]
    measured = {(row.suite, row.workload, row.threads) for row in rows}
    for suite, workload, threads in jobs:
        if (suite, workload, threads) not in measured:
            raise ValueError(
                f"results: expected a whole run, got none of suite {suite}, workload {workload}, "
                f"threads {threads}"
            )
    files = [ROOT / name for name in FILES]
    texts = [fill(path.read_text(encoding="utf-8"), results) for path in files]  # or nothing at all
    report.save(results, RESULTS)
    yield RESULTS
    for path, text in zip(files, texts, strict=True):
        path.write_text(text, encoding="utf-8")
        yield path
    scaling = [row for row in rows if row.suite == "scaling"]
    yield from map(Path, report.plots(scaling, PLOTS))


def fill(text: str, results: dict[str, Any]) -> str:
    """A text with its blocks made anew."""
    rows = [Row(**row) for row in results["rows"]]

    def made(block: re.Match[str]) -> str:
        name = block["name"]
        return f"<!-- benchmarks: {name} -->\n\n{BLOCKS[name](rows, results)}\n\n<!-- end -->"

    return re.sub(r"<!-- benchmarks: (?P<name>\w+) -->.*?<!-- end -->", made, text, flags=re.DOTALL)


def _environment(rows: Sequence[Row], results: dict[str, Any]) -> str:
    found = results["environment"]
    return (
        f"Measured on {found['date'][:10]} on an {found['cpu']} of {found['cores']} cores, one of "
        f"them used where nothing else is said, with Python {found['python']} and PyTorch "
        f"{found['torch']}."
    )


def _versions(rows: Sequence[Row], results: dict[str, Any]) -> str:
    found = results["environment"]
    names = ("numba", "torch-scatter", "torch-sparse", "torch-geometric")
    packages = ", ".join(f"{name} {found[name]}" for name in names)
    commits = re.sub(r"\b([0-9a-f]{7})[0-9a-f]{33}\b", r"\1", found["commit"])
    return f"{found['memory']} of memory, {packages}; commit {commits}."


def _summary(rows: Sequence[Row], results: dict[str, Any]) -> str:
    body = [["", "mmgraph, ms", "the peer's fastest forms, ms", "times as long", "cold"]]
    for floor in FLOORS:
        if floor.name in SUMMARY:
            body.append([SUMMARY[floor.name], *_compared(floor, rows)])
    return report.markdown(body)


def _compared(floor: Floor, rows: Sequence[Row]) -> list[str]:
    """Our times, the peer's and the ratios; the fastest formulation may differ by quantity."""
    ours, theirs, ratios, cold, variants = [], [], [], [], []
    for quantity in (FORWARD, BOTH) if BOTH in floor.bounds else floor.bounds:
        mine, other = floor.faster.best(rows, quantity), floor.slower.best(rows, quantity)
        if mine is None or other is None or not mine.median or not other.median:
            return ["not measured", "", "", ""]
        ours.append(report.number(1e3 * mine.median))
        theirs.append(report.number(1e3 * other.median))
        ratios.append(f"{other.median / mine.median:.3g}x")
        known = mine.cold and other.cold
        cold.append(f"{other.cold / mine.cold:.3g}x" if known else "-")
        variants.append(other.variant)
    which = ", ".join(filter(None, (floor.slower.peer, "; ".join(dict.fromkeys(variants)))))
    return [
        " / ".join(ours),
        f"{which}: {' / '.join(theirs)}",
        " / ".join(ratios),
        " / ".join(cold) if set(cold) != {"-"} else "",
    ]


def _floors(rows: Sequence[Row], results: dict[str, Any]) -> str:
    return report.floor_table(verdicts(rows))


def _tables(rows: Sequence[Row], results: dict[str, Any]) -> str:
    """The cases of the paper's workload; all others are in the results alone."""
    chosen = [row for row in rows if row.workload == "paper"]
    parts = []
    for suite, of_suite in groupby(
        sorted(chosen, key=lambda row: row.suite), lambda row: row.suite
    ):
        parts.append(f"### {suite.replace('_', ' ').capitalize()}")
        cases: dict[tuple[str, int], list[Row]] = {}
        for row in of_suite:
            cases.setdefault((row.case, row.threads), []).append(row)
        # A run that went on later has its cases in another order.
        for (case, threads), own in sorted(cases.items(), key=lambda item: item[0][1]):
            size = f", {own[0].edges:,} edges" if own[0].edges else ""
            parts.append(f"**{case}**{size}, {threads} thread{'s' * (threads != 1)}")
            parts.append(report.table(own))
    return "\n\n".join(parts)


def _curve(rows: Sequence[Row], results: dict[str, Any]) -> str:
    """Our own time per edge by the number of edges, at one thread and at two."""
    body = [["edges", "threads", "forward, ns per edge", "forward + backward, ns per edge"]]
    own: dict[tuple[int, int], dict[str, Row]] = {}
    for row in rows:
        if row.suite == "scaling" and row.formulation == "mmgraph, fused" and row.median:
            own.setdefault((row.edges, row.threads), {})[row.quantity] = row
    for (edges, threads), cells in sorted(own.items()):
        found = [cells.get(quantity) for quantity in (FORWARD, BOTH)]
        costs = [
            report.number(1e9 * row.median / edges) if row and row.median else "" for row in found
        ]
        body.append([f"{edges:,}", str(threads), *costs])
    return report.markdown(body)


BLOCKS: dict[str, Callable[[Sequence[Row], dict[str, Any]], str]] = {
    "environment": _environment,
    "versions": _versions,
    "summary": _summary,
    "floors": _floors,
    "curve": _curve,
    "tables": _tables,
}
