"""Tables and pictures from the records: figures, paired differences, what was not run."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from examples.mmsr.baselines import baselines
from examples.mmsr.bootstrap import compare
from examples.mmsr.data import Dataset
from examples.mmsr.experiments import Plan
from examples.mmsr.jobs import Desk, Job, dropped_cases, read_ranks, write_ranks
from examples.mmsr.metrics import rank_all, summarise
from examples.mmsr.missing import MissingConfig
from examples.mmsr.protocol import split
from examples.mmsr.tables import MISSING, Entry
from examples.mmsr.train import write_json

METRICS = ("HR@5", "MRR@5", "HR@20", "MRR@20")
NOT_RUN = "not run"


def counted(data: Dataset, folder: Path) -> dict[str, dict[str, float]]:
    """Popularity and the Markov chain on a data set; their figures and ranks are kept."""
    parts = split(data)
    found = {}
    for name, scorer in baselines(parts.train, data.num_items).items():
        ranks = rank_all(scorer, parts.test)
        write_ranks(folder / f"{name}.npz", ranks, parts.test.user)
        found[name] = summarise(ranks)
    write_json(folder / "counted.json", found)
    return found


def counts_of(plan: Plan, desk: Desk) -> dict[str, dict[str, float]]:
    """What :func:`counted` kept for a plan's data set; empty if nothing."""
    file = desk.results / plan.source.name / "counted.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def table(
    plan: Plan,
    desk: Desk,
    counts: dict[str, dict[str, float]],
    planned: Collection[str] | None = None,
) -> str:
    """A table in markdown: our figures as mean and deviation over the seeds, and the paper's.

    Validation's MRR is that of the whole ranking, at the epoch that it chose.

    Args:
        plan: the table, the data set and the seeds.
        desk: where the records are.
        counts: metrics of recommenders that only count, as :func:`counted` returns them.
        planned: labels of rows that wait to be run, where others without a figure do not.
    """
    data, entries = plan.source.name, plan.entries()
    of_paper = any(data in entry.paper for entry in entries)
    lines = [
        f"| | {' | '.join(METRICS)} | seeds | MRR, validation |" + " the paper's |" * of_paper,
        "|---|" + "---:|" * (len(METRICS) + 2) + "---|" * of_paper,
    ]
    without: dict[str, list[str]] = {}
    for entry in entries:
        cells, lack = _figures(entry, _records(plan, entry, desk), counts)
        if lack == NOT_RUN and planned is not None and entry.counts is None:
            lack = "not yet run" if entry.label in planned else "not planned"
        if not cells and data not in entry.paper:
            without.setdefault(lack, []).append(entry.label)
            continue
        cells = cells or [lack, *[""] * (len(METRICS) + 1)]
        if of_paper:
            cells.append(_printed(entry, data))
        lines.append(f"| {entry.label} | {' | '.join(cells)} |")
    for lack in filter(None, without):
        lines += ["", f"{lack.capitalize()}: {'; '.join(without[lack])}."]
    return "\n".join(lines)


def _figures(
    entry: Entry, records: Sequence[dict[str, Any]], counts: dict[str, dict[str, float]]
) -> tuple[list[str], str]:
    """A row's cells, or why there are none."""
    if entry.counts is not None and entry.counts in counts:
        return [*(f"{counts[entry.counts][metric]:.2f}" for metric in METRICS), "", ""], ""
    if not records:
        if entry.composition is None and entry.counts is None:
            return [], "" if entry.built else "not built"
        return [], NOT_RUN
    cells = [_cell([record["test"][metric] for record in records]) for metric in METRICS]
    validation = _cell([record["search"]["MRR"] for record in records])
    return [*cells, str(len(records)), validation], ""


