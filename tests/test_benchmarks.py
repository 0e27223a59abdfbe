"""The benchmarks' smoke run and its report; that what computes wrongly is never timed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import __main__ as command
from benchmarks import floors, publish, report
from benchmarks.case import Case, Formulation, Program, leaves, measure
from benchmarks.peers.compiled import compiled
from benchmarks.row import BOTH, CALL, FORWARD, Row, Settings
from benchmarks.timing import SMOKE
from benchmarks.workloads import WORKLOADS, small

ROOT = Path(__file__).parents[1]
SETTINGS = Settings(threads=1, smoke=True, effort=SMOKE)
SUITES = {"builder", "kernels", "propagation", "scaling", "memory", "end_to_end"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], list[Row], Path]:
    path = tmp_path_factory.mktemp("benchmarks") / "results.json"
    done = run("--smoke", "--json", str(path))
    assert done.returncode == 0, (done.stdout + done.stderr).partition("## wrong")[2]
    results = json.loads(path.read_text(encoding="utf-8"))
    return done.stdout, results["environment"], [Row(**row) for row in results["rows"]], path


def test_smoke_runs_every_suite_and_finds_nothing_wrong(smoke: Any) -> None:
    _, _, rows, _ = smoke
    assert {row.suite for row in rows} == SUITES
    assert {row.status for row in rows} <= {"ok", "absent", "skipped"}
    for row in rows:
        if row.status == "ok":
            assert row.q1 <= row.median <= row.q3
            assert row.error is None or row.error <= 1e-4
        else:
            assert row.median is None
            assert row.detail
    # Whatever is installed, the reference itself was timed, and checked.
    checked = [row for row in rows if row.suite == "kernels" and row.variant == "torch"]
    assert checked
    assert all(row.status == "ok" and row.error is not None for row in checked)


def test_smoke_names_every_peer(smoke: Any) -> None:
    text, _, rows, _ = smoke
    peers = {row.peer for row in rows}
    assert peers == {
        "mmgraph",
        "PyTorch",
        "PyTorch compiled",
        "torch-scatter",
        "PyG",
        "MMSR's dense layout",
        "dictionaries",
    }
    for row in rows:
        assert f"| {row.formulation} " in text
    compilations = [row for row in rows if row.peer == "PyTorch compiled" and row.first_call]
    assert {row.variant for row in compilations} >= {"index_add, static", "index_add, dynamic"}


def test_smoke_tells_what_it_ran_on(smoke: Any) -> None:
    _, environment, _, _ = smoke
    # Installed metadata may leave out which CUDA a build is for.
    assert environment["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert environment["sizes"] == "small: no time here means anything"
    for name in ("commit", "cpu", "cores", "memory", "python", "numba", "torch-scatter"):
        assert environment[name]


def test_a_saved_report_is_the_same(smoke: Any) -> None:
    text, _, _, path = smoke
    again = run("--from", str(path))
    assert again.returncode == 0
    assert again.stdout == text


def test_check_fails_where_a_floor_was_not_measured(smoke: Any) -> None:
    again = run("--from", str(smoke[3]), "--check")
    assert again.returncode == 1
    assert "not measured: mmgraph, 512 histories" in again.stdout


def test_a_suite_that_is_none_is_refused() -> None:
    done = run("kernel")
    assert done.returncode == 2
    assert "suite: expected one of builder, kernels," in done.stderr
    assert "got 'kernel'" in done.stderr


def test_a_result_that_is_wrong_fails_the_run(smoke: Any, tmp_path: Path) -> None:
    results = json.loads(smoke[3].read_text(encoding="utf-8"))
    results["rows"][0] |= {"status": "wrong", "median": None}
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(results), encoding="utf-8")
    assert run("--from", str(path)).returncode == 1


def test_a_stopped_run_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, begun = tmp_path / "results.json", []

    def process(suites: list[str], workload: str, threads: int, smoke: bool) -> Any:
        begun.append((*suites, workload, threads))
        if len(begun) == 3:
            raise KeyboardInterrupt
        row = Row(*suites, workload, "case", "peer", "way", CALL, threads)  # type: ignore[arg-type]
        return [asdict(row)]

    monkeypatch.setattr(command, "_process", process)
    arguments = ["benchmarks", "builder", "memory", "--json", str(path), "--resume"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(KeyboardInterrupt):
        command.main()
    assert command.main() == 0
    assert begun[2] == begun[3]  # the one that was stopped is made again, and none of the others
    assert len(set(begun)) == len(begun) - 1 == len(json.loads(path.read_text())["rows"])

    failed = json.loads(path.read_text())
    failed["rows"][0]["case"] = command.PROCESS  # it ended early, and is made again
    path.write_text(json.dumps(failed))
    del begun[:]
    begun += [()] * 3
    assert command.main() == 0
    assert len(begun) == 4
    assert all(row["case"] == "case" for row in json.loads(path.read_text())["rows"])

    small = json.loads(path.read_text())
    small["environment"]["sizes"] = "small"
    path.write_text(json.dumps(small))
    with pytest.raises(SystemExit, match="was measured with sizes small, not None"):
        command.main()

    other = json.loads(path.read_text())
    del other["environment"]["sizes"]
    other["environment"]["torch"] = "1.0"
    path.write_text(json.dumps(other))
    with pytest.raises(SystemExit, match=r"was measured with torch 1\.0, not 2"):
        command.main()


@pytest.mark.parametrize("name", publish.FILES)
def test_the_figures_of_the_documentation_are_those_of_the_results(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    results = json.loads(publish.RESULTS.read_text(encoding="utf-8"))
    assert "<!-- benchmarks: summary -->" in text
    assert publish.fill(text, results) == text


def test_floors_are_not_checked_without_what_they_compare_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = command.environment() | {
        "torch-scatter": "absent",
        "torch-sparse": "2",
        "torch-geometric": "absent",
    }
    monkeypatch.setattr(command, "environment", lambda: found)
    monkeypatch.setattr(command, "_process", None)  # nothing is begun
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--check"])
    with pytest.raises(SystemExit, match="with torch-scatter, torch-geometric: not installed"):
        command.main()


def test_a_part_of_a_run_is_not_published(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "builder", "--publish"])
    with pytest.raises(SystemExit):
        command.main()
    assert "--publish goes with a whole run, or with --from" in capsys.readouterr().err


def test_what_is_published_is_kept_and_never_a_smoke_test(
    smoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = json.loads(smoke[3].read_text(encoding="utf-8"))
    monkeypatch.setattr(publish, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(publish, "FILES", ())
    monkeypatch.setattr(publish, "PLOTS", tmp_path / "plots")
    with pytest.raises(ValueError, match="results: expected a whole run, got small"):
        list(publish.publish(results, []))
    assert not list(tmp_path.iterdir())
    del results["environment"]["sizes"]
    jobs = [(row["suite"], row["workload"], row["threads"]) for row in results["rows"]]
    wanted = "got none of suite kernels, workload large, threads 2"
    with pytest.raises(ValueError, match=wanted):
        list(publish.publish(results, [*jobs, ("kernels", "large", 2)]))
    assert not list(tmp_path.iterdir())
    written = list(publish.publish(results, jobs))
    assert written[0] == publish.RESULTS
    assert json.loads(publish.RESULTS.read_text(encoding="utf-8")) == results


def test_the_formulations_run_on_pytest_benchmark() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "benchmarks"]
    command += ["--benchmark-disable", "-k", "test_builder or (heterogeneous and fused)"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-5_000:]
    assert " passed" in done.stdout


class Halved(torch.autograd.Function):
    """The identity with half of its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient / 2


