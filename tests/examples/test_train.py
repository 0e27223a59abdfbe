from __future__ import annotations

import itertools
import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.mmsr import checkpoint, train
from examples.mmsr.data import Dataset
from examples.mmsr.files import replacing, writing
from examples.mmsr.generate import GenerateConfig, generate
from examples.mmsr.metrics import rank_all, summarise
from examples.mmsr.model import MMSR, ModelConfig, NodesConfig, make_nodes
from examples.mmsr.protocol import Parts, Split, split
from examples.mmsr.train import Batches, RunError, TrainingConfig, claim, fit, refit, search

CONFIG = TrainingConfig(
    epochs=3, patience=5, batch_size=64, learning_rate=0.01, seed=3, progress=False
)


class Setting:
    """A small data set, its split, and a maker of models for it."""

    def __init__(self) -> None:
        self.data: Dataset = generate(
            GenerateConfig(dial=1, users=60, items=36, codes=4, width=16, noise=0)
        ).data
        self.split: Split = split(self.data)
        self.nodes = make_nodes(self.data, NodesConfig(num_codes=4), 8)

        self.plain = ModelConfig(channels=8)

    def make(self, counted: Parts) -> MMSR:
        return MMSR(self.data.num_items, self.nodes, self.plain)

    def extra(self, model: MMSR) -> dict:
        return checkpoint.contents(model, self.data)


@pytest.fixture(scope="module")
def setting() -> Setting:
    return Setting()


