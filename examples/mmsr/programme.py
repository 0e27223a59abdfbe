"""All trainings behind RESULTS.md, in their order, and the page that is made of their records."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from examples.mmsr.experiments import Plan
from examples.mmsr.jobs import Desk, Source
from examples.mmsr.results import (
    comparison,
    counts_of,
    draw,
    dropped,
    finished,
    gates,
    printed,
    table,
)

SEEDS = (0, 1, 2)
FIRST = SEEDS[:1]
HEADLINE = ("MMSR, improved", "SASRec, early fusion, improved")
OTHERS = ("MMSR", "SASRec, early fusion", "SR-GNN")
WITHOUT_ATTRIBUTES = tuple(f"{row}, without attributes" for row in HEADLINE)
ABLATED = ("MMSR, improved, without similarity", "successors and similarity alone")
COMPARED = ("recommenders", "updates", "propagation")
"""Tables of which a claim is made."""
PAGE = Path(__file__).with_name("RESULTS.md")
PREFACE = Path(__file__).with_name("RESULTS.preface.md")
REMARKS = Path(__file__).with_name("RESULTS.remarks.md")
TITLES = {
    "recommenders": "Recommenders",
    "updates": "How the two attentions are joined",
    "propagation": "Other graph layers",
    "parts": "Nodes, codes, readouts",
    "additions": "Each addition alone",
    "missing": "Missing modalities",
}


@dataclass(frozen=True)
class Stage:
    """A table on a data set, for some rows and seeds; all rows by default."""

    data: str
    table: str
    rows: tuple[str, ...] = ()
    seeds: tuple[int, ...] = SEEDS
    sequences: str = "sequences.npz"

    def plan(self, root: str | Path = "") -> Plan:
        """As a plan, for data folders under a root; settings are tried on ``scientific``."""
        source = Source(str(Path(root, self.data)), self.sequences)
        tried = Source(str(Path(root, "scientific")))
        return Plan(self.table, source, tried, self.seeds, rows=self.rows)


STAGES = (
    Stage("scientific", "recommenders"),
    Stage("scientific", "updates"),
    Stage("toys", "recommenders", HEADLINE),
    Stage("toys", "recommenders", (*OTHERS, *ABLATED), FIRST),
    Stage("toys", "recommenders", (*HEADLINE, *OTHERS), FIRST, "sequences_other_order.npz"),
    Stage("scientific", "propagation", seeds=FIRST),
    Stage("scientific", "additions", seeds=FIRST),
    Stage("scientific", "missing", seeds=FIRST),
    Stage("scientific", "parts", seeds=FIRST),
    Stage("beauty", "recommenders", (*HEADLINE, *ABLATED), FIRST),
    Stage("sports", "recommenders", (*HEADLINE, *ABLATED), FIRST),
    Stage("scientific_missing", "recommenders", (*HEADLINE, *OTHERS), FIRST),
    Stage("toys", "updates", seeds=FIRST),
    Stage("toys", "propagation", seeds=FIRST),
    Stage("toys", "additions", (*HEADLINE, *WITHOUT_ATTRIBUTES), FIRST),
    Stage("beauty", "recommenders", OTHERS, FIRST),
    Stage("sports", "recommenders", OTHERS, FIRST),
    Stage("scientific", "propagation"),
    Stage("scientific", "additions"),
    Stage("scientific", "missing"),
    Stage("scientific", "parts"),
)
"""What can be shown early comes early: everything with one seed, then the other seeds."""


def page(desk: Desk) -> str:
    """RESULTS.md: the preface, which says what holds, and every table with what was not run.

    Raises:
        ValueError: there are remarks on a table that is not there.
    """
    parts = [PREFACE.read_text(encoding="utf-8").strip()]
    remarks = _remarks()
    for name, stages in groupby(_shown(), key=lambda stage: stage.plan().source.name):
        parts.append(f"## {name}")
        for stage in stages:
            title = TITLES[stage.table]
            parts.append(f"### {title}")
            if (name, title) in remarks:
                parts.append(remarks.pop((name, title)))
            parts += _section(stage, desk)
    if remarks:
        raise ValueError(f"{REMARKS.name}: expected tables of the page, got {list(remarks)}")
    return "\n\n".join(parts) + "\n"


def _remarks() -> dict[tuple[str, str], str]:
    """What is said of single tables, by data set and title: a file with the page's headings."""
    found, data = {}, ""
    text = REMARKS.read_text(encoding="utf-8")
    before, *blocks = re.split(r"^(?=##)", text, flags=re.MULTILINE)
    if before.strip():
        raise ValueError(f"{REMARKS.name}: expected a heading first, got {before.strip()[:40]!r}")
    for block in blocks:
        heading, _, text = block.partition("\n")
        level, _, name = heading.partition(" ")
        data = name if level == "##" else data
        if (data, name) in found:
            raise ValueError(
                f"{REMARKS.name}: expected {heading!r} once under {data}, got it again"
            )
        if text.strip():
            found[data, name] = text.strip()
    return found


def pictures(desk: Desk) -> None:
    """Draw every table of the page that has a trained row, beside its records."""
    for stage in _shown():
        plan = stage.plan()
        if _trained(plan, desk):
            draw(plan, desk)


def _shown() -> list[Stage]:
    """The page's tables, whole, by data set."""
    shown = list(dict.fromkeys(map(_whole, STAGES)))
    names = list(dict.fromkeys(stage.plan().source.name for stage in shown))
    return sorted(shown, key=lambda stage: names.index(stage.plan().source.name))


def _whole(stage: Stage) -> Stage:
    """A stage's table with all rows and seeds."""
    return replace(stage, rows=(), seeds=SEEDS)


def _first(table: str) -> Stage:
    """Where a table stands first on the page."""
    return next(stage for stage in _shown() if stage.table == table)


def _section(stage: Stage, desk: Desk) -> Iterator[str]:
    plan = stage.plan()
    options = "" if plan.source.name == stage.data else f" --sequences {stage.sequences}"
    options += "" if stage.data == "scientific" else " --trials_on ROOT/scientific"
    yield f"`python -m examples.mmsr table {stage.table} --data ROOT/{stage.data}{options}`"
    parts = [other.plan() for other in STAGES if _whole(other) == stage]
    planned = {entry.label for part in parts for entry in part.wanted()}
    yield table(plan, desk, counts_of(plan, desk), planned)
    if stage.table == "missing" and (at_test := dropped(plan, desk)):
        yield at_test
    trained = _trained(plan, desk)
    if trained:
        yield f"![{TITLES[stage.table]}](results/{plan.source.name}/{stage.table}.png)"
    in_paper = {name for entry in plan.entries() for name in entry.paper}
    on_page = {other.data for other in STAGES if other.table == stage.table}
    if stage == _first(stage.table) and in_paper - on_page:
        yield printed(plan)
    for ours in ("MMSR, improved", "MMSR"):
        if stage.table in COMPARED and ours in trained and len(trained) > 1:
            yield comparison(plan, desk, ours)
    if stage.table in ("recommenders", "updates") and (read := gates(plan, desk)):
        yield read


def _trained(plan: Plan, desk: Desk) -> list[str]:
    """Labels of the rows that have a record."""
    return [entry.label for entry in plan.wanted() if any(finished(plan, entry, desk))]