def printed(plan: Plan) -> str:
    """The paper's own figures of a table, on the data sets that it has them for."""
    entries = [entry for entry in plan.entries() if entry.paper]
    sets = list(dict.fromkeys(name for entry in entries for name in entry.paper))
    count = max(len(figures) for entry in entries for figures in entry.paper.values())
    heads = [f"{name}, {' / '.join(METRICS[:count])}" for name in sets]
    lines = [f"| the paper's | {' | '.join(heads)} |", "|---|" + "---:|" * len(sets)]
    for entry in entries:
        lines.append(f"| {entry.label} | {' | '.join(_printed(entry, name) for name in sets)} |")
    return "\n".join(lines)


def _printed(entry: Entry, data: str) -> str:
    return " / ".join(f"{value:.2f}" for value in entry.paper.get(data, ()))


def finished(plan: Plan, entry: Entry, desk: Desk) -> Iterator[tuple[Job, dict[str, Any]]]:
    """A row's trainings that are done, with their records."""
    if entry.composition is None:
        return
    for job in plan.finals_of(entry, desk) or ():
        record = desk.record(job)
        if record is not None:
            yield job, record


def _records(plan: Plan, entry: Entry, desk: Desk) -> list[dict[str, Any]]:
    return [record for _, record in finished(plan, entry, desk)]


def comparison(plan: Plan, desk: Desk, ours: str) -> str:
    """Ours against every other row of a table: paired differences, resampled by user.

    Args:
        plan: the table, the data set and the seeds.
        desk: where the records and ranks are.
        ours: the label of a row that has some.
    """
    found = {entry.label: _ranks(plan, entry, desk) for entry in plan.entries()}
    lines = [
        f"| {ours} against | " + " | ".join(METRICS) + " | ahead |",
        "|---|" + "---:|" * len(METRICS) + "---|",
    ]
    mine, user = found.pop(ours)
    others = {label: ranks for label, (ranks, _) in found.items() if ranks}
    every = compare(mine, list(others.values()), user, METRICS)
    for label, differences in zip(others, every, strict=True):
        behind = sum(difference.high < 0 for difference in differences)
        ahead = sum(difference.ahead for difference in differences)
        verdict = f"{ahead} of {len(METRICS)}" + (f", behind in {behind}" if behind else "")
        lines.append(f"| {label} | {' | '.join(map(str, differences))} | {verdict} |")
    return "\n".join(lines)


