"""Filling a table: the jobs that are still to be done, and doing them."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from tqdm import tqdm

from examples.mmsr.jobs import Desk, Job, JobKind, Source
from examples.mmsr.tables import TABLES, TRIALS, TRIALS_HERE, TRIED_ANEW, Entry, Setting
from examples.mmsr.train import TrainingConfig


@dataclass(frozen=True)
class Plan:
    """What a table takes.

    Args:
        table: its name.
        source: the data set.
        tried: the data set that the trials are made on, but for rows that have their own.
        seeds: of the final trainings.
        trials: settings tried for each row, but for rows that have their own.
        rows: labels of the rows wanted; all by default.
        training: how models are fitted, but for the learning rate, which the trials choose, and
            the seed.
    """

    table: str
    source: Source
    tried: Source
    seeds: tuple[int, ...] = (0, 1, 2)
    trials: int = 4
    rows: tuple[str, ...] = ()
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(progress=False))

    def __post_init__(self) -> None:
        if not 1 <= self.trials <= len(TRIALS):
            raise ValueError(f"trials: expected 1 to {len(TRIALS)}, got {self.trials}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: expected some, each once, got {list(self.seeds)}")
        for name, decided in (("learning_rate", "the trials choose it"), ("seed", "seeds has it")):
            given = getattr(self.training, name)
            if given != getattr(TrainingConfig(), name):
                raise ValueError(
                    f"training.{name}: expected its default, since {decided}, got {given}"
                )

    def entries(self) -> list[Entry]:
        """All rows of the table.

        Raises:
            ValueError: the table or a row is unknown.
        """
        if self.table not in TABLES:
            raise ValueError(f"table: expected one of {', '.join(TABLES)}, got {self.table!r}")
        entries = TABLES[self.table]()
        labels = [entry.label for entry in entries]
        for row in self.rows:
            if row not in labels:
                raise ValueError(f"rows: expected some of {labels}, got {row!r}")
        return entries

    def wanted(self) -> list[Entry]:
        """The rows to be trained."""
        chosen = [entry for entry in self.entries() if entry.composition is not None]
        return [entry for entry in chosen if not self.rows or entry.label in self.rows]

    def deciding(self, entry: Entry) -> Entry:
        """The row whose trials decide the settings of another."""
        name = entry.alike or entry.label
        return next((row for row in self.entries() if row.label == name), entry)

    def trying(self, entry: Entry) -> tuple[Source, tuple[Setting, ...]]:
        """The data set on which a row's settings are tried, and which they are."""
        more = TRIED_ANEW.get(self.deciding(entry).label)
        if more is None or self.trials == 1 or self.tried.same_folder(self.source):
            return self.tried, TRIALS[: self.trials]
        return Source(self.source.folder), TRIALS_HERE + more.get(self.source.folder_name, ())

    def trials_of(self, entry: Entry) -> list[Job]:
        """The trials that decide a row's settings; a lone setting is taken as it is."""
        tried, settings = self.trying(entry)
        if len(settings) == 1:
            return []
        return [self._job(self.deciding(entry), tried, each, 0, trial=True) for each in settings]

    def finals_of(self, entry: Entry, desk: Desk) -> list[Job] | None:
        """A row's trainings, one for each seed; None before its trials are done."""
        _, settings = self.trying(entry)
        chosen = settings[0]
        if trials := self.trials_of(entry):
            found = [record for job in trials if (record := desk.record(job)) is not None]
            if len(found) < len(trials):
                return None
            scores = [record["search"]["MRR"] for record in found]
            chosen = settings[scores.index(max(scores))]
        return [self._job(entry, self.source, chosen, seed) for seed in self.seeds]

    def _job(
        self, entry: Entry, source: Source, setting: Setting, seed: int, trial: bool = False
    ) -> Job:
        of = entry.composition
        assert of is not None
        composition = replace(
            of,
            model=replace(of.model, dropout=setting.dropout),
            sequential=replace(of.sequential, dropout=setting.dropout),
        )
        training = replace(self.training, learning_rate=setting.learning_rate, seed=seed)
        return Job(source, composition, training, trial, () if trial else entry.dropped)


def outstanding(plan: Plan, desk: Desk) -> Iterator[Job]:
    """Jobs that can be begun now, in the order of the table."""
    for entry in plan.wanted():
        jobs = [job for job in plan.trials_of(entry) if desk.record(job) is None]
        if not jobs:
            jobs = [job for job in plan.finals_of(entry, desk) or () if desk.record(job) is None]
        yield from jobs


