"""The commands: ``python -m examples.mmsr COMMAND --help``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from jsonargparse import auto_cli
from lightning.pytorch.utilities import rank_zero_only

from examples.mmsr import checkpoint
from examples.mmsr.amazon import prepare
from examples.mmsr.amazon_download import download
from examples.mmsr.baselines import judge_baselines
from examples.mmsr.data import Dataset, available_modalities, fingerprint, read
from examples.mmsr.demo import demo
from examples.mmsr.describe import describe as described
from examples.mmsr.dial import dial
from examples.mmsr.experiments import Plan, schedule, work
from examples.mmsr.generate import GenerateConfig, generate
from examples.mmsr.items import ScoreConfig
from examples.mmsr.jobs import Desk, Source, open_source
from examples.mmsr.metrics import rank_all, summarise, table
from examples.mmsr.model import ModelConfig, NodesConfig
from examples.mmsr.programme import PAGE, STAGES, page, pictures
from examples.mmsr.protocol import split
from examples.mmsr.recommend import listing
from examples.mmsr.recommend import recommend as recommended
from examples.mmsr.results import counted, draw
from examples.mmsr.results import table as results_table
from examples.mmsr.train import TrainingConfig, claim, fit
from examples.mmsr.zoo import Composition, Zoo


def describe(
    data: str | None = None,
    sequences: str = "sequences.npz",
    modalities: list[str] | None = None,
    generated: GenerateConfig = GenerateConfig(),
) -> None:
    """Count users, items, interactions, what is missing, and the protocol's instances.

    Args:
        data: a data folder; without one, a generated data set.
        sequences: the file in it that holds the histories.
        modalities: which modalities; all that the folder has unless given.
        generated: what to generate where there is no folder.
    """
    if data is not None and modalities is None:
        modalities = available_modalities(data)
    found = _data(data, sequences, modalities, generated)
    print(described(found, split(found)))


def train(
    data: str | None = None,
    sequences: str = "sequences.npz",
    modalities: list[str] | None = None,
    generated: GenerateConfig = GenerateConfig(),
    nodes: NodesConfig = NodesConfig(),
    model: ModelConfig = ModelConfig(),
    score: ScoreConfig = ScoreConfig(),
    training: TrainingConfig = TrainingConfig(),
    out: str = "runs/mmsr",
    resume: bool = False,
) -> None:
    """Choose the number of steps on validation, refit on everything, and judge on the test steps.

    Args:
        data: a data folder; without one, a generated data set.
        sequences: the file in it that holds the histories.
        modalities: which modalities; all feature matrices of the folder unless given.
        generated: what to generate where there is no folder.
        nodes: how features become nodes.
        model: which blocks make the model.
        score: what enters a score beside the product of two vectors.
        training: how it is fitted.
        out: the run's folder: checkpoints, logs, the model, its figures.
        resume: go on with the run in that folder from its last finished epoch.
    """
    settings = {
        "data": data,
        "sequences": sequences,
        "modalities": modalities,
        "generated": asdict(generated) if data is None else None,
        "nodes": asdict(nodes),
        "model": asdict(model),
        "score": asdict(score),
        "training": asdict(training.figures()),
    }
    found = _data(data, sequences, modalities, generated)
    parts = split(found)
    if not rank_zero_only.rank:  # of several processes one tells
        print(described(found, parts), flush=True)
    parts.check()
    training.check_processes()
    settings["fingerprint"] = fingerprint(found)
    zoo = Zoo(found)
    # Whether attributes were wanted is decided already.
    composition = Composition(nodes=nodes, model=model, score=score, attributes=True)
    zoo.build(composition, parts.fit)  # what does not fit is said before there is a folder
    claim(out, settings, resume)  # last, so that a wrong input leaves no folder behind
    fitted, record = fit(
        lambda counted: zoo.build(composition, counted),
        parts,
        training,
        out,
        lambda fresh: checkpoint.contents(fresh, found),
    )
    saved = Path(out, "model.pt")
    checkpoint.save(saved, fitted, found)
    if rank_zero_only.rank:
        return
    rows = judge_baselines(parts.train, found.num_items, parts.test)
    rows["MMSR"] = record["test"]
    search = record["search"]
    print(
        f"\n{table(rows)}\n(percent of the test steps)\n\n"
        f"{search['steps']} steps, chosen by validation's MRR of {search['MRR']:.3f} "
        f"after epoch {search['epoch']}; {record['seconds_per_epoch']:.1f} s per epoch\n"
        f"model: {saved}"
    )


def evaluate(
    model: str,
    data: str | None = None,
    sequences: str = "sequences.npz",
    modalities: list[str] | None = None,
    generated: GenerateConfig = GenerateConfig(),
    batch_size: int = 512,
) -> None:
    """Rank the test steps of a data set by a trained model, beside the baselines.

    Of other histories than those that the model was trained on, it says so.

    Args:
        model: a checkpoint.
        data: a data folder; without one, a generated data set.
        sequences: the file in it that holds the histories.
        modalities: which modalities; all feature matrices of the folder unless given.
        generated: what to generate where there is no folder.
        batch_size: histories ranked at a time.
    """
    saved = checkpoint.read(model)
    trained, _ = checkpoint.restored(model, saved)
    found = _data(data, sequences, modalities, generated)
    if trained.num_items != found.num_items:
        raise checkpoint.CheckpointError(
            f"{model} knows {trained.num_items} items, but {found.name} has {found.num_items}"
        )
    parts = split(found)
    print(described(found, parts), flush=True)
    known = saved.get("fingerprint", {})  # none in one of an earlier version
    if known.get("sequences") != fingerprint(found)["sequences"]:
        print(
            f"\n{model} was not trained on these histories, or does not tell: "
            f"the steps that it was trained on may be among those that it is tested on"
        )
    rows = judge_baselines(parts.train, found.num_items, parts.test)
    rows["MMSR"] = summarise(rank_all(trained.score, parts.test, batch_size))
    print(f"\n{table(rows)}\n(percent of the test steps)")


def recommend(model: str, history: list[int], top: int = 10) -> None:
    """Print the items that a trained model would recommend after a history.

    Args:
        model: a checkpoint.
        history: item indices, oldest first, such as [3, 14, 15].
        top: how many items.
    """
    trained, names = checkpoint.load(model)
    for place, item in enumerate(history, start=1 - len(history)):
        if names is not None and 0 <= item < len(names):
            print(f"{place:3d}            {item}  {names[item]}")
    print(listing(recommended(trained, history, top), names))


def fill(
    name: str,
    data: str | None = None,
    sequences: str = "sequences.npz",
    trials_on: str | None = None,
    trials: int = 4,
    seeds: list[int] = [0, 1, 2],  # noqa: B006  # never changed
    rows: list[str] = [],  # noqa: B006
    training: TrainingConfig = TrainingConfig(progress=False),
    minutes: float | None = None,
    dry_run: bool = False,
    runs: str = "runs/jobs",
    results: str = "examples/mmsr/results",
) -> None:
    """Fill a table: do what is not done yet, print it, draw it.

    Several processes may do so at once. All rows with three seeds take minutes on a few thousand
    users, and days on tens of thousands: look at a dry run first.

    Args:
        name: recommenders; propagation, other graph layers; updates, how the two attentions are
            joined; parts, nodes, codes and readouts; additions, each alone; missing, with
            modalities dropped; or smallest, which takes a minute.
        data: a data folder, such as the command amazon makes; without one, a small generated data
            set.
        sequences: the file in it that holds the histories.
        trials_on: the data folder on which settings are tried; the same unless given.
        trials: settings tried for each row, on validation; 1 takes the first as it is. Where
            trials_on is another folder, the improved rows' are tried on data instead, and are those
            that RESULTS.md tells.
        seeds: of the final trainings.
        rows: labels of the rows wanted; all by default.
        training: how models are fitted, but for the learning rate, which the trials choose, and
            the seed.
        minutes: begin nothing new after so many.
        dry_run: print what is left to be done and how long it may take.
        runs: where unfinished jobs keep their checkpoints.
        results: where records are kept.
    """
    if training.devices > 1:
        raise ValueError(
            f"training.devices: expected 1, since processes share a table by jobs, "
            f"got {training.devices}"
        )
    source = Source(data, sequences)
    tried = source if trials_on is None else Source(trials_on)
    plan = Plan(name, source, tried, tuple(seeds), trials, tuple(rows), training)
    desk = Desk(runs, results)
    plan.entries()  # names what is unknown
    opened = {each: open_source(each) for each in (source, tried)}
    for each, found in opened.items():
        split(found).check()
        desk.accept(each, found, note=not dry_run)
    print(schedule([plan], desk))
    if dry_run:
        return
    failed = work([plan], desk, minutes)
    counts = counted(opened[source], Path(results, source.name))
    print(f"\n{results_table(plan, desk, counts)}")
    draw(plan, desk)
    print(f"\nrecords and picture: {Path(results, source.name)}")
    if failed:
        sys.exit("\n".join(["these jobs failed:", *failed]))


def programme(
    root: str,
    minutes: float | None = None,
    dry_run: bool = False,
    runs: str = "runs/jobs",
    results: str = "examples/mmsr/results",
) -> None:
    """Do all trainings behind RESULTS.md that are not done yet.

    Several processes may do so at once.

    Args:
        root: the folder of the data folders: scientific, toys, beauty, sports, scientific_missing.
        minutes: begin nothing new after so many.
        dry_run: print what is left to be done and how long it may take.
        runs: where unfinished jobs keep their checkpoints.
        results: where records are kept.
    """
    desk = Desk(runs, results)
    plans = [stage.plan(root) for stage in STAGES]
    missing = sorted({stage.data for stage in STAGES if not Path(root, stage.data).is_dir()})
    if missing:
        raise ValueError(f"root: expected a folder with {', '.join(missing)} in it, got {root}")
    for source in dict.fromkeys(plan.source for plan in plans):
        data = open_source(source)
        desk.accept(source, data, note=not dry_run)
        if not dry_run:
            counted(data, Path(results, source.name))
    print(schedule(plans, desk), flush=True)
    if dry_run:
        return
    failed = work(plans, desk, minutes)
    if failed:
        sys.exit("\n".join(["these jobs failed:", *failed]))


def report(results: str = "examples/mmsr/results", out: str = str(PAGE)) -> None:
    """Write RESULTS.md from the records, and draw its pictures beside them.

    Args:
        results: where they are kept.
        out: the file to be written; pictures stay beside the records, wherever it is.
    """
    desk = Desk("", results)
    Path(out).write_text(page(desk), encoding="utf-8")
    pictures(desk)
    print(out)


COMMANDS: dict[str, Callable[..., None]] = {
    "describe": describe,
    "train": train,
    "evaluate": evaluate,
    "recommend": recommend,
    "demo": demo,
    "dial": dial,
    "table": fill,
    "programme": programme,
    "results": report,
    "amazon": prepare,
    "amazon_download": download,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; what a user can mend ends in one line instead of a traceback."""
    try:
        auto_cli(
            COMMANDS,
            args=None if arguments is None else list(arguments),
            prog="python -m examples.mmsr",
        )
    except ValueError as error:
        sys.exit(f"error: {error}")


def _data(
    folder: str | None,
    sequences: str,
    modalities: list[str] | None,
    generated: GenerateConfig,
) -> Dataset:
    if folder is None:
        return generate(generated).data
    return read(folder, sequences=sequences, modalities=modalities)


if __name__ == "__main__":
    main()
