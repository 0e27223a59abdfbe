"""Training in more than one process, and in one that is killed."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch

from examples.mmsr.__main__ import main
from examples.mmsr.data import write
from examples.mmsr.generate import GenerateConfig, generate
from examples.mmsr.items import ScoreConfig
from examples.mmsr.loss import cross_entropy
from examples.mmsr.missing import MissingConfig
from examples.mmsr.model import MMSR, ModelConfig, NodesConfig
from examples.mmsr.protocol import Parts, split
from examples.mmsr.recommender import Recommender
from examples.mmsr.sequential import SequentialConfig
from examples.mmsr.train import RunError, TrainingConfig, claim, fit
from examples.mmsr.zoo import Composition, Kind, Zoo

ROOT = Path(__file__).parents[2]
LIMIT = 150
"""Seconds after which a process that a test started ends by itself."""

DATA = generate(GenerateConfig(dial=1, users=60, items=36, codes=4, width=16, noise=0)).data
PARTS = split(DATA)
PLAIN = ModelConfig(channels=8, dropout=0.0, attention_dropout=0.0)
MADE = Composition(
    nodes=NodesConfig(num_codes=4),
    model=PLAIN,
    sequential=SequentialConfig(channels=8, dropout=0.0),
    score=ScoreConfig(components=8),
)
EVIDENCE = ScoreConfig(components=8, lags=(1, -1), similar=2)
BLIND = MissingConfig(modalities=("image",), share=1.0)
SINGLE = TrainingConfig(
    epochs=2, patience=5, batch_size=64, learning_rate=0.01, seed=3, progress=False, threads=1
)
# Batches of the search and of validation end with one of a single row: one process has none.
ODD = next(size for size in range(40, 999) if len(PARTS.fit.prefixes()) % size == 1)
DOUBLE = replace(
    SINGLE, precision="64-true", batch_size=ODD, evaluation_batch_size=len(PARTS.validation) - 1
)
CASES = {
    "mmsr": (MADE, SINGLE),
    "evidence in the score": (replace(MADE, score=EVIDENCE), SINGLE),
    "one order, a modality absent": (
        replace(MADE, model=replace(PLAIN, order="homogeneous-first"), missing=BLIND),
        SINGLE,
    ),
    # In double precision: the bias of its keys has a gradient of zero, which Adam would divide by.
    "sasrec": (replace(MADE, kind="sasrec"), replace(SINGLE, precision="64-true")),
    "empty parts": (replace(MADE, model=replace(PLAIN, update="hgat")), DOUBLE),
    "accumulated": (MADE, replace(DOUBLE, accumulate=2)),
}


def trained(case: str, devices: int, out: Path) -> Recommender:
    composition, config = CASES[case]
    zoo = Zoo(DATA)

    def make(counted: Parts) -> Recommender:
        model = zoo.build(composition, counted)
        return model.double() if config.precision == "64-true" else model

    model, _ = fit(make, PARTS, replace(config, devices=devices), out / case)
    return model


def pair(out: Path) -> None:
    """What each of two processes does."""
    for case in CASES:
        model = trained(case, 2, out)
        torch.save(model.state_dict(), out / f"{case} {os.environ['RANK']}.pt")


def held(out: Path, data: str, at: str) -> None:
    """Train by the command, but stop for good in the step of that number."""
    encode, steps = MMSR.encode, 0

    def counting(self: MMSR, inputs: object) -> torch.Tensor:
        nonlocal steps
        steps += self.training
        if steps == int(at):
            (out / "held").touch()
            time.sleep(LIMIT)
        return encode(self, inputs)

    MMSR.encode = counting
    main(command(data, out))


def command(data: str | Path, out: Path) -> list[str]:
    tiny = ["--nodes.num_codes=4", "--model.channels=8", "--training.batch_size=64"]
    tiny += ["--training.epochs=3", "--training.learning_rate=0.01", "--training.threads=1"]
    run = ["train", f"--data={data}", f"--out={out / 'run'}", "--resume=true"]
    return [*run, *tiny, "--training.progress=false"]


@contextlib.contextmanager
def started(*arguments: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process, which is gone afterwards, whatever happens."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()  # torchrun ends what it started, which has its own sessions
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two processes that have trained everything."""
    out = tmp_path_factory.mktemp("two")
    log = out / "log.txt"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    with started(*torchrun, __file__, "pair", str(out), log=log) as process:
        code = process.wait(LIMIT)
    assert code == 0, log.read_text()[-5000:]
    assert "sync_dist" not in log.read_text()  # Lightning's advice, which does not apply
    return out


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one(two, tmp_path, case):
    exact = CASES[case][1].precision == "64-true"
    expected = trained(case, 1, tmp_path).state_dict()
    weights = [torch.load(two / f"{case} {rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, value in expected.items():
        assert torch.equal(weights[0][name], weights[1][name]), name
        # Adam divides by gradients, small ones with their rounding.
        tolerance = {"rtol": 1e-7, "atol": 1e-9} if exact else {"rtol": 1e-3, "atol": 1e-4}
        torch.testing.assert_close(weights[0][name], value, **tolerance)

    history, found = (
        json.loads((folder / case / "search" / "history.json").read_text())
        for folder in (tmp_path, two)
    )
    assert len(history) == len(found) == 2
    for row, other in zip(history, found, strict=True):
        assert other["loss"] == pytest.approx(row["loss"], abs=1e-6 if exact else 1e-5)
        assert other["MRR"] == pytest.approx(row["MRR"], abs=1e-9)
        assert other["steps"] == row["steps"]
    with (
        np.load(tmp_path / case / "test_ranks.npz") as one,
        np.load(two / case / "test_ranks.npz") as both,
    ):
        np.testing.assert_array_equal(both["ranks"], one["ranks"])


def compositions() -> Iterator[Composition]:
    choices = get_type_hints(ModelConfig)
    for update in get_args(choices["update"]):
        yield replace(MADE, model=replace(PLAIN, update=update, layers=2, norm=True))
    for order in get_args(choices["order"]):
        yield replace(MADE, model=replace(PLAIN, order=order, invasive=order == "both"))
    for readout in get_args(choices["readout"]):
        yield replace(MADE, model=replace(PLAIN, readout=readout))
    for kind in get_args(Kind):
        yield replace(MADE, kind=kind, score=EVIDENCE if kind == "evidence" else MADE.score)
    yield replace(MADE, score=EVIDENCE)
    yield replace(MADE, nodes=NodesConfig(kind="features"))
    yield replace(MADE, score=ScoreConfig(features=True, components=8, lags=(1, -1)))
    yield replace(MADE, modalities=False)


@pytest.mark.parametrize("absent", [(), ("image",), ("image", "text")], ids=str)
def test_every_parameter_has_a_gradient(absent):
    # Else DDP would have to look for those without one in every step.
    zoo = Zoo(DATA)
    instances = PARTS.fit.prefixes()[:20]
    for composition in compositions():
        missing = MissingConfig(modalities=absent, share=1.0)
        model = zoo.build(replace(composition, missing=missing), PARTS.fit)
        cross_entropy(model, model.batch(instances, training=True)).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, (composition, name)


def test_one_process_claims_a_folder(tmp_path, monkeypatch):
    claim(tmp_path, {}, resume=False)
    monkeypatch.setattr("examples.mmsr.train.rank_zero_only.rank", 1)
    claim(tmp_path, {}, resume=False)
    claim(tmp_path / "none", {}, resume=False)
    assert not (tmp_path / "none").exists()
    monkeypatch.setattr("examples.mmsr.train.rank_zero_only.rank", 0)
    with pytest.raises(RunError, match="holds a run already"):
        claim(tmp_path, {}, resume=False)


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_weights(tmp_path):
    write(DATA, tmp_path / "data")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    main(command(tmp_path / "data", whole))

    killed.mkdir()
    log = killed / "log.txt"
    per_epoch = -(-len(PARTS.fit.prefixes()) // SINGLE.batch_size)
    script = (__file__, "held", str(killed), str(tmp_path / "data"))
    with started(*script, str(per_epoch + 3), log=log) as process:
        end = time.monotonic() + LIMIT
        while not (killed / "held").exists():
            assert process.poll() is None, log.read_text()[-5000:]
            assert time.monotonic() < end
            time.sleep(0.05)
        process.kill()
        assert process.wait(10) == -signal.SIGKILL
    last = killed / "run" / "search" / "last.ckpt"
    assert torch.load(last, weights_only=True)["epoch"] == 0  # the first of two begun
    assert not (killed / "run" / "search" / "history.json").exists()

    with started(*script, "0", log=log) as process:
        assert process.wait(LIMIT) == 0, log.read_text()[-5000:]
    history = json.loads((killed / "run" / "search" / "history.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2, 3]
    expected, found = (
        torch.load(folder / "run" / "model.pt", weights_only=True)["state_dict"]
        for folder in (whole, killed)
    )
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


if __name__ == "__main__":
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    {"pair": pair, "held": held}[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
