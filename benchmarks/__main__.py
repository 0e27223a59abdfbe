"""Measure mmgraph and its peers.

python -m benchmarks                        every suite
python -m benchmarks kernels scaling        some
python -m benchmarks kernels --workload paper --threads 1
python -m benchmarks --smoke                correctness and the report, on small sizes
python -m benchmarks --check                fail where a floor does not hold
python -m benchmarks --json results.json    keep the results, process by process
python -m benchmarks --json results.json --resume    and go on where a run was stopped
python -m benchmarks --from results.json    the report of an earlier run
python -m benchmarks --from results.json --publish    and the documentation's figures
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.environment import PACKAGES, environment, pinned
from benchmarks.floors import verdicts
from benchmarks.publish import Job, publish
from benchmarks.row import Row, Settings
from benchmarks.timing import FULL, SMOKE

# Each with the numbers of threads that it is measured at, and on which workloads; None is all.
SUITES: dict[str, dict[int, tuple[str, ...] | None]] = {
    "builder": {1: None},
    "kernels": {1: None, 2: ("paper",)},
    "propagation": {1: None, 2: ("paper",)},
    "scaling": {1: None, 2: ("10,000 edges", "40,000 edges", "100,000 edges", "1,000,000 edges")},
    "memory": {1: None},
    "end_to_end": {1: None, 2: None},
}
PROCESS = "process"
"""The case of a row that tells how a process ended before its time."""


def main() -> int:
    options = _arguments()
    if options.worker:
        _work(options)
        return 0
    if options.source:
        results = json.loads(options.source.read_text(encoding="utf-8"))
    else:
        results = _run(options)
    rows = [Row(**row) for row in results["rows"]]
    print(report.text(results["environment"], rows))
    if options.plots:
        print("\n".join(report.plots(rows, options.plots)))
    if options.publish:
        print("\n".join(map(str, publish(results, _jobs(SUITES)))))
    broken = [row for row in rows if row.status in ("wrong", "failed")]
    print("\n".join(["", "## wrong or failed", "", *map(report.line, broken)] if broken else []))
    ok = not broken
    if options.check:
        found = verdicts(rows)
        print(f"\n## floors\n\n{report.floor_table(found)}")
        ok &= all(verdict.holds for verdict in found)
    return 0 if ok else 1


def _run(options: argparse.Namespace) -> dict[str, Any]:
    """Each suite, workload and number of threads in a process of its own; a smoke test in one."""
    suites = options.suites or list(SUITES)
    jobs: list[tuple[list[str], str | None, int]] = []
    if options.smoke:
        jobs = [(suites, None, number) for number in options.threads or [1]]
    else:
        chosen = _jobs(suites, options.threads)
        jobs = [([job[0]], *job[1:]) for job in chosen if options.workload in (None, job[1])]
    results: dict[str, Any] = {"environment": environment(), "rows": []}
    absent = [name for name in PACKAGES if results["environment"][name] == "absent"]
    if options.check and absent:
        sys.exit(f"--check: floors compare with {', '.join(absent)}: not installed")
    if options.smoke:
        results["environment"]["sizes"] = "small: no time here means anything"
    if options.resume and options.json.exists():
        results = _earlier(options.json, results["environment"])
        # A process's rows are written together, so that one of them means all.
        broken = {_job_of(row) for row in results["rows"] if row["case"] == PROCESS}
        results["rows"] = [row for row in results["rows"] if _job_of(row) not in broken]
        held = {_job_of(row) for row in results["rows"]}
        jobs = [job for job in jobs if (job[0][0], job[1], job[2]) not in held]
    for names, workload, threads in jobs:
        results["rows"] += _process(names, workload, threads, options.smoke)
        if options.json:
            report.save(results, options.json)  # a long run that is stopped keeps what it has
    return results


def _jobs(suites: Iterable[str], threads: list[int] | None = None) -> list[Job]:
    """What is measured in a process each: all at one thread, then all at two."""
    jobs = []
    for suite in suites:
        names = importlib.import_module(f"benchmarks.suites.{suite}").NAMES
        usable = [number for number in SUITES[suite] if number <= (os.cpu_count() or 1)]
        for number in threads or usable:
            jobs += [(suite, name, number) for name in SUITES[suite].get(number) or names]
    return sorted(jobs, key=lambda job: job[2])


def _job_of(row: dict[str, Any]) -> Job:
    return row["suite"], row["workload"], row["threads"]


def _earlier(path: Path, now: dict[str, str]) -> dict[str, Any]:
    """The results of a stopped run on the same machine, with the commits of both."""
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    then = results["environment"]
    for name in sorted((now.keys() | then.keys()) - {"date", "commit"}):
        was, is_ = then.get(name), now.get(name)
        if was != is_:
            sys.exit(f"--resume: {path} was measured with {name} {was}, not {is_}")
    if now["commit"] not in then["commit"].split(", then "):
        then["commit"] += f", then {now['commit']}"
    return results


def _process(
    suites: list[str], workload: str | None, threads: int, smoke: bool
) -> list[dict[str, Any]]:
    """The rows of a pinned process; one that ends early leaves what it had measured."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows"
        command = [sys.executable, "-m", "benchmarks", *suites, "--worker", "--json", str(out)]
        command += ["--threads", str(threads), *["--smoke"] * smoke]
        command += ["--workload", workload] if workload else []
        ended = subprocess.run(command, env={**os.environ, **pinned(threads)}).returncode
        lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    rows = [json.loads(line) for line in lines]
    if ended:
        row = Row(", ".join(suites), workload or "", PROCESS, "", "", "", threads, "failed")
        row.detail = f"ended with {ended}"
        rows.append(dataclasses.asdict(row))
    return rows


def _work(options: argparse.Namespace) -> None:
    """Inside a pinned process: run suites, write each row as it comes."""
    import torch

    (threads,) = options.threads
    torch.set_num_threads(threads)
    effort = SMOKE if options.smoke else FULL
    settings = Settings(threads, options.smoke, effort, options.workload)
    with options.json.open("w", encoding="utf-8", buffering=1) as file:
        for suite in options.suites:
            for row in importlib.import_module(f"benchmarks.suites.{suite}").run(settings):
                file.write(json.dumps(dataclasses.asdict(row)) + "\n")
                print(report.line(row), file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description="Measure mmgraph and its peers."
    )
    parser.add_argument("suites", nargs="*", metavar="suite", help=", ".join(SUITES))
    parser.add_argument(
        "--smoke", action="store_true", help="small sizes, whose times decide nothing"
    )
    parser.add_argument("--check", action="store_true", help="fail where a floor does not hold")
    parser.add_argument("--json", type=Path, help="write the results, which --from reads")
    parser.add_argument("--resume", action="store_true", help="measure what --json lacks")
    parser.add_argument("--from", type=Path, dest="source", help="report these results")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw plots")
    parser.add_argument("--publish", action="store_true", help="write README and documentation")
    parser.add_argument("--workload", help="one alone, such as paper")
    parser.add_argument("--threads", type=int, nargs="+", help="by default each suite's own")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    part = options.smoke or options.suites or options.workload or options.threads
    if options.publish and part and not options.source:
        parser.error("--publish goes with a whole run, or with --from")
    if options.resume and (options.smoke or not options.json):
        parser.error("--resume goes with --json, and not with --smoke")
    for suite in options.suites:
        if suite not in SUITES:
            parser.error(f"suite: expected one of {', '.join(SUITES)}, got {suite!r}")
    return options


if __name__ == "__main__":
    sys.exit(main())
