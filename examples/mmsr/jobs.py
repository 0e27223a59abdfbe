"""Trainings as jobs: done once, resumed where they stopped, shared among processes."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from examples.mmsr import gate
from examples.mmsr.configuration import decisive
from examples.mmsr.data import Dataset, available_modalities, fingerprint, read
from examples.mmsr.files import writing
from examples.mmsr.generate import GenerateConfig, generate
from examples.mmsr.metrics import rank_all, summarise
from examples.mmsr.missing import MissingConfig
from examples.mmsr.model import MMSR
from examples.mmsr.protocol import Split, split
from examples.mmsr.train import PHASES, TrainingConfig, fit, search, write_json
from examples.mmsr.zoo import Composition, Zoo


@dataclass(frozen=True)
class Source:
    """A data set to train on.

    Args:
        folder: a data folder, or None for a small generated data set.
        sequences: the file in it that holds the histories.
    """

    folder: str | None = None
    sequences: str = "sequences.npz"

    @property
    def name(self) -> str:
        """What results are filed under."""
        if self.folder is None:
            return "generated"
        other = Path(self.sequences).stem.removeprefix("sequences").strip("_")
        return self.folder_name + ("_" + other if other else "")

    @property
    def folder_name(self) -> str:
        """The folder's own name, also of one that is given as ``.``; empty for generated data."""
        return "" if self._path is None else self._path.name

    def same_folder(self, other: Source) -> bool:
        """Whether both are of one folder, whatever their sequences and however it is written."""
        return self._path == other._path

    @property
    def _path(self) -> Path | None:
        return None if self.folder is None else Path(os.path.abspath(self.folder))


@dataclass(frozen=True)
class Job:
    """A model, how it is trained, and on what.

    Args:
        source: the data set.
        composition: the model.
        training: how it is fitted, the seed included.
        trial: whether only validation is asked for.
        dropped: what to drop from the test histories beside ranking them as they are.
    """

    source: Source
    composition: Composition
    training: TrainingConfig
    trial: bool = False
    dropped: tuple[MissingConfig, ...] = field(default=(), compare=False)

    @functools.cached_property
    def key(self) -> str:
        """A name for everything that decides the figures."""
        training = replace(self.training.figures(), progress=False)  # as in the first keys
        decides = [self.source.name, decisive(self.composition), decisive(training)]
        digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:10]
        return f"{self.composition.kind}-{digest}-seed{self.training.seed}"


JobKind = tuple[str, str, bool]
"""A data set, a kind of model, and whether a job is a trial: what decides how long it takes."""


