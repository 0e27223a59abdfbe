"""RESULTS.md from the records: every table, what holds of the paper's claims, what was not run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from examples.mmsr.baselines import judge_baselines
from examples.mmsr.bootstrap import compare
from examples.mmsr.data import Dataset
from examples.mmsr.experiments import Plan
from examples.mmsr.jobs import Desk
from examples.mmsr.protocol import split
from examples.mmsr.tables import Entry
from examples.mmsr.train import write_json

METRICS = ("HR@5", "MRR@5", "HR@20", "MRR@20")


def counted(data: Dataset, path: Path) -> dict[str, dict[str, float]]:
    """Popularity and the Markov chain on a data set, kept in a file."""
    parts = split(data)
    found = judge_baselines(parts.train, data.num_items, parts.test)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, found)
    return found


def table(plan: Plan, desk: Desk, counts: dict[str, dict[str, float]]) -> str:
    """A table in markdown: our figures as mean and deviation over the seeds, and the paper's.

    Validation's MRR is that of the whole ranking, at the epoch that it chose.
    """
    data = plan.source.name
    lines = [
        "| | " + " | ".join(METRICS) + " | seeds | MRR, validation | the paper's |",
        "|---|" + "---:|" * len(METRICS) + "---:|---:|---|",
    ]
    for entry in plan.entries():
        printed = " / ".join(f"{value:.2f}" for value in entry.paper.get(data, ()))
        records = list(finished(plan, entry, desk))
        validation = ""
        if entry.counts is not None and entry.counts in counts:
            cells = [f"{counts[entry.counts][metric]:.2f}" for metric in METRICS]
            seeds = ""
        elif entry.composition is None:
            cells, seeds = ["not built", *[""] * (len(METRICS) - 1)], ""
        elif not records:
            cells, seeds = ["not run", *[""] * (len(METRICS) - 1)], "0"
        else:
            cells = [_cell([record["test"][metric] for record in records]) for metric in METRICS]
            seeds = str(len(records))
            validation = _cell([record["search"]["MRR"] for record in records])
        cells += [seeds, validation, printed]
        lines.append(f"| {entry.label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def finished(plan: Plan, entry: Entry, desk: Desk) -> Iterator[dict[str, Any]]:
    """The records of a row's trainings that are done."""
    if entry.composition is None:
        return
    for job in plan.finals_of(entry, desk) or ():
        record = desk.record(job)
        if record is not None and "test" in record:
            yield record


def comparison(plan: Plan, desk: Desk, ours: str) -> str:
    """Ours against every other row of a table: paired differences, resampled by user."""
    entries = {entry.label: entry for entry in plan.entries() if entry.composition is not None}
    found = {label: _ranks(plan, entry, desk) for label, entry in entries.items()}
    lines = [
        f"| {ours} against | " + " | ".join(METRICS) + " | ahead |",
        "|---|" + "---:|" * len(METRICS) + "---|",
    ]
    mine, user = found[ours]
    for label, (theirs, _) in found.items():
        if label == ours or not theirs or not mine:
            continue
        differences = compare(mine, theirs, user, METRICS)
        behind = sum(difference.high < 0 for difference in differences)
        ahead = sum(difference.ahead for difference in differences)
        verdict = f"{ahead} of {len(METRICS)}" + (f", behind in {behind}" if behind else "")
        lines.append(f"| {label} | {' | '.join(map(str, differences))} | {verdict} |")
    return "\n".join(lines)


def gates(plan: Plan, desk: Desk) -> str:
    """What the gates of a table's models do where they reach the loss."""
    lines = ["| | weight on homogeneous first | deviation over nodes |", "|---|---:|---:|"]
    for entry in plan.wanted():
        read = [record["gate"] for record in finished(plan, entry, desk) if "gate" in record]
        if read:
            mean = _cell([gate["mean"] for gate in read], 3)
            spread = _cell([gate["spread"] for gate in read], 3)
            lines.append(f"| {entry.label} | {mean} | {spread} |")
    return "\n".join(lines)


