"""Results as Markdown tables that read well in a terminal, and as plots."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.floors import Verdict
from benchmarks.row import BOTH, CALL, FORWARD, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # an extra, drawn with only when asked for


def save(results: dict[str, Any], path: Path) -> None:
    """Write a run's results as JSON, a row a line."""
    rows = ",\n".join(json.dumps(row) for row in results["rows"])
    text = f'{{"environment": {json.dumps(results["environment"])},\n"rows": [\n{rows}\n]}}\n'
    path.write_text(text, encoding="utf-8")


def text(environment: dict[str, str], rows: Sequence[Row]) -> str:
    """Every result: a section per suite, a table per case and number of threads."""
    parts = ["\n".join(f"- {name}: {value}" for name, value in environment.items())]
    for suite, of_suite in groupby(rows, lambda row: row.suite):
        parts.append(f"## {suite}")
        for (workload, case, threads), of_case in groupby(
            of_suite, lambda row: (row.workload, row.case, row.threads)
        ):
            own = list(of_case)
            size = f", {own[0].edges:,} edges" if own[0].edges else ""
            parts.append(f"### {case}, {workload}{size}, {_plural(threads, 'thread')}")
            parts.append(table(own))
    return "\n\n".join(parts)


def table(rows: Sequence[Row]) -> str:
    """One case: a line per formulation, its quantities side by side, ratios to the first one."""
    quantities = list(dict.fromkeys(row.quantity for row in rows))
    lines: dict[str, dict[str, Row]] = {}
    for row in rows:
        lines.setdefault(row.formulation, {})[row.quantity] = row
    if len(quantities) > len(lines):
        return _by_quantity(quantities, lines)
    first = {
        quantity: next((r.median for r in rows if r.quantity == quantity and r.median), None)
        for quantity in quantities
    }
    head = ["formulation"]
    timed = all(row.unit == "s" for row in rows)
    for quantity in quantities:
        unit = _unit(next(row for row in rows if row.quantity == quantity))
        head += [f"{quantity}{unit}", "ratio"]
        head += ["cold"] if timed and quantity in (FORWARD, BOTH, CALL) else []
    head += ["first call, s", "error", "note"]
    body = [head]
    for name, cells in lines.items():
        line = [name]
        for quantity in quantities:
            row = cells.get(quantity)
            line += [_quartiles(row), _ratio(row, first[quantity])]
            if timed and quantity in (FORWARD, BOTH, CALL):
                line.append(number(row.cold * 1e3) if row and row.cold else "")
        own = list(cells.values())
        line.append(" / ".join(number(row.first_call) for row in own if row.first_call))
        errors = [row.error for row in own if row.error is not None]
        line.append(f"{max(errors):.0e}" if errors else "")
        line.append(_notes(own))
        body.append(line)
    return markdown(_without_empty_columns(body))


def _by_quantity(quantities: list[str], lines: dict[str, dict[str, Row]]) -> str:
    """The same with a line per quantity, where these are many."""
    body = [["", *lines]]
    for quantity in quantities:
        cells = [line.get(quantity) for line in lines.values()]
        unit = next((_unit(row) for row in cells if row), "")
        body.append([quantity + unit, *map(_quartiles, cells)])
    notes = {name: _notes(cells.values()) for name, cells in lines.items()}
    body.append(["note", *notes.values()])
    return markdown([line for line in body if any(line[1:])])


def _notes(rows: Iterable[Row]) -> str:
    return "; ".join(dict.fromkeys(row.detail for row in rows if row.detail))


def floor_table(verdicts: Iterable[Verdict]) -> str:
    """What must hold, and whether it does."""
    body = [["floor", "of", "bound", "aim", "measured", "holds", "note"]]
    for v in verdicts:
        bound = "" if v.bound is None else f"{'at most' if v.at_most else 'at least'} {v.bound:g}x"
        aim = "" if v.aim is None else f"{v.aim:g}x"
        measured = "" if v.ratio is None else f"{v.ratio:.2f}x"
        holds = "reported" if v.bound is None else "yes" if v.holds else "NO"
        body.append([v.name, v.quantity, bound, aim, measured, holds, v.detail])
    return markdown(body)


