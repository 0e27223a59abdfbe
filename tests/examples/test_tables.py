"""Tables: filled by jobs that are done once, compared by resampled users, shown as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from examples.mmsr import jobs, programme
from examples.mmsr.__main__ import main
from examples.mmsr.bootstrap import compare
from examples.mmsr.data import write
from examples.mmsr.experiments import Plan, outstanding, schedule, tasks, work
from examples.mmsr.generate import GenerateConfig, generate
from examples.mmsr.jobs import Desk, Job, Source
from examples.mmsr.metrics import summarise
from examples.mmsr.missing import MissingConfig
from examples.mmsr.model import MMSR, ModelConfig, NodesConfig
from examples.mmsr.programme import PAGE, page
from examples.mmsr.protocol import split
from examples.mmsr.results import bars, comparison, curve, dropped, table
from examples.mmsr.tables import DROPOUTS, TABLES, TRIALS, TRIALS_HERE, Setting
from examples.mmsr.train import TrainingConfig
from examples.mmsr.zoo import Composition, Zoo

QUICK = TrainingConfig(epochs=2, batch_size=512, progress=False)
GENERATED = Source()


def plan(name: str, **changes: object) -> Plan:
    settings = {"seeds": (0,), "trials": 1, "training": QUICK, **changes}
    return Plan(name, GENERATED, GENERATED, **settings)  # type: ignore[arg-type]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list]:
    """Figures that would have been closed, to be looked at."""
    close, kept = plt.close, []
    monkeypatch.setattr(plt, "close", kept.append)
    yield kept
    for figure in kept:
        close(figure)


def setting_of(job: Job) -> Setting:
    return Setting(job.training.learning_rate, job.composition.model.dropout)


def test_the_smallest_table(tmp_path, capsys, monkeypatch):
    folders = [f"--{name}={tmp_path / name}" for name in ("runs", "results")]
    quick = [f"--training.{name}={value}" for name, value in asdict(QUICK).items()]
    command = ["table", "smallest", "--trials=2", "--seeds=[0, 1]", *quick, *folders]
    main(command)
    printed = capsys.readouterr().out
    lines = printed[printed.index("| | HR@5") :].splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:4]] == ["Markov", "MMSR"]
    assert " ± " in lines[3]
    kept = tmp_path / "results" / "generated"
    assert (kept / "smallest.png").stat().st_size > 0
    assert len(list(kept.glob("*-trial.json"))) == 2
    assert len(list(kept.glob("mmsr-*.npz"))) == 2
    left = [path.name for path in (tmp_path / "runs").glob("*/*") if path.is_dir()]
    assert len(left) == 1  # the search of the trial that was not taken
    assert left[0].endswith("seed0")

    def never(*_: object) -> None:
        raise AssertionError("a job is done twice")

    monkeypatch.setattr(jobs, "fit", never)
    monkeypatch.setattr(jobs, "search", never)
    main(command)
    assert lines[3] in capsys.readouterr().out


def test_trials_decide_what_is_trained(tmp_path):
    desk = Desk(tmp_path / "runs", tmp_path / "results")
    asked = plan("smallest", trials=3, seeds=(0, 1))
    (entry,) = asked.wanted()
    tried = asked.trials_of(entry)
    assert [setting_of(job) for job in tried] == list(TRIALS[:3])
    assert list(outstanding(asked, desk)) == tried  # nothing is trained before they are done
    assert asked.finals_of(entry, desk) is None
    for job, score in zip(tried, (1.0, 3.0, 2.0), strict=True):
        record = desk.results / "generated" / f"{job.key}-trial.json"
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps({"search": {"MRR": score}, "seconds": 1}))
    finals = list(outstanding(asked, desk))
    assert [job.training.seed for job in finals] == [0, 1]
    assert [setting_of(job) for job in finals] == [TRIALS[1]] * 2
    assert len(tasks(asked, desk)) == 5
    whole = desk.results / "generated" / f"{finals[0].key}.json"  # ended otherwise than its trial
    whole.write_text(json.dumps({"search": {"MRR": 1.5}, "test": {}, "seconds": 1}))
    assert list(outstanding(asked, desk)) == finals[1:]


def test_headline_rows_are_tried_on_the_data_set_itself(tmp_path):
    there, other = (
        Source(str(tmp_path / "toys"), "sequences_other.npz"),
        Source(str(tmp_path / "a")),
    )
    asked = Plan("recommenders", there, other, rows=("MMSR", "MMSR, improved"))
    plain, improved = asked.wanted()
    assert asked.trying(plain) == (other, TRIALS)
    toys = (*TRIALS_HERE, *DROPOUTS["toys"])
    assert asked.trying(improved) == (Source(str(tmp_path / "toys")), toys)
    tried = asked.trials_of(improved)
    assert [setting_of(job) for job in tried] == list(toys)
    assert {job.source.name for job in tried} == {"toys"}
    assert asked.finals_of(improved, Desk(tmp_path, tmp_path)) is None
    assert replace(asked, source=other).trying(improved) == (other, TRIALS)
    assert replace(asked, trials=1).trials_of(improved) == []


def test_a_row_of_several_tables_is_one_model(tmp_path):
    toys, other = Source(str(tmp_path / "toys")), Source(str(tmp_path / "scientific"))
    tried = {}
    for name in TABLES:
        plan = Plan(name, toys, other)
        for entry in plan.wanted():
            if name != "smallest":
                settings = (entry.composition, plan.trying(entry))
                assert tried.setdefault(entry.label, settings) == settings
    assert len(tried["MMSR, improved"][1][1]) > len(TRIALS_HERE)
    assert tried["MMSR"][1] == (other, TRIALS)


def test_without_a_choice_trials_are_made_on_the_same_histories(tmp_path):
    other = Source(str(tmp_path / "toys"), "sequences_other.npz")
    asked = Plan("recommenders", other, other, rows=("MMSR", "MMSR, improved"))
    assert [asked.trying(entry) for entry in asked.wanted()] == [(other, TRIALS)] * 2


def test_a_job_of_another_process_is_left_to_it(tmp_path):
    desk = Desk(tmp_path / "runs", tmp_path / "results")
    job = Job(GENERATED, TABLES["smallest"]()[1].composition, QUICK, trial=True)
    with desk._claimed(job) as mine:
        assert mine
        assert Desk(desk.runs, desk.results).do(job) is None
    assert desk.do(job)["search"]["MRR"] > 0


def test_a_record_without_what_was_to_be_dropped_is_made_again(tmp_path):
    desk = Desk(tmp_path / "runs", tmp_path / "results")
    job = Job(GENERATED, TABLES["smallest"]()[1].composition, replace(QUICK, epochs=1))
    known = desk.do(job)
    assert desk.record(job) == known
    asked = replace(job, dropped=(MissingConfig(("image",), 0.5), MissingConfig(("text",), 1.0)))
    assert asked.key == job.key
    assert desk.record(asked) is None
    again = desk.do(asked)
    assert desk.record(asked) == desk.record(job) == again
    assert [case["missing"]["share"] for case in again["dropped"]] == [0.5, 1.0]
    assert again["test"] == known["test"]
    unknown = replace(job, dropped=(MissingConfig(("sound",), 0.5),))
    with pytest.raises(ValueError, match=r"missing: expected some of .*, got 'sound'"):
        desk.do(unknown)
    assert desk.record(job) == again


def test_a_training_after_its_trial_counts_the_trials_time(tmp_path, monkeypatch):
    desk = Desk(tmp_path / "runs", tmp_path / "results")
    trial = Job(GENERATED, TABLES["smallest"]()[1].composition, QUICK, trial=True)
    history = desk._folder(trial) / "search" / "history.json"
    seconds = desk.do(trial)["seconds"]
    rows = json.loads(history.read_text())
    assert seconds == pytest.approx(sum(row["seconds"] for row in rows))
    rows[0]["seconds"] += 5_000  # by a process that was stopped after it
    history.write_text(json.dumps(rows))
    whole = replace(trial, trial=False)
    assert 5_000 + seconds < desk.do(whole)["seconds"] < 5_600
    desk._path(whole, False).unlink()  # with it went the search that the trial had made
    assert desk.do(whole)["seconds"] < 600


def test_ranks_are_those_of_the_record_beside_them(tmp_path, monkeypatch):
    desk = Desk(tmp_path / "runs", tmp_path / "results")
    job = Job(GENERATED, TABLES["smallest"]()[1].composition, replace(QUICK, epochs=1))
    desk.do(job)
    before, _ = desk.ranks(job)
    again = replace(job, dropped=(MissingConfig(("image",), 0.5),))
    fitted = jobs.fit

    def other(make, parts, config, folder):
        model, record = fitted(make, parts, config, folder)
        with np.load(folder / "test_ranks.npz") as found:
            np.savez(folder / "test_ranks.npz", ranks=found["ranks"] + 1, user=found["user"])
        return model, record

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "fit", other)  # as newer code, or another machine, may end otherwise
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "rank_all", stopped)
        with pytest.raises(KeyboardInterrupt):
            desk.do(again)
    np.testing.assert_array_equal(desk.ranks(job)[0], before)
    desk.do(again)
    np.testing.assert_array_equal(desk.ranks(job)[0], before + 1)


def test_a_folder_goes_by_its_own_name(tmp_path, monkeypatch):
    (tmp_path / "shop" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "shop" / "deeper")
    assert [Source(folder).name for folder in (".", "..", "../")] == ["deeper", "shop", "shop"]
    assert Source("..", "sequences_other.npz").name == "shop_other"
    assert Source(".").same_folder(Source("../deeper", "sequences_other.npz"))
    assert Source("..").same_folder(Source(str(tmp_path / "shop")))
    assert not Source(".").same_folder(Source(".."))
    assert GENERATED.same_folder(Source())
    assert not GENERATED.same_folder(Source("."))


def test_a_job_that_another_process_has_finished_meanwhile_is_not_done_again(tmp_path, monkeypatch):
    desk = Desk(tmp_path / "runs", tmp_path / "results")
    job = Job(GENERATED, TABLES["smallest"]()[1].composition, QUICK, trial=True)
    known = desk.do(job)
    real, asked = Desk.record, []

    def late(self: Desk, wanted: Job) -> dict | None:
        asked.append(wanted)
        return real(self, wanted) if len(asked) > 1 else None

    monkeypatch.setattr(Desk, "record", late)
    monkeypatch.setattr(jobs, "search", None)
    assert desk.do(job) == known


def test_records_are_of_the_data_that_they_were_made_from(tmp_path):
    data = generate(GenerateConfig(dial=1, users=60, items=36, codes=4, width=16)).data
    desk = Desk(tmp_path / "runs", tmp_path / "results")
    source = Source(str(tmp_path / "shop"))
    write(data, tmp_path / "shop")
    desk.accept(source, jobs.open_source(source))
    desk.accept(source, jobs.open_source(source))
    image = data.features["image"].copy()
    image[7, 3] += 1
    write(replace(data, features={**data.features, "image": image}), tmp_path / "shop")
    with pytest.raises(
        ValueError, match=r"shop holds figures of other data .*: they differ in image; name another"
    ):
        desk.accept(source, jobs.open_source(source))
    with pytest.raises(ValueError, match="holds figures of other data"):
        desk.do(Job(source, TABLES["smallest"]()[1].composition, QUICK))


def test_ranks_far_behind_are_kept_as_far_behind(tmp_path):
    ranks = np.array([1.0, 2.5, 20.0, 32768.0, 1e6])
    jobs.write_ranks(tmp_path / "ranks.npz", ranks, np.arange(5))
    kept, user = jobs.read_ranks(tmp_path / "ranks.npz")
    assert kept[:3].tolist() == [1.0, 2.5, 20.0]
    assert kept[3:].min() > 30_000
    assert user.tolist() == [0, 1, 2, 3, 4]


def test_hours_are_those_of_jobs_of_the_same_kind(tmp_path):
    desk = Desk(tmp_path / "runs", tmp_path / "results")
    asked = plan("smallest", trials=2, seeds=(0, 1))
    assert (
        "| smallest | generated | all | 0, 1 | 4 | 0 | 0.0 and 4 jobs of unknown length |"
        in schedule([asked], desk)
    )
    (entry,) = asked.wanted()
    for job, seconds in zip(asked.trials_of(entry), (36_000, 72_000), strict=True):
        record = desk.results / "generated" / f"{job.key}-trial.json"
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps({"search": {"MRR": 1}, "seconds": seconds}))
    assert "| 4 | 2 | 0.0 and 2 jobs of unknown length |" in schedule([asked], desk)
    first, second = asked.finals_of(entry, desk)
    whole = desk.results / "generated" / f"{first.key}.json"
    whole.write_text(json.dumps({"search": {"MRR": 1}, "test": {}, "seconds": 7_200}))
    lines = schedule([asked, replace(asked, seeds=(1, 2))], desk).splitlines()
    assert lines[2:] == [
        "| smallest | generated | all | 0, 1 | 4 | 3 | 2.0 |",
        "| smallest | generated | all | 1, 2 | 4 | 2 | 2.0 |",  # seed 1 is counted above
        "| all | | | | 5 | 3 | 4.0 |",
    ]
    assert second.training.seed == 1


def test_what_fails_is_told_and_the_rest_is_done(tmp_path, monkeypatch):
    desk = Desk(tmp_path / "runs", tmp_path / "results")
    real = jobs.fit

    def fails(make, *arguments):
        if "seed0" in str(arguments[2]):
            raise RuntimeError("no more memory")
        return real(make, *arguments)

    monkeypatch.setattr(jobs, "fit", fails)
    asked = plan("smallest", seeds=(0, 1))
    (message,) = work([asked], desk)
    assert "seed0: RuntimeError: no more memory" in message
    assert len(list(desk.results.glob("generated/*.failed"))) == 1
    assert len(list(desk.results.glob("generated/*seed1.json"))) == 1
    assert "| 1 |" in next(row for row in table(asked, desk, {}).splitlines() if "| MMSR |" in row)


def test_every_row_of_every_table_can_be_built():
    data = jobs.open_source(GENERATED)
    parts, zoo = split(data), Zoo(data)
    built = {}
    for name, entries in TABLES.items():
        labels = [entry.label for entry in entries()]
        assert len(set(labels)) == len(labels), name
        for entry in entries():
            if entry.composition is not None and entry.composition not in built:
                model = zoo.build(entry.composition, parts.fit)
                batch = model.batch(parts.fit.prefixes()[:3], training=True)
                assert model(batch).shape == (3, data.num_items), entry.label
                built[entry.composition] = model
    assert sum(isinstance(model, MMSR) for model in built.values()) > 30


def test_dropped_modalities_have_their_table_and_curve(tmp_path, figures):
    desk = Desk(tmp_path / "runs", tmp_path / "results")
    label = "SASRec, early fusion"
    asked = plan("missing", rows=(label, f"{label}, both missing from 50% in training too"))
    assert not work([asked], desk)
    head, _, *rows = dropped(asked, desk).splitlines()
    assert [cell.strip() for cell in head.split("|")[3:-1]] == ["image", "text", "either", "both"]
    assert [row.split("|")[2].strip() for row in rows] == ["0 %", "30%", "50%", "70%", "100%"]
    assert len({row.split("|")[3] for row in rows}) > 1
    curve(asked, desk, tmp_path / "curve.png")
    panels = {axis.get_title(): axis.get_lines() for axis in figures[0].axes}
    assert list(panels) == ["image", "text", "either", "both"]
    assert [line.get_xdata().tolist() for line in panels["both"]] == [
        [0.0, 0.3, 0.5, 0.7, 1.0],  # at test
        [0.0, 0.5],  # always
    ]
    drawn = [f"{value:.2f}" for value in panels["text"][0].get_ydata()]
    assert drawn == [row.split("|")[4].strip() for row in rows]


def test_a_comparison_of_two_rows(tmp_path):
    desk = Desk(tmp_path / "runs", tmp_path / "results")
    asked = plan("updates", rows=("homogeneous only", "MMSR"))
    assert not work([asked], desk)
    lines = comparison(asked, desk, "MMSR").splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("| homogeneous only | ")
    assert " of 4" in lines[2]


def test_paired_differences_against_a_literal_resampling():
    rng = np.random.default_rng(0)
    user = np.sort(rng.integers(0, 30, 200))
    ours = [rng.integers(1, 9, 200).astype(float) for _ in range(2)]
    theirs = [rng.integers(1, 12, 200).astype(float)]
    found, same = compare(ours, [theirs, ours], user, ("MRR@5", "HR@3"), resamples=300, seed=4)

    def value(metric: str, ranks: np.ndarray) -> np.ndarray:
        if metric == "MRR@5":
            return np.array([1 / rank if rank <= 5 else 0 for rank in ranks])
        return np.array([float(rank <= 3) for rank in ranks])

    def mean(metric: str, rows: np.ndarray) -> float:
        each = [value(metric, ranks[rows]) for ranks in ours]
        return 100 * (np.mean(each, 0) - value(metric, theirs[0][rows])).mean()

    users = np.unique(user)
    draw = np.random.default_rng(4)
    drawn = [users[draw.integers(len(users), size=len(users))] for _ in range(300)]
    rows = [np.concatenate([np.flatnonzero(user == one) for one in each]) for each in drawn]
    for metric, difference in zip(("MRR@5", "HR@3"), found, strict=True):
        means = [mean(metric, some) for some in rows]
        assert difference.mean == pytest.approx(mean(metric, np.arange(200)))
        ends = np.quantile(means, [0.025, 0.975])
        assert [difference.low, difference.high] == pytest.approx(ends)
        assert difference.ahead == (difference.low > 0)
    assert [(each.mean, each.low, each.high, each.ahead) for each in same] == [(0, 0, 0, False)] * 2
    with pytest.raises(ValueError, match=r"others\[1\]: expected ranks as long as user, 200, got"):
        compare(ours, [theirs, [theirs[0][1:]]], user, ["HR@5"])
    with pytest.raises(ValueError, match=r"others\[1\]: .* got lengths \[\]"):
        compare(ours, [theirs, []], user, ["HR@5"])
    with pytest.raises(ValueError, match="others: expected at least one, got none"):
        compare(ours, [], user, ["HR@5"])


def test_attributes_reach_a_table_only_where_a_row_asks(tmp_path):
    data = generate(GenerateConfig(dial=1, users=60, items=36, codes=4, width=16)).data
    write(data, tmp_path)
    values = np.arange(36) % 5
    np.savez(tmp_path / "attributes.npz", values=values, offsets=np.arange(37))
    read = jobs.open_source(Source(str(tmp_path)))
    assert read.modalities == (*data.modalities, "attributes")
    small = Composition(nodes=NodesConfig(num_codes=4), model=ModelConfig(channels=8))
    model = Zoo(read).build(small, split(read).fit)
    assert tuple(model.nodes) == data.modalities


def fake_records(stage: programme.Stage, desk: Desk, rng: np.random.Generator) -> None:
    """Records of a stage's jobs, as if they were done."""
    plan = stage.plan()
    (desk.results / plan.source.name).mkdir(parents=True, exist_ok=True)
    for entry in plan.wanted():
        for finals in (False, True):
            for job in plan.finals_of(entry, desk) or () if finals else plan.trials_of(entry):
                path = (
                    desk.results / job.source.name / f"{job.key}{'' if finals else '-trial'}.json"
                )
                path.parent.mkdir(exist_ok=True)
                ranks = rng.integers(1, 40, 50)
                record = {"search": {"MRR": 7.5}, "test": summarise(ranks), "seconds": 3600}
                record["gate"] = {"mean": 0.625, "spread": 0.25}
                path.write_text(json.dumps(record))
                jobs.write_ranks(path.with_suffix(".npz"), ranks, np.arange(50) // 2)


def test_the_page_and_its_pictures(tmp_path, monkeypatch, figures):
    rows = ("MMSR", "synchronous")
    stages = (
        programme.Stage("shop", "updates", rows, (0, 1)),
        programme.Stage("shop", "additions", ("MMSR + features",), (0,)),
    )
    monkeypatch.setattr(programme, "STAGES", stages)
    remarks = tmp_path / "remarks.md"
    remarks.write_text("## shop\n\n### How the two attentions are joined\n\nSaid of it.\n")
    monkeypatch.setattr(programme, "REMARKS", remarks)
    desk = Desk(tmp_path / "runs", tmp_path / "results")
    fake_records(stages[0], desk, np.random.default_rng(0))
    main(["results", f"--results={desk.results}", f"--out={tmp_path / 'PAGE.md'}"])
    text = (tmp_path / "PAGE.md").read_text()
    assert text.startswith("# Results")
    sections = dict(zip(("updates", "additions"), text.split("\n### ")[1:], strict=True))
    assert sections["updates"].startswith("How the two attentions are joined\n\nSaid of it.\n\n")
    assert sections["additions"].startswith("Each addition alone\n\n`python")
    first = sections["updates"].split("![")[0].splitlines()
    lines = {line.split("|")[1].strip(): line for line in first if "|" in line}
    assert lines["MMSR"].endswith("| 2 | 7.50 ± 0.00 |")
    assert re.search(r"^Not planned: hohe, .*; homogeneous only; .*\.$", text, re.MULTILINE)
    assert "homogeneous only" not in lines
    assert "| 7.14 / 4.62 | 3.33 / 1.99 |" in sections["updates"]  # the paper's
    assert re.search(r"^\| synchronous \| [+-]\d+\.\d\d \[", sections["updates"], re.MULTILINE)
    assert "| MMSR | 0.625 ± 0.000 | 0.250 ± 0.000 | 2 |" in sections["updates"]
    assert "![How the two attentions are joined](results/shop/updates.png)" in sections["updates"]
    assert re.search(r"^Not yet run: MMSR \+ features\.$", sections["additions"], re.MULTILINE)
    assert (desk.results / "shop" / "updates.png").exists()
    updates = figures[0]
    labels = [label.get_text() for label in updates.axes[0].get_yticklabels()]
    assert labels == ["synchronous", "MMSR"]
    assert [axis.get_xlabel() for axis in updates.axes] == ["MRR@5, %", "HR@20, %"]
    widths = [bar.get_width() for bar in updates.axes[1].patches]
    shown = [f"{width:.2f}" for width in widths]
    assert [line.split("|")[4].split("±")[0].strip() for line in map(lines.get, labels)] == shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("## shop\n\n### Recommenders\n\nSaid.\n", r".*got \[\('shop', 'Recommenders'\)\]"),
        (
            "## toys\n\n### Lost\n\nSaid.\n\n### Lost\n\nMore.\n",
            "expected '### Lost' once under toys",
        ),
        ("Said.\n\n## toys\n", "expected a heading first, got 'Said.'"),
    ],
)
def test_remarks_are_not_lost(tmp_path, monkeypatch, text, message):
    remarks = tmp_path / "remarks.md"
    remarks.write_text(text)
    monkeypatch.setattr(programme, "REMARKS", remarks)
    with pytest.raises(ValueError, match=rf"remarks\.md: {message}"):
        page(Desk(tmp_path / "runs", tmp_path / "results"))