def test_steps_are_chosen_on_validation_and_everything_is_fitted_again(setting, tmp_path):
    seen = []
    real = train._run

    def spy(make, parts, validation, *rest):
        seen.append((len(parts.prefixes()), None if validation is None else len(validation)))
        return real(make, parts, validation, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_run", spy)
        model, record = fit(setting.make, setting.split, CONFIG, tmp_path, setting.extra)
    parts = setting.split
    assert seen == [
        (len(parts.fit.prefixes()), len(parts.validation)),
        (len(parts.train.prefixes()), None),
    ]

    history = json.loads((tmp_path / "search" / "history.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2, 3]
    per_epoch = -(-len(parts.fit.prefixes()) // CONFIG.batch_size)
    assert [row["steps"] for row in history] == [per_epoch, 2 * per_epoch, 3 * per_epoch]
    assert history[-1]["loss"] < history[0]["loss"]
    assert record["search"]["MRR"] == max(row["MRR"] for row in history)
    refitted = torch.load(tmp_path / "refit" / "last.ckpt", weights_only=True)
    assert refitted["global_step"] == record["search"]["steps"]

    ranks = rank_all(model.score, parts.test)
    assert record["test"] == summarise(ranks)
    with np.load(tmp_path / "test_ranks.npz") as saved:
        np.testing.assert_array_equal(saved["ranks"], ranks)
        np.testing.assert_array_equal(saved["user"], parts.test.user)

    logs = tmp_path / "search" / "logs" / "version_0"
    lines = (logs / "metrics.csv").read_text().splitlines()
    assert len(lines) == 4
    assert {"MRR", "loss", "seconds", "steps"} <= set(lines[0].split(","))
    assert list(logs.glob("events.out.tfevents.*"))


def test_each_phase_counts_in_the_parts_that_it_is_fitted_on(setting, tmp_path):
    given = []

    def make(counted: Parts) -> MMSR:
        given.append(counted)
        return setting.make(counted)

    fit(make, setting.split, replace(CONFIG, epochs=1), tmp_path)
    for counted, parts in zip(given, (setting.split.fit, setting.split.train), strict=True):
        assert counted is parts


def test_training_alone_leaves_own_transitions_out(setting, tmp_path, monkeypatch):
    targets, batch = {True: set(), False: set()}, MMSR.batch

    def spy(self, instances, training=False):
        targets[training].update(instances.target.tolist())
        return batch(self, instances, training)

    monkeypatch.setattr(MMSR, "batch", spy)
    search(setting.make, setting.split, replace(CONFIG, epochs=1), tmp_path / "search")
    parts = setting.split
    assert targets[True] == set(parts.fit.prefixes().target.tolist())
    assert targets[False] == set(parts.validation.target.tolist())
    assert targets[True].isdisjoint(targets[False])
    refit(setting.make, parts, CONFIG, tmp_path / "refit", 10)
    assert targets[True] == set(parts.train.prefixes().target.tolist())


def test_validation_ranks_the_whole_catalogue_in_evaluation_mode(setting, tmp_path):
    one = replace(CONFIG, epochs=1)
    (row,) = search(setting.make, setting.split, one, tmp_path, setting.extra)
    model, _ = checkpoint.load(tmp_path / "last.ckpt")
    found = rank_all(model.score, setting.split.validation)
    assert found.max() > 20  # further down than any cut of the other metrics
    expected = {"MRR": 100 * (1 / found).mean(), **summarise(found)}
    assert {name: row[name] for name in expected} == pytest.approx(expected)


class Stopped(Exception):
    """Stands for a process that is killed."""


@pytest.mark.parametrize(("budget", "workers"), [(9, 0), (13, 0), (9, 1)])
def test_a_run_stopped_anywhere_goes_on_to_the_same_weights(
    setting, tmp_path, monkeypatch, budget, workers
):
    whole, record = fit(setting.make, setting.split, CONFIG, tmp_path / "whole", setting.extra)
    arguments = setting.make, setting.split, replace(CONFIG, workers=workers)
    rows = {
        phase: torch.load(tmp_path / "whole" / phase / "last.ckpt", weights_only=True)["history"]
        for phase in ("search", "refit")
    }

    encode, calls = MMSR.encode, 0

    def stops(self, inputs):
        nonlocal calls
        calls += 1
        if calls > budget:  # an epoch has 7 calls or 8, so every attempt finishes at least one
            raise Stopped
        return encode(self, inputs)

    monkeypatch.setattr(MMSR, "encode", stops)
    attempts = 0
    while True:
        attempts, calls = attempts + 1, 0
        try:
            resumed, again = fit(*arguments, tmp_path / "stopped", setting.extra)
            break
        except Stopped:
            assert attempts < 10
    assert attempts > 3

    def without_times(row):
        return {name: value for name, value in row.items() if name != "seconds"}

    assert again["test"] == record["test"]
    done, _ = fit(*arguments, tmp_path / "stopped", setting.extra)  # trains no further
    for phase, expected in rows.items():
        found = torch.load(tmp_path / "stopped" / phase / "last.ckpt", weights_only=True)
        assert list(map(without_times, found["history"])) == list(map(without_times, expected))
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
        assert torch.equal(done.state_dict()[name], value), name


def test_early_stopping(setting, tmp_path):
    # Without a learning rate nothing gets better after the first epoch.
    config = replace(CONFIG, learning_rate=0.0, epochs=10, patience=2, min_steps=0)
    history = search(setting.make, setting.split, config, tmp_path / "soon")
    assert len(history) == 3
    late = replace(config, min_steps=4 * int(history[0]["steps"]) + 1)
    assert len(search(setting.make, setting.split, late, tmp_path / "late")) == 5


def test_a_search_that_had_ended_when_it_was_stopped_trains_no_further(setting, tmp_path):
    config = replace(CONFIG, learning_rate=0.0, epochs=10, patience=2, min_steps=0)
    history = search(setting.make, setting.split, config, tmp_path)
    (tmp_path / "history.json").unlink()
    assert search(setting.make, setting.split, config, tmp_path) == history


def test_processes_that_share_a_batch_drop_differently(setting, monkeypatch):
    fitting = train.Fitting(setting.make(setting.split.fit), CONFIG, {})
    drawn = []
    for rank in (0, 1, 0):
        monkeypatch.setattr(train.Fitting, "global_rank", rank)
        fitting.on_train_epoch_start()
        drawn.append(torch.rand(8))
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.isclose(drawn[0], drawn[1]).any()


@pytest.mark.parametrize("stopped", [False, True], ids=["at once", "resumed"])
def test_a_plateau_before_the_least_steps_ends_nothing(setting, tmp_path, monkeypatch, stopped):
    found = iter([9.0, 9.0, 9.0, 9.0, 9.0, 5.0, 4.0, 3.0, 3.0, 3.0, 3.0, 2.0])
    broken = stopped

    def scripted(_: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal broken
        if broken and epochs == 4:
            broken = False
            raise Stopped
        return torch.full(targets.shape, next(found), dtype=torch.float64)

    epochs = 0
    real = train.Fitting.on_train_epoch_start

    def note(self: train.Fitting) -> None:
        nonlocal epochs
        epochs = self.current_epoch
        real(self)

    monkeypatch.setattr(train, "ranks", scripted)
    monkeypatch.setattr(train.Fitting, "on_train_epoch_start", note)
    per_epoch = -(-len(setting.split.fit.prefixes()) // CONFIG.batch_size)
    config = replace(CONFIG, epochs=20, patience=2, min_steps=5 * per_epoch + 1)
    arguments = setting.make, setting.split, config, tmp_path
    if stopped:
        with pytest.raises(Stopped):
            search(*arguments)
    history = search(*arguments)
    assert [row["MRR"] for row in history][-3:] == [pytest.approx(100 / 3)] * 3
    assert len(history) == 10  # two epochs after the best


@pytest.fixture(params=["fork", "spawn"])
def started(request: pytest.FixtureRequest) -> Iterator[None]:
    """Workers that are started in this way."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(request.param, force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.usefixtures("started")
def test_workers_change_nothing(setting, tmp_path):
    config = replace(CONFIG, epochs=2)
    found = []
    for workers in (0, 1):
        out = tmp_path / f"{workers}"
        history = search(setting.make, setting.split, replace(config, workers=workers), out)
        figures = [{k: v for k, v in row.items() if k != "seconds"} for row in history]
        found.append((figures, torch.load(out / "last.ckpt", weights_only=True)["state_dict"]))
    (expected, plain), (figures, weights) = found
    assert figures == expected
    for name, value in plain.items():
        assert torch.equal(weights[name], value), name


@pytest.mark.parametrize(
    "changes", [{}, {"clip": 1e-3}, {"weight_decay": 0.3}, {"label_smoothing": 0.2}]
)
def test_steps_are_those_of_a_plain_loop(setting, tmp_path, changes):
    config = replace(CONFIG, **changes)

    def make(_: Parts) -> MMSR:
        still = replace(setting.plain, dropout=0.0, attention_dropout=0.0)
        return MMSR(setting.data.num_items, setting.nodes, still).double()

    found = refit(make, setting.split, replace(config, precision="64-true"), tmp_path, 3)

    torch.manual_seed(config.seed)
    model = make(setting.split.train)
    optimizer = torch.optim.Adam(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    instances = setting.split.train.prefixes()
    for part in itertools.islice(Batches(len(instances), config.batch_size, config.seed), 3):
        batch = model.batch(instances[part.rows], training=True)
        scores = model(batch)
        loss = torch.nn.functional.cross_entropy(
            scores, batch.targets, label_smoothing=config.label_smoothing
        )
        optimizer.zero_grad()
        loss.backward()
        if config.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs: expected at least 1, got 0"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"accumulate": 0}, "accumulate: expected at least 1, got 0"),
        ({"weight_decay": -1.0}, r"weight_decay: expected at least 0, got -1\.0"),
        ({"label_smoothing": 2.0}, r"label_smoothing: expected a number between 0 and 1, got 2\.0"),
    ],
)
def test_settings_that_mean_nothing(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)


def test_torchrun_has_started_as_many_as_are_asked_for(setting, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="devices: expected 2, the processes that torchrun"):
        fit(setting.make, setting.split, CONFIG, tmp_path)
    assert not list(tmp_path.iterdir())


def rows(batches: Batches) -> list[list[int]]:
    return [part.rows.tolist() for part in batches]


def test_batches_are_drawn_from_seed_and_epoch():
    batches = Batches(10, 4, seed=1)
    first = rows(batches)
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert [part.whole for part in batches] == [4, 4, 2]
    assert len(batches) == 3
    assert sorted(itertools.chain(*first)) == list(range(10))
    assert rows(batches) == first
    batches.set_epoch(1)
    assert rows(batches) != first
    assert rows(Batches(5, 2, seed=None)) == [[0, 1], [2, 3], [4]]


def test_batches_are_dealt_out_whole():
    whole = rows(Batches(11, 4, seed=1))
    dealt = [Batches(11, 4, seed=1, parts=4, mine=mine) for mine in ((0, 2), (1, 3))]
    assert [len(batches) for batches in dealt] == [6, 6]
    for number, batch in enumerate(whole):
        parts = [part for batches in dealt for part in list(batches)[2 * number :][:2]]
        assert sorted(itertools.chain(*(part.rows.tolist() for part in parts))) == sorted(batch)
        assert {part.whole for part in parts} == {len(batch)}


@pytest.mark.parametrize("changes", [{"accumulate": 2}, {"accumulate": 5}])
def test_parts_of_a_batch_add_up_to_it(setting, tmp_path, changes):
    # 64 rows by five, and 13 rows that an epoch ends with: the parts are not equally long.
    plain = replace(setting.plain, dropout=0.0, attention_dropout=0.0)

    def make(counted: Parts) -> MMSR:
        return MMSR(setting.data.num_items, setting.nodes, plain).double()

    config = replace(CONFIG, precision="64-true")
    expected = refit(make, setting.split, config, tmp_path / "whole", 9)
    found = refit(make, setting.split, replace(config, **changes), tmp_path / "parts", 9)
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_half_precision_trains(setting, tmp_path, clip):
    config = replace(CONFIG, precision="bf16-mixed", clip=clip)
    history = search(setting.make, setting.split, config, tmp_path)
    assert history[-1]["loss"] < history[0]["loss"]
    model = setting.make(setting.split.fit)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    model.load_state_dict({name.removeprefix("model."): value for name, value in saved.items()})
    ranks = rank_all(model.eval().score, setting.split.validation)
    assert history[-1]["MRR"] == pytest.approx(100 * float((1 / ranks).mean()), rel=1e-9)


def test_a_run_keeps_its_folder(tmp_path: Path):
    settings = {"data": None, "model": {"layers": 1, "kinds": (1, 2)}}
    claim(tmp_path / "run", settings, resume=False)
    with pytest.raises(RunError, match="holds a run already; --resume true goes on with it"):
        claim(tmp_path / "run", settings, resume=False)
    claim(tmp_path / "run", settings, resume=True)
    other = {"data": None, "model": {"layers": 2, "kinds": (1, 2)}}
    with pytest.raises(RunError, match=r"holds a run with model\.layers = 1, not 2"):
        claim(tmp_path / "run", other, resume=True)


def test_a_checkpoint_that_is_half_written_leaves_the_one_before(setting, tmp_path, monkeypatch):
    arguments = setting.make, setting.split, CONFIG
    whole = search(*arguments, tmp_path / "whole")
    save, out, saves = torch.save, tmp_path / "stopped", 0

    def half(contents, file) -> None:
        nonlocal saves
        saves += 1
        if saves < 3:
            return save(contents, file)
        assert Path(file.name).parent == out  # else it would be copied over the one before
        file.write(b"half")
        raise Stopped

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(Stopped):
        search(*arguments, out)
    monkeypatch.setattr(torch, "save", save)
    assert sorted(path.name for path in out.iterdir()) == ["last.ckpt", "logs"]
    kept = torch.load(out / "last.ckpt", weights_only=True)
    assert [row["epoch"] for row in kept["history"]] == [1, 2]
    history = search(*arguments, out)
    assert [row["loss"] for row in history] == [row["loss"] for row in whole]
    assert [row["seconds"] for row in history[:2]] == [row["seconds"] for row in kept["history"]]


def test_what_is_written_takes_its_place_whole(tmp_path):
    def stopped(path: Path, folder: bool) -> None:
        with replacing(path) as partial:
            if folder:
                partial.mkdir()
                partial /= "file"
            partial.write_text("half")
            raise Stopped

    file = tmp_path / "file"
    file.write_text("before")
    with pytest.raises(Stopped):
        stopped(file, folder=False)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert file.read_text() == "before"
    with replacing(file) as partial:
        partial.write_text("after")
    assert file.read_text() == "after"
    partial.mkdir()  # left by a process of the same number that was killed
    (partial / "file").write_text("half")
    with writing(file) as opened:
        opened.write(b"later")
    assert file.read_text() == "later"
    with pytest.raises(Stopped):
        stopped(tmp_path / "folder", folder=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_options_of_storage_are_none(tmp_path):
    with pytest.raises(TypeError, match=r"storage_options: expected None, got \{\}"):
        train.WholeCheckpoints().save_checkpoint({}, tmp_path / "last.ckpt", {})
    assert not list(tmp_path.iterdir())
