"""The commands, from generated data to recommendations, and what they say to wrong inputs."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from examples import mmsr
from examples.mmsr import checkpoint
from examples.mmsr.__main__ import COMMANDS, main
from examples.mmsr.data import read, write
from examples.mmsr.generate import GenerateConfig, generate
from examples.mmsr.recommend import listing, recommend

RELEASED = Path(mmsr.__file__).parent / "released.yaml"
TINY = [
    "--nodes.num_codes=4",
    "--model.channels=8",
    "--training.epochs=2",
    "--training.learning_rate=0.01",
    "--training.progress=false",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("data") / "tiny"
    write(generate(GenerateConfig(users=60, items=36, codes=4, width=16)).data, found)
    return found


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "tiny"
    main(["train", f"--data={folder}", f"--out={run}", *TINY])
    return run / "model.pt"


def places(path: Path) -> list[str]:
    return [f"--{name}={path / name}" for name in ("runs", "results")]


def write_ids(path: Path, histories: np.ndarray) -> None:
    path.mkdir()
    offsets = np.arange(len(histories) + 1) * histories.shape[1]
    np.savez(path / "sequences.npz", items=histories.ravel(), offsets=offsets)


def fails(arguments: list[str]) -> str:
    with pytest.raises(SystemExit) as error:
        main(arguments)
    return str(error.value)


def rows(text: str) -> dict[str, list[float]]:
    found = re.findall(r"^\| (\w+) +\| (.*) \|$", text, flags=re.MULTILINE)
    return {name: [float(cell) for cell in cells.split("|")] for name, cells in found}


def test_histories_too_short_for_a_test_step(tmp_path):
    rng = np.random.default_rng(0)
    write_ids(tmp_path / "short", rng.integers(0, 9, (30, 4)))
    message = fails(["train", f"--data={tmp_path / 'short'}", f"--out={tmp_path / 'run'}", *TINY])
    assert message == (
        "error: histories: expected some that are long enough, got none with a test step, "
        "which takes at least 5 steps"
    )
    message = fails(["table", "smallest", f"--data={tmp_path / 'short'}", *places(tmp_path)])
    assert "got none with a test step" in message
    write_ids(tmp_path / "pairs", rng.integers(0, 9, (30, 2)))
    message = fails(["train", f"--data={tmp_path / 'pairs'}", f"--out={tmp_path / 'run'}", *TINY])
    assert "got none with a step to train on, which takes at least 3 steps" in message
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_over_its_own_data_alone(folder, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    command = ["train", f"--data={data}", f"--out={tmp_path / 'run'}", *TINY]
    main(command)
    main([*command, "--resume=true", "--training.threads=1", "--training.progress=true"])
    image = np.load(data / "image.npy")
    np.save(data / "image.npy", image + 1)
    message = fails([*command, "--resume=true"])
    assert re.search(r"holds a run with fingerprint\.image = \w+, not \w+$", message)


def test_a_dry_run_leaves_nothing(folder, tmp_path, capsys):
    main(["table", "smallest", f"--data={folder}", "--dry_run=true", *places(tmp_path)])
    printed = capsys.readouterr().out
    assert (
        "| smallest | tiny | all | 0, 1, 2 | 7 | 0 | 0.0 and 7 jobs of unknown length |" in printed
    )
    assert not list(tmp_path.iterdir())


def test_figures_of_unknown_data_are_no_ones(folder, tmp_path):
    kept = tmp_path / "results" / "tiny"
    kept.mkdir(parents=True)
    (kept / "mmsr-0123456789-seed0.json").write_text("{}")
    message = fails(["table", "smallest", f"--data={folder}", *places(tmp_path)])
    assert "holds figures, but not data.json, which tells of what data" in message


def test_seeds_are_different(folder, tmp_path):
    message = fails(["table", "smallest", f"--data={folder}", "--seeds=[0, 0]", *places(tmp_path)])
    assert message == "error: seeds: expected some, each once, got [0, 0]"


def test_processes_are_counted_before_a_folder_is_taken(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    message = fails(["train", f"--data={folder}", f"--out={tmp_path / 'run'}", *TINY])
    assert "devices: expected 2, the processes that torchrun started, got 1" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "given", "why"),
    [("learning_rate", 0.01, "the trials choose it"), ("seed", 3, "seeds has it")],
)
def test_a_table_does_not_take_what_it_decides_itself(folder, tmp_path, name, given, why):
    command = ["table", "smallest", f"--data={folder}", *places(tmp_path)]
    message = fails([*command, f"--training.{name}={given}"])
    assert message == f"error: training.{name}: expected its default, since {why}, got {given}"


def test_a_number_of_trials_that_there_is_not(folder, tmp_path):
    message = fails(["table", "smallest", f"--data={folder}", "--trials=0", *places(tmp_path)])
    assert message == "error: trials: expected 1 to 4, got 0"


def test_a_demo_leaves_other_runs_alone(trained):
    message = fails(["demo", f"--out={trained.parent}"])
    assert "holds a run that is no demo's; name another folder" in message
    assert trained.exists()
    assert (trained.parent / "search").exists()


def test_folders_that_nothing_tells_of_are_left_alone(folder, tmp_path):
    (tmp_path / "search").mkdir()
    for command in (["demo"], ["train", f"--data={folder}", *TINY]):
        message = fails([*command, f"--out={tmp_path}"])
        assert "holds search, but no settings.json to tell of what run" in message
    assert [path.name for path in tmp_path.iterdir()] == ["search"]


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_describe(folder, capsys):
    main(["describe", f"--data={folder}"])
    text = capsys.readouterr().out
    data = read(folder)
    lengths = np.diff(data.offsets)
    test = sum(int(0.2 * n) for n in lengths.tolist())
    assert re.search(r"users +60$", text, re.MULTILINE)
    assert re.search(r"items +36$", text, re.MULTILINE)
    assert re.search(rf"interactions +{len(data.items)}$", text, re.MULTILINE)
    assert re.search(rf"test instances +{test}$", text, re.MULTILINE)
    prefixes = len(data.items) - test - 60
    assert re.search(rf"training prefixes +{prefixes}, before validation is taken out", text)
    share = f"{60 / prefixes:.1%}"
    assert f"60, {share} of them: the last training step of every user" in text
    missing = int((~data.has("image")).sum())
    assert f"16 features; missing for {missing} items" in text


def test_train_prints_its_table_and_evaluate_the_same(folder, tmp_path, capsys, trained):
    run = tmp_path / "run"
    arguments = ["train", f"--data={folder}", f"--out={run}", *TINY]
    main(arguments)
    printed = rows(capsys.readouterr().out)
    assert list(printed) == ["popularity", "Markov", "MMSR"]
    assert "holds a run already" in fails(arguments)
    main([*arguments, "--resume=true"])
    assert rows(capsys.readouterr().out) == printed
    assert "model.channels = 8, not 16" in fails(
        [*arguments, "--model.channels=16", "--resume=true"]
    )
    main(["evaluate", str(run / "model.pt"), f"--data={folder}"])
    assert rows(capsys.readouterr().out) == printed


def test_settings_from_a_file_and_from_the_command_line(tmp_path, capsys):
    (tmp_path / "settings.yaml").write_text("model:\n  layers: 3\n  heads: 2\n")
    with pytest.raises(SystemExit):
        main(
            ["train", f"--config={tmp_path / 'settings.yaml'}", "--model.heads=4", "--print_config"]
        )
    printed = capsys.readouterr().out
    assert "layers: 3" in printed
    assert "heads: 4" in printed


def test_the_released_setting_is_a_file(capsys):
    with pytest.raises(SystemExit):
        main(["train", f"--config={RELEASED}", "--print_config"])
    printed = capsys.readouterr().out
    assert "update: released" in printed
    assert "metric: euclidean" in printed


def test_recommend(trained, capsys):
    main(["recommend", str(trained), "[3, 1, 4]", "--top=5"])
    lines = capsys.readouterr().out.splitlines()
    model, names = checkpoint.load(trained)
    best = recommend(model, [3, 1, 4], top=5)
    assert [names[item] in line for line, (item, _) in zip(lines[-5:], best, strict=True)] == (
        [True] * 5
    )
    assert lines[0].endswith(names[3])
    scores = [score for _, score in best]
    assert scores == sorted(scores, reverse=True)
    assert len(recommend(model, [3], top=1000)) == 36


def test_recommendations_without_titles(folder, tmp_path, trained):
    bare = shutil.copytree(folder, tmp_path / "bare")
    (bare / "titles.txt").unlink()
    model, _ = checkpoint.load(trained)
    checkpoint.save(tmp_path / "model.pt", model, read(bare))
    again, names = checkpoint.load(tmp_path / "model.pt")
    assert names is None
    best = recommend(again, [3, 1], top=2)
    assert best == recommend(model, [3, 1], top=2)
    text = listing(best, names)
    assert text.splitlines()[1].split() == ["1", f"{best[0].score:.4f}", str(best[0].item)]


def test_a_checkpoint_of_training_loads_too(trained):
    model, names = checkpoint.load(trained.parent / "refit" / "last.ckpt")
    whole, _ = checkpoint.load(trained)
    assert names is not None
    assert recommend(model, [3, 1]) == recommend(whole, [3, 1])


def test_wrong_histories(trained):
    assert "expected an item from 0 to 35, got 36" in fails(["recommend", str(trained), "[1, 36]"])
    assert "history: expected at least one item, got none" in fails(
        ["recommend", str(trained), "[]"]
    )
    assert "top: expected a positive number, got 0" in fails(
        ["recommend", str(trained), "[1]", "--top=0"]
    )


def test_wrong_checkpoints(trained, tmp_path):
    whole = trained.read_bytes()
    short, foreign, text = tmp_path / "short.pt", tmp_path / "foreign.pt", tmp_path / "text.pt"
    short.write_bytes(whole[: len(whole) // 2])
    torch.save({"state_dict": {}}, foreign)
    text.write_text("not a checkpoint")
    old = tmp_path / "old.pt"
    torch.save({**torch.load(trained, weights_only=True), "version": 0}, old)
    unfit = tmp_path / "unfit.pt"
    contents = torch.load(trained, weights_only=True)
    del contents["state_dict"]["embedding.weight"]
    torch.save(contents, unfit)

    def told(path: Path) -> str:
        return fails(["recommend", str(path), "[1]"])

    assert "nowhere.pt: no such checkpoint" in told(tmp_path / "nowhere.pt")
    assert "is not a checkpoint, or is cut short" in told(short)
    assert "is not a checkpoint, or is cut short" in told(text)
    assert "is a checkpoint of something else" in told(foreign)
    assert "has version 0; this example reads version 1" in told(old)
    assert "does not fit this version" in told(unfit)


def test_a_checkpoint_that_runs_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("code from a checkpoint ran",))

    path = tmp_path / "evil.pt"
    torch.save({"format": checkpoint.FORMAT, "evil": Evil()}, path)
    assert "cannot be read as a checkpoint" in fails(["recommend", str(path), "[1]"])


def test_evaluate_on_other_histories_says_so(folder, trained, tmp_path, capsys):
    main(["evaluate", str(trained), f"--data={folder}"])
    assert "was not trained on these histories" not in capsys.readouterr().out
    data = read(folder)
    write(replace(data, items=data.items[::-1].copy()), tmp_path / "other")
    main(["evaluate", str(trained), f"--data={tmp_path / 'other'}"])
    assert f"{trained} was not trained on these histories" in capsys.readouterr().out


def test_evaluate_on_another_catalogue(trained, tmp_path):
    write(generate(GenerateConfig(users=20, items=25, codes=4, width=16)).data, tmp_path / "other")
    assert "knows 36 items, but other has 25" in fails(
        ["evaluate", str(trained), f"--data={tmp_path / 'other'}"]
    )


def test_a_folder_that_lacks_a_file(folder, tmp_path):
    bare = shutil.copytree(folder, tmp_path / "bare")
    (bare / "sequences.npz").unlink()
    told = fails(["train", f"--data={bare}", f"--out={tmp_path / 'run'}"])
    assert told.endswith("bare lacks sequences.npz")
    assert not (tmp_path / "run").exists()


def test_demo(tmp_path, capsys):
    arguments = [
        "demo",
        f"--out={tmp_path}",
        "--generated.users=60",
        "--generated.items=144",
        "--training.epochs=1",
        "--training.progress=false",
    ]
    main(arguments)
    first = capsys.readouterr().out
    assert list(rows(first)) == ["popularity", "Markov", "MMSR"]
    assert "the model recommends (and " in first
    assert (tmp_path / "fusion_order.png").read_bytes().startswith(b"\x89PNG")
    main(arguments)  # an earlier demo's folder is replaced
    assert rows(capsys.readouterr().out) == rows(first)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            ["--model.heads=3", "--model.update=hgat"],
            "heads: expected a divisor of channels 8, got 3",
        ),
        (["--model.heads=0"], "heads: expected at least 1, got 0"),
        (["--model.channels=0"], "channels: expected at least 1, got 0"),
        (["--model.layers=0"], "layers: expected at least 1, got 0"),
        (["--model.readout=recent", "--model.recent=0"], "recent: expected at least 1, got 0"),
        (["--model.max_length=0"], "max_length: expected at least 1, got 0"),
        (["--model.dropout=1"], "dropout: expected at least 0 and below 1, got 1.0"),
        (
            ["--model.attention_dropout=-0.1"],
            "attention_dropout: expected at least 0 and below 1, got -0.1",
        ),
    ],
)
def test_blocks_that_there_are_not(folder, tmp_path, capsys, given, words):
    with pytest.raises(SystemExit) as stop:
        main(["train", f"--data={folder}", f"--out={tmp_path / 'run'}", *TINY, *given])
    assert words in f"{stop.value}{capsys.readouterr().err}"
    assert not (tmp_path / "run").exists()


def test_features_too_narrow_for_centres(folder, tmp_path):
    arguments = ["train", f"--data={folder}", f"--out={tmp_path / 'run'}", *TINY]
    message = fails([*arguments, "--model.channels=17"])
    assert message.startswith(
        "error: image: code embeddings start from centres of --model.channels numbers; change it, "
        "or give --nodes.from_centres false (components: expected at most"
    )
    assert not (tmp_path / "run").exists()
    main([*arguments, "--model.channels=17", "--nodes.from_centres=false"])


def test_a_modality_that_no_codes_can_be_made_of_is_named(folder, tmp_path):
    data = shutil.copytree(folder, tmp_path / "data")
    text = np.load(data / "text.npy")
    text[5] = 0
    np.save(data / "text.npy", text)
    arguments = ["train", f"--data={data}", f"--out={tmp_path / 'run'}", *TINY]
    assert fails(arguments).startswith("error: text: features[5]: a row of zeros has no direction")
    assert "image: features: expected at least num_codes = 40" in fails(
        [*arguments, "--nodes.num_codes=40"]
    )
    assert not (tmp_path / "run").exists()