class Desk:
    """Where jobs are done and their records kept.

    Args:
        runs: for checkpoints and logs. A final training goes on in its trial's folder, and the
            folder is removed when the final record is written; those of other trials stay.
        results: for the records, ``<data>/<key>.json``, and the ranks beside them.
    """

    def __init__(self, runs: str | Path, results: str | Path) -> None:
        self.runs, self.results = Path(runs), Path(results)
        self._open = functools.lru_cache(maxsize=1)(self._opened)

    def accept(self, source: Source, data: Dataset, note: bool = True) -> None:
        """Hold a source to the data that its records were made from.

        Args:
            source: what they are filed under.
            data: its data.
            note: whether to take these from now on where none are noted yet.

        Raises:
            ValueError: the records are of other data, or there are some and nothing tells of which.
        """
        file = self._data(source)
        found = fingerprint(data)
        if not file.exists() and any(file.parent.glob("*-seed*.json")):
            raise ValueError(
                f"{file.parent} holds figures, but not {file.name}, which tells of what data; "
                f"name another folder for results"
            )
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else found
        other = [name for name in {**known, **found} if known.get(name) != found.get(name)]
        if other:
            raise ValueError(
                f"{file.parent} holds figures of other data than {source.folder or 'generated'}: "
                f"they differ in {', '.join(other)}; name another folder for results"
            )
        if note and not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, found)

    def _opened(self, source: Source) -> tuple[Zoo, Split]:
        data = open_source(source)
        self.accept(source, data)
        parts = split(data)
        parts.check()
        return Zoo(data), parts

    def record(self, job: Job) -> dict[str, Any] | None:
        """What came out of a job, or None where it is not done, or not all that is asked for."""
        # A whole run has its trial's figures, but where there are both, the trial decided: a later
        # run of the same, by newer code or elsewhere, may end otherwise.
        for trial in (True, False) if job.trial else (False,):
            path = self._path(job, trial)
            if path.exists():
                found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                if trial or set(job.dropped) <= set(dropped_cases(found)):
                    return found
        return None

    def ranks(self, job: Job) -> tuple[np.ndarray, np.ndarray]:
        """The ranks of the test targets, and whose they are."""
        return read_ranks(self._path(job, False).with_suffix(".npz"))

    def seconds(self) -> dict[JobKind, list[float]]:
        """How long the jobs of each kind trained."""
        found: dict[JobKind, list[float]] = {}
        for path in sorted(self.results.glob("*/*-seed*.json")):
            record = json.loads(path.read_text(encoding="utf-8"))
            kind = path.name.split("-")[0]
            trial = path.stem.endswith("-trial")
            found.setdefault((path.parent.name, kind, trial), []).append(record["seconds"])
        return found

    def do(self, job: Job) -> dict[str, Any] | None:
        """A job's record, after doing it where need be; None where another process has it.

        What goes wrong is noted beside the record, and raised.
        """
        known = self.record(job)
        if known is not None:
            return known
        with self._claimed(job) as mine:
            known = self.record(job)  # done by the process that had it until now
            if not mine or known is not None:
                return known
            path = self._path(job, job.trial)
            try:
                record, ranks = (self._trial(job), None) if job.trial else self._whole(job)
                if ranks is not None:  # last, so that they are those of the record beside them
                    write_ranks(path.with_suffix(".npz"), *ranks)
            except Exception:
                path.with_suffix(".failed").write_text(traceback.format_exc(), encoding="utf-8")
                raise
            write_json(path, {"settings": settings(job), **record})
            path.with_suffix(".failed").unlink(missing_ok=True)
            if not job.trial:
                shutil.rmtree(self._folder(job), ignore_errors=True)
            return self.record(job)

    def _trial(self, job: Job) -> dict[str, Any]:
        zoo, parts = self._open(job.source)
        if job.training.threads:
            torch.set_num_threads(job.training.threads)
        history = search(
            lambda counted: zoo.build(job.composition, counted),
            parts,
            job.training,
            self._folder(job) / "search",
        )
        best = max(history, key=lambda row: row["MRR"])
        return {"search": best, "seconds": trained_seconds(self._folder(job))}

    def _whole(self, job: Job) -> tuple[dict[str, Any], tuple[np.ndarray, np.ndarray]]:
        zoo, parts = self._open(job.source)
        for missing in job.dropped:
            zoo.check_missing(job.composition, missing)
        folder = self._folder(job)
        model, record = fit(
            lambda counted: zoo.build(job.composition, counted), parts, job.training, folder
        )
        record["seconds"] = trained_seconds(folder)
        if isinstance(model, MMSR) and gate.readable(model):
            record["gate"] = gate.read(model, parts.test)
        record["parameters"] = sum(p.numel() for p in model.parameters())
        record["dropped"] = []
        for missing in job.dropped:
            model.missing = missing
            found = summarise(rank_all(model.score, parts.test))
            record["dropped"].append({"missing": asdict(missing), "test": found})
        with np.load(folder / "test_ranks.npz") as arrays:
            return record, (arrays["ranks"], arrays["user"])

    def _data(self, source: Source) -> Path:
        return self.results / source.name / "data.json"

    def _path(self, job: Job, trial: bool) -> Path:
        return self.results / job.source.name / f"{job.key}{'-trial' if trial else ''}.json"

    def _folder(self, job: Job) -> Path:
        # A run must not go on over other data that go by the same name.
        return self.runs / f"{job.source.name}-{self._noted(job.source)}" / job.key

    def _noted(self, source: Source) -> str:
        """A digest of the data that a source's records are made from."""
        file = self._data(source)
        if not file.exists():
            self.accept(source, open_source(source))
        return hashlib.sha256(file.read_bytes()).hexdigest()[:10]

    @contextlib.contextmanager
    def _claimed(self, job: Job) -> Iterator[bool]:
        """Whether this process has the job; one that ends, however it does, has none."""
        file = self._folder(job).with_suffix(".lock")
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(file).acquire(blocking=False)
        except Timeout:
            yield False
            return
        with lock:
            yield True


def trained_seconds(folder: Path) -> float:
    """How long a run trained, without validation and tests, whichever process did it."""
    files = [folder / phase / "history.json" for phase in PHASES]
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]
    return float(sum(row["seconds"] for history in found for row in history))


def dropped_cases(record: dict[str, Any]) -> dict[MissingConfig, dict[str, float]]:
    """A record's metrics of the test by what was dropped from its histories."""
    cases = record.get("dropped", [])
    return {MissingConfig.from_plain(case["missing"]): case["test"] for case in cases}


def settings(job: Job) -> dict[str, Any]:
    """A job as plain values."""
    return {
        "data": job.source.name,
        "composition": asdict(job.composition),
        "training": asdict(job.training),
    }


def open_source(source: Source) -> Dataset:
    """The data of a source."""
    if source.folder is None:
        return generate(GenerateConfig(dial=1, users=200, items=200, codes=8, width=130)).data
    modalities = available_modalities(source.folder)  # a composition chooses among all
    return read(source.folder, sequences=source.sequences, modalities=modalities)


def write_ranks(path: Path, ranks: np.ndarray, user: np.ndarray) -> None:
    """Keep ranks, whole or half numbers, in little room; those far behind as equally far."""
    twice = np.minimum(np.round(2 * ranks), np.iinfo(np.uint16).max).astype(np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as file:
        np.savez_compressed(file, twice=twice, user=user.astype(np.int32))


def read_ranks(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The ranks of the test targets, and whose they are."""
    with np.load(path) as arrays:
        return arrays["twice"] / 2, arrays["user"]