def dropped(plan: Plan, desk: Desk) -> str:
    """HR@20 with modalities dropped, at test alone and in training too."""
    lines = [
        "| | dropped from | image | text | both |",
        "|---|---:|---:|---:|---:|",
    ]
    for entry in plan.wanted():
        records = list(finished(plan, entry, desk))
        if not records or not entry.dropped:
            continue
        whole = _cell([record["test"]["HR@20"] for record in records])
        lines.append(f"| {entry.label} | 0 % | {whole} | {whole} | {whole} |")
        shares = sorted({case.share for case in entry.dropped})
        kinds = list(dict.fromkeys(case.modalities for case in entry.dropped))
        for share in shares:
            cells = []
            for kind in kinds:
                values = [
                    case["test"]["HR@20"]
                    for record in records
                    for case in record["dropped"]
                    if case["missing"]["share"] == share
                    and tuple(case["missing"]["modalities"]) == kind
                ]
                cells.append(_cell(values))
            lines.append(f"| {entry.label}, at test | {share:.0%} | {' | '.join(cells)} |")
    return "\n".join(lines)


def curve(plan: Plan, desk: Desk, path: Path) -> None:
    """Draw HR@20 against the share of steps that lose a modality, a panel for each modality."""
    import matplotlib.pyplot as plt

    entries = plan.wanted()
    found = {entry.label: list(finished(plan, entry, desk)) for entry in entries}
    whole = [entry for entry in entries if entry.dropped and found[entry.label]]
    kinds = list(dict.fromkeys(case.modalities for entry in whole for case in entry.dropped))
    figure, axes = plt.subplots(1, max(len(kinds), 1), figsize=(13, 4), sharey=True, squeeze=False)
    for axis, kind in zip(axes[0], kinds, strict=False):
        for number, entry in enumerate(whole):
            records = found[entry.label]
            start = [(0.0, _mean(record["test"] for record in records))]
            at_test = [
                (case.share, _mean(record["dropped"][place]["test"] for record in records))
                for place, case in enumerate(entry.dropped)
                if case.modalities == kind
            ]
            trained = [
                (other.composition.missing.share, _mean(r["test"] for r in found[other.label]))
                for other in entries
                if other.composition is not None
                and (other.alike, other.composition.missing.modalities) == (entry.label, kind)
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
        axis.set(title=" and ".join(kind), xlabel="share of steps without it", ylim=(0, None))
        axis.legend(fontsize="small", loc="lower left")
    axes[0][0].set_ylabel("HR@20, %")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def plot(plan: Plan, desk: Desk, path: Path) -> None:
    """Draw a table's HR@20 and MRR@5 as bars."""
    import matplotlib.pyplot as plt

    rows = []
    for entry in plan.wanted():
        records = list(finished(plan, entry, desk))
        if records:
            rows.append((entry.label, records))
    figure, axes = plt.subplots(1, 2, figsize=(11, 1 + 0.3 * len(rows)), sharey=True)
    for axis, metric in zip(axes, ("MRR@5", "HR@20"), strict=True):
        values = [[record["test"][metric] for record in records] for _, records in rows]
        axis.barh(
            [label for label, _ in rows],
            [np.mean(each) for each in values],
            xerr=[np.std(each) for each in values],
            color="0.6",
        )
        axis.set_xlabel(f"{metric}, %")
    axes[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _mean(tests: Iterable[dict[str, float]]) -> float:
    return float(np.mean([test["HR@20"] for test in tests]))


def _ranks(plan: Plan, entry: Entry, desk: Desk) -> tuple[list[np.ndarray], np.ndarray]:
    ranks, user = [], np.empty(0)
    for job in plan.finals_of(entry, desk) or ():
        record = desk.record(job)
        if record is not None and "test" in record:
            found, user = desk.ranks(job)
            ranks.append(found)
    return ranks, user


def _cell(values: Sequence[float], digits: int = 2) -> str:
    if not values:
        return "not run"
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"