def test_the_programme(tmp_path, monkeypatch, capsys):
    data = generate(GenerateConfig(dial=1, users=60, items=36, codes=4, width=16)).data
    for name in ("shop", "scientific"):
        write(data, tmp_path / "root" / name)
    stages = (
        programme.Stage("shop", "updates", ("MMSR",), (0, 1)),
        programme.Stage("scientific", "updates", ("MMSR",), (0,)),
    )
    monkeypatch.setattr("examples.mmsr.__main__.STAGES", stages)
    places = [f"--{name}={tmp_path / name}" for name in ("runs", "results")]
    main(["programme", str(tmp_path / "root"), "--dry_run=true", *places])
    printed = capsys.readouterr().out
    assert "| updates | shop | MMSR | 0, 1 | 6 | 0 | 0.0 and 6 jobs of unknown length |" in printed
    every = "| all | | | | 7 | 0 | 0.0 and 7 jobs of unknown length |"
    assert every in printed  # they share their trials
    assert not (tmp_path / "results").exists()

    def never(*_: object) -> None:
        raise KeyboardInterrupt  # what no failed job stands for

    monkeypatch.setattr(Desk, "do", never)
    main(["programme", str(tmp_path / "root"), "--minutes=0", *places])  # no minute, no job
    assert (tmp_path / "results" / "shop" / "Markov.npz").exists()