def gates(plan: Plan, desk: Desk) -> str:
    """What the gates of a table's models do where they reach the loss; empty if none was read."""
    lines = [
        "| the gate | weight on homogeneous first | deviation over nodes | seeds |",
        "|---|---:|---:|---:|",
    ]
    for entry in plan.wanted():
        read = [record["gate"] for _, record in finished(plan, entry, desk) if "gate" in record]
        if read:
            mean = _cell([gate["mean"] for gate in read], 3)
            spread = _cell([gate["spread"] for gate in read], 3)
            lines.append(f"| {entry.label} | {mean} | {spread} | {len(read)} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def dropped(plan: Plan, desk: Desk) -> str:
    """HR@20 of trained models with modalities dropped at test alone; empty if none is known."""
    lines = [
        f"| | dropped from | {' | '.join(MISSING)} |",
        "|---|---:|" + "---:|" * len(MISSING),
    ]
    for entry in plan.wanted():
        records = _records(plan, entry, desk)
        if not records or not entry.dropped:
            continue
        whole = _cell([record["test"]["HR@20"] for record in records])
        lines.append(f"| {entry.label} | 0 %{f' | {whole}' * len(MISSING)} |")
        for share in sorted({case.share for case in entry.dropped}):
            cells = []
            for kind in MISSING.values():
                case = replace(kind, share=share)
                cells.append(_cell([dropped_cases(record)[case]["HR@20"] for record in records]))
            lines.append(f"| {entry.label}, at test | {share:.0%} | {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def draw(plan: Plan, desk: Desk) -> None:
    """Draw a table's trained rows as ``<results>/<data>/<table>.png``."""
    path = desk.results / plan.source.name / f"{plan.table}.png"
    (curve if plan.table == "missing" else bars)(plan, desk, path)


def curve(plan: Plan, desk: Desk, path: Path) -> None:
    """Draw HR@20 against the share of steps that lose a modality, a panel for each kind."""
    import matplotlib.pyplot as plt

    entries = plan.wanted()
    found = {entry.label: _records(plan, entry, desk) for entry in entries}
    whole = [entry for entry in entries if entry.dropped and found[entry.label]]
    figure, axes = plt.subplots(1, len(MISSING), figsize=(4 * len(MISSING), 4), sharey=True)
    for axis, (name, kind) in zip(axes, MISSING.items(), strict=True):
        for number, entry in enumerate(whole):
            records = found[entry.label]
            start = [(0.0, _mean(record["test"] for record in records))]
            at_test = [
                (case.share, _mean(dropped_cases(record)[case] for record in records))
                for case in entry.dropped
                if _kind(case) == kind
            ]
            trained = [
                (other.composition.missing.share, _mean(r["test"] for r in found[other.label]))
                for other in entries
                if other.composition is not None
                and (other.alike, _kind(other.composition.missing)) == (entry.label, kind)
                and found[other.label]
            ]
            for points, line, when in ((at_test, "--", "at test"), (trained, "-", "always")):
                x, y = zip(*start, *points, strict=True)
                label = f"{entry.label}, {when}"
                axis.plot(x, y, line, marker="o", color=f"C{number}", label=label)
        for entry in entries:
            if entry.composition and not entry.composition.modalities and found[entry.label]:
                alone = _mean(record["test"] for record in found[entry.label])
                axis.axhline(alone, color="0.5", label=entry.label)
        axis.set(title=name, xlabel="share of steps without it")
    axes[0].legend(fontsize="small", loc="lower left")
    axes[0].set_ylabel("HR@20, %")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def bars(plan: Plan, desk: Desk, path: Path) -> None:
    """Draw a table's HR@20 and MRR@5 as bars, the paper's figures as strokes."""
    import matplotlib.pyplot as plt

    data, counts = plan.source.name, counts_of(plan, desk)
    rows: list[tuple[Entry, list[dict[str, float]]]] = []
    for entry in plan.entries():
        tests = [record["test"] for record in _records(plan, entry, desk)]
        tests += [counts[name] for name in (entry.counts,) if name in counts]
        if tests and (not plan.rows or entry.label in plan.rows):
            rows.append((entry, tests))
    figure, axes = plt.subplots(1, 2, figsize=(11, 1 + 0.3 * len(rows)), sharey=True)
    for axis, metric in zip(axes, ("MRR@5", "HR@20"), strict=True):
        values = [[test[metric] for test in tests] for _, tests in rows]
        axis.barh(
            [entry.label for entry, _ in rows],
            [np.mean(each) for each in values],
            xerr=[_deviation(each) for each in values],
            color="0.6",
        )
        place = METRICS.index(metric)
        printed = [
            (entry.paper[data][place], entry.label)
            for entry, _ in rows
            if len(entry.paper.get(data, ())) > place
        ]
        if printed:
            axis.plot(*zip(*printed, strict=True), "C3|", ms=14, mew=2, label="the paper's")
            axis.legend(loc="upper right")
        axis.set_xlabel(f"{metric}, %")
    axes[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _kind(case: MissingConfig) -> MissingConfig:
    return replace(case, share=0.0)


def _mean(tests: Iterable[dict[str, float]]) -> float:
    return float(np.mean([test["HR@20"] for test in tests]))


def _ranks(plan: Plan, entry: Entry, desk: Desk) -> tuple[list[np.ndarray], np.ndarray]:
    ranks, user = [], np.empty(0)
    counts = desk.results / plan.source.name / f"{entry.counts}.npz"
    if entry.counts is not None and counts.exists():
        found, user = read_ranks(counts)
        ranks.append(found)
    for job, _ in finished(plan, entry, desk):
        found, user = desk.ranks(job)
        ranks.append(found)
    return ranks, user


def _cell(values: Sequence[float], digits: int = 2) -> str:
    if not values:
        return NOT_RUN
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {_deviation(values):.{digits}f}"


def _deviation(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