@dataclass(frozen=True)
class Task:
    """A job of a plan, also one of which the trials must yet decide the settings.

    Args:
        name: the same for the same job.
        kind: the data set, the kind of model, and whether it is a trial.
        done: whether there is a record.
    """

    name: str
    kind: JobKind
    done: bool


def tasks(plan: Plan, desk: Desk) -> list[Task]:
    """All jobs of a plan, each once."""
    found: dict[str, Task] = {}

    def note(name: str, source: Source, kind: str, trial: bool, done: bool) -> None:
        found.setdefault(name, Task(name, (source.name, kind, trial), done))

    for entry in plan.wanted():
        assert entry.composition is not None
        kind = entry.composition.kind
        for job in plan.trials_of(entry):
            name = f"{job.source.name} {job.key} trial"
            note(name, job.source, job.composition.kind, True, desk.record(job) is not None)
        finals = plan.finals_of(entry, desk)
        if finals is None:
            for seed in plan.seeds:
                note(f"{plan.source.name} {entry.label} {seed}", plan.source, kind, False, False)
        for job in finals or ():
            name = f"{job.source.name} {job.key}{' and dropped' if job.dropped else ''}"
            note(name, job.source, kind, False, desk.record(job) is not None)
    return list(found.values())


def work(plans: Sequence[Plan], desk: Desk, minutes: float | None = None) -> list[str]:
    """Do what is to be done, beside other processes that do the same.

    Args:
        plans: tables to fill, in order.
        desk: where.
        minutes: begin nothing new after so many.

    Returns:
        What went wrong, a line for each job that failed.
    """
    until = float("inf") if minutes is None else time.monotonic() + 60 * minutes
    failed: dict[str, str] = {}
    bar = tqdm(total=sum(len(tasks(plan, desk)) for plan in plans), unit="job")
    try:
        while time.monotonic() < until:
            done = sum(task.done for plan in plans for task in tasks(plan, desk))
            bar.update(done - bar.n)
            jobs = itertools.chain.from_iterable(outstanding(plan, desk) for plan in plans)
            free = [job for job in jobs if job.key not in failed]
            if not free:
                break
            if not any(_attempt(job, desk, failed) for job in free):
                time.sleep(5)  # other processes have all that can be begun
    finally:
        bar.close()
    return [f"{key}: {message}" for key, message in failed.items()]


def _attempt(job: Job, desk: Desk, failed: dict[str, str]) -> bool:
    """Whether there was anything to do for this process."""
    try:
        return desk.do(job) is not None
    except Exception as error:
        failed[job.key] = f"{type(error).__name__}: {error}"
        return True


def schedule(plans: Sequence[Plan], desk: Desk) -> str:
    """What is left to be done and how long that may take, by what was measured before.

    A job trains as long as the median of its kind did: the same data, kind of model, trial or not.
    Validation and tests come on top.
    One that several tables share takes its time in the first.
    """
    measured = desk.seconds()
    seen: set[str] = set()
    lines = [
        "| table | data | rows | seeds | jobs | done | hours left |",
        "|---|---|---|---|---:|---:|---:|",
    ]
    every: list[Task] = []
    for plan in plans:
        own = tasks(plan, desk)
        new = [task for task in own if task.name not in seen]
        seen |= {task.name for task in new}
        every += new
        done = sum(task.done for task in own)
        hours = _hours(new, measured)
        rows, seeds = "; ".join(plan.rows) or "all", ", ".join(map(str, plan.seeds))
        cells = (plan.table, plan.source.name, rows, seeds, len(own), done, hours)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    if len(plans) > 1:
        done = sum(task.done for task in every)
        lines.append(f"| all | | | | {len(every)} | {done} | {_hours(every, measured)} |")
    return "\n".join(lines)


def _hours(tasks: Sequence[Task], measured: dict[JobKind, list[float]]) -> str:
    left = [task for task in tasks if not task.done]
    known = [statistics.median(measured[task.kind]) for task in left if task.kind in measured]
    hours, unknown = f"{sum(known) / 3600:.1f}", len(left) - len(known)
    jobs = f"{unknown} job{'s' * (unknown > 1)} of unknown length"
    return f"{hours} and {jobs}" if unknown else hours