def test_what_waits_is_told_from_what_is_not_planned(tmp_path):
    toys = Plan("recommenders", Source("toys"), Source("scientific"))
    printed = table(toys, Desk("", tmp_path), {}, planned={"MMSR", "MMSR, improved"})
    assert "| MMSR | not yet run |" in printed  # which has figures of the paper
    assert "| SASRec | not planned |" in printed
    assert "Not yet run: MMSR, improved." in printed
    assert "Not planned: DIF-SR; " in printed
    assert "Not run: popularity; Markov; DIF-SR; MMSR, improved; " in table(
        toys, Desk("", tmp_path), {}
    )


def test_bars_show_counts_and_the_papers_figures(tmp_path, figures):
    counts = {"Markov": {"MRR@5": 4.0, "HR@20": 8.7}}
    (tmp_path / "toys").mkdir()
    (tmp_path / "toys" / "counted.json").write_text(json.dumps(counts))
    whole = Plan("recommenders", Source("toys"), Source("toys"), (0,), trials=1, rows=("MMSR",))
    asked = replace(whole, rows=())
    (job,) = asked.finals_of(whole.wanted()[0], Desk("", tmp_path))
    record = {"test": {"MRR@5": 3.0, "HR@20": 12.0}, "search": {"MRR": 5.0}}
    (tmp_path / "toys" / f"{job.key}.json").write_text(json.dumps(record))
    bars(asked, Desk("", tmp_path), tmp_path / "bars.png")
    for axis, ours, paper in zip(
        figures[0].axes, ((4.0, 3.0), (8.7, 12.0)), (3.8987, 12.1192), strict=True
    ):
        assert tuple(bar.get_width() for bar in axis.patches) == ours
        (strokes,) = [line for line in axis.lines if line.get_label() == "the paper's"]
        assert strokes.get_xydata().tolist() == [[paper, 1]]
    labels = [text.get_text() for text in figures[0].axes[0].get_yticklabels()]
    assert labels == ["Markov", "MMSR"]
    bars(whole, Desk("", tmp_path), tmp_path / "bars.png")
    assert len(figures[1].axes[0].patches) == 1


def test_the_page_of_results_is_that_of_the_records():
    assert Path(PAGE).read_text(encoding="utf-8") == page(Desk("", PAGE.with_name("results")))