def line(row: Row) -> str:
    """A row as it comes, for whoever waits."""
    value = f"{_quartiles(row)}{_unit(row)}" if row.status == "ok" else row.detail
    where = f"{row.suite}, {row.workload}, {row.case}, {_plural(row.threads, 'thread')}"
    return f"{where}: {row.formulation}: {row.quantity}: {row.status} {value}"


def plots(rows: Sequence[Row], folder: Path) -> Iterator[str]:
    """Draw bars of every case and the curves of the scaling suite; yields what was written."""
    try:
        import matplotlib
    except ImportError:
        yield "matplotlib is absent: no plots"
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    timed = [row for row in rows if row.median and row.quantity in (FORWARD, BOTH)]
    curves = [row for row in timed if row.suite == "scaling"]
    bars = [row for row in timed if row.suite in ("kernels", "propagation")]
    for (suite, workload, case, threads), group in groupby(
        bars, lambda row: (row.suite, row.workload, row.case, row.threads)
    ):
        own = list(group)
        names = list(dict.fromkeys(row.formulation for row in own))
        figure, axes = plt.subplots(figsize=(8, 1 + 0.4 * len(names)), layout="constrained")
        for shift, quantity in ((-0.2, FORWARD), (0.2, BOTH)):
            chosen = [row for row in own if row.quantity == quantity]
            places = [names.index(row.formulation) + shift for row in chosen]
            axes.barh(places, [1e3 * (row.median or 0) for row in chosen], 0.4, label=quantity)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set(
            xscale="log", xlabel="milliseconds", title=f"{case}, {workload}, {threads} thread(s)"
        )
        axes.legend()
        yield _save(figure, folder, f"{suite}-{workload}-{case}-{threads}")
    for quantity in (FORWARD, BOTH) if curves else ():
        figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
        chosen = [row for row in curves if row.quantity == quantity]
        for name, threads in dict.fromkeys((row.formulation, row.threads) for row in chosen):
            own = [row for row in chosen if (row.formulation, row.threads) == (name, threads)]
            own.sort(key=lambda row: row.edges)
            nanoseconds = [1e9 * (row.median or 0) / row.edges for row in own]
            label = f"{name}, {_plural(threads, 'thread')}"
            axes.plot([row.edges for row in own], nanoseconds, marker="o", label=label)
        axes.set(xscale="log", yscale="log", xlabel="edges", ylabel="nanoseconds per edge")
        axes.set_title(f"heterogeneous pass, {quantity}")
        axes.legend(fontsize="small")
        yield _save(figure, folder, f"scaling-{quantity}")


def _save(figure: Figure, folder: Path, name: str) -> str:
    path = folder / ("".join(c if c.isalnum() else "-" for c in name) + ".svg")
    figure.savefig(path)
    from matplotlib import pyplot as plt

    plt.close(figure)
    return str(path)


def _unit(row: Row) -> str:
    return {"s": ", ms", "B": ", MB", "": ""}[row.unit]


def _quartiles(row: Row | None) -> str:
    if row is None:
        return ""
    if row.median is None:
        return row.status
    scale = {"s": 1e3, "B": 1e-6, "": 1.0}[row.unit]
    median = number(scale * row.median)
    if row.repeats < 2:
        return median
    return f"{median} [{number(scale * (row.q1 or 0))}, {number(scale * (row.q3 or 0))}]"


def _ratio(row: Row | None, first: float | None) -> str:
    if row is None or row.median is None or not first:
        return ""
    return f"{row.median / first:.2f}x"


def number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _without_empty_columns(body: list[list[str]]) -> list[list[str]]:
    keep = [c for c in range(len(body[0])) if any(line[c] for line in body[1:])]
    return [[line[c] for c in keep] for line in body]


def markdown(body: list[list[str]]) -> str:
    widths = [max(len(line[c]) for line in body) for c in range(len(body[0]))]
    rows = [
        "| " + " | ".join(f"{cell:{w}}" for cell, w in zip(line, widths, strict=True)) + " |"
        for line in body
    ]
    rows.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(rows)
