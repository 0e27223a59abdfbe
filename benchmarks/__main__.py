"""Measure mmgraph and its peers.

python -m benchmarks                        every suite
python -m benchmarks kernels scaling        some
python -m benchmarks --smoke                correctness and the report, on small sizes
python -m benchmarks --check                fail where a floor does not hold
python -m benchmarks --from results.json    the report of an earlier run
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
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.environment import environment, pinned
from benchmarks.floors import verdicts
from benchmarks.row import Row, Settings
from benchmarks.timing import FULL, SMOKE

# Each with the numbers of threads that it is measured at.
SUITES = {
    "builder": (1,),
    "kernels": (1, 2),
    "propagation": (1, 2),
    "scaling": (1, 2),
    "memory": (1,),
    "end_to_end": (1, 2),
}


def main() -> int:
    options = _arguments()
    if options.worker:
        _work(options.suites, options.threads[0], options.smoke, options.json)
        return 0
    if options.source:
        results = json.loads(options.source.read_text(encoding="utf-8"))
    else:
        results = _run(options.suites or list(SUITES), options.threads, options.smoke)
    rows = [Row(**row) for row in results["rows"]]
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(report.text(results["environment"], rows))
    if options.plots:
        print("\n".join(report.plots(rows, options.plots)))
    broken = [row for row in rows if row.status in ("wrong", "failed")]
    print("\n".join(["", "## wrong or failed", "", *map(report.line, broken)] if broken else []))
    ok = not broken
    if options.check:
        found = verdicts(rows)
        print(report.floors(found))
        ok &= all(verdict.holds for verdict in found)
    return 0 if ok else 1


def _run(suites: list[str], threads: list[int] | None, smoke: bool) -> dict[str, Any]:
    """Each suite at each number of threads in a process of its own; a smoke test in one."""
    jobs: list[tuple[list[str], int]] = []
    if smoke:
        jobs = [(suites, number) for number in threads or [1]]
    else:
        for suite in suites:
            usable = [number for number in SUITES[suite] if number <= (os.cpu_count() or 1)]
            jobs += [([suite], number) for number in threads or usable]
    results: dict[str, Any] = {"environment": environment(), "rows": []}
    if smoke:
        results["environment"]["sizes"] = "small: no time here means anything"
    with tempfile.TemporaryDirectory() as folder:
        for number, (names, count) in enumerate(jobs):
            out = Path(folder) / f"{number}.jsonl"
            command = [sys.executable, "-m", "benchmarks", *names, "--worker"]
            command += ["--threads", str(count), "--json", str(out), *["--smoke"] * smoke]
            ended = subprocess.run(command, env={**os.environ, **pinned(count)}).returncode
            # A process that ends early, such as for lack of memory, leaves what it had measured.
            lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
            results["rows"] += [json.loads(line) for line in lines]
            if ended:
                row = Row(", ".join(names), "", "process", "", "", "", count, "failed")
                row.detail = f"ended with {ended}"
                results["rows"].append(dataclasses.asdict(row))
    return results


def _work(suites: list[str], threads: int, smoke: bool, out: Path) -> None:
    """Inside a pinned process: run suites, write each row as it comes."""
    import torch

    torch.set_num_threads(threads)
    settings = Settings(threads, smoke, SMOKE if smoke else FULL)
    with out.open("w", encoding="utf-8", buffering=1) as file:
        for suite in suites:
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
    parser.add_argument("--from", type=Path, dest="source", help="report these results")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw plots")
    parser.add_argument("--threads", type=int, nargs="+", help="by default each suite's own")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for suite in options.suites:
        if suite not in SUITES:
            parser.error(f"suite: expected one of {', '.join(SUITES)}, got {suite!r}")
    return options


if __name__ == "__main__":
    sys.exit(main())