X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


def square(x: Tensor) -> Tensor:
    return x * x


def case_of(function: Callable[..., Any], **changes: Any) -> Case:
    def program(dtype: torch.dtype = torch.float32, function: Any = square) -> Program:
        return Program(function, leaves({"x": X}, dtype))

    formulation = Formulation("peer", "way", lambda: program(function=function), **changes)
    return Case("none", "square", [formulation], lambda: program(torch.float64))


def statuses(case: Case) -> list[tuple[str, str]]:
    rows = list(measure("suite", case, SETTINGS))
    assert [row.quantity for row in rows] == [FORWARD, BOTH]
    for row in rows:
        assert (row.median is not None) == (row.status == "ok")
    return [(row.status, row.detail) for row in rows]


def test_what_is_right_is_timed() -> None:
    assert statuses(case_of(square)) == [("ok", "")] * 2


@pytest.mark.parametrize(
    ("function", "forward", "both"),
    [
        (lambda x: x * x + 1e-2, "output 0 is off by", "output 0 is off by"),
        (lambda x: Halved.apply(x) ** 2, "", "gradient of x is off by"),
        (lambda x: x.detach() ** 2 + 0 * torch.ones(1, requires_grad=True), "", "is missing"),
        (lambda x: (x * x)[:4], "has shape [4, 3], not [5, 3]", ""),
        (lambda x: x * x * float("nan"), "output 0 is off by nan", "is off by nan"),
    ],
)
def test_what_is_wrong_is_caught(
    function: Callable[[Tensor], Tensor], forward: str, both: str
) -> None:
    found = statuses(case_of(function))
    for (status, detail), reason in zip(found, (forward, both), strict=True):
        assert status != "ok" if reason else True
        assert reason in detail
    assert any(status == "wrong" for status, _ in found)


def test_a_compiled_formulation_is_checked_too() -> None:
    case = case_of(lambda x: x * x + 1e-2)
    case.formulations += compiled(case.formulations[0], SETTINGS, in_smoke=True)
    rows = list(measure("suite", case, SETTINGS))
    assert {row.peer for row in rows} == {"peer", "peer compiled"}
    assert {row.status for row in rows} == {"wrong"}


def test_what_does_not_fit_is_not_begun() -> None:
    def never(x: Tensor) -> Tensor:
        raise AssertionError("was called")

    found = statuses(case_of(never, peak=(10**15, 10**15)))
    assert found == [("does not fit", "predicted peak 1000000 GB")] * 2


def test_who_is_absent_and_who_breaks_is_named() -> None:
    def absent(x: Tensor) -> Tensor:
        raise ImportError("No module named 'peer'")

    def broken(x: Tensor) -> Tensor:
        raise RuntimeError("no such operator\nand a long story")

    assert statuses(case_of(absent)) == [("absent", "No module named 'peer'")] * 2
    assert statuses(case_of(broken)) == [("failed", "RuntimeError: no such operator")] * 2


@pytest.mark.parametrize("name", WORKLOADS)
def test_workloads_are_seeded(name: str) -> None:
    workload = small(WORKLOADS[name])
    assert workload.histories() == replace(workload).histories()
    assert workload.histories() != replace(workload, seed=1).histories()
    graph = workload.graph()
    assert graph.num_graphs == workload.num_graphs
    assert graph.schema.modalities == ("item", *workload.modalities)


def test_paper_has_the_sizes_of_the_design() -> None:
    graph = WORKLOADS["paper"].graph()
    assert graph.num_graphs == 128
    assert 4_500 < graph.num_nodes < 6_000
    assert 60_000 < graph.num_edges < 80_000


def timed(peer: str, variant: str, median: float | None, threads: int = 1) -> Row:
    row = Row("builder", "paper", "512 histories", peer, variant, CALL, threads)
    row.median = median
    return row


def test_a_floor_takes_the_best_of_a_peer() -> None:
    rows = [timed("mmgraph", "from lists", 1.0), timed("dictionaries", "from lists", 13.0)]
    (verdict,) = floors.verdicts(rows)
    assert verdict.ratio == 13.0
    assert verdict.holds
    rows.append(timed("dictionaries", "from lists", 11.0))
    (verdict,) = floors.verdicts(rows)
    assert verdict.ratio == 11.0
    assert not verdict.holds
    assert "| NO " in report.floor_table([verdict])
    (verdict,) = floors.verdicts(rows[:1])
    assert verdict.ratio is None
    assert not verdict.holds


def test_rows_survive_json() -> None:
    row = timed("mmgraph", "from lists", 1.0)
    assert Row(**json.loads(json.dumps(asdict(row)))) == row
