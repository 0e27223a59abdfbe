"""What a measuring process is pinned to, and what the results were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.row import total_memory

PACKAGES = (
    "torch",
    "numpy",
    "numba",
    "torch-scatter",
    "torch-sparse",
    "torch-geometric",
)


def pinned(threads: int) -> dict[str, str]:
    """Environment variables, read once by each library as it is imported.

    The allocator keeps what is freed: page faults of fresh outputs would decide the ratios.
    Threads wait without spinning, since two pools that do stop each other on a small machine.
    """
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    variables = dict.fromkeys(pools, str(threads)) | {
        "MALLOC_MMAP_THRESHOLD_": "1073741824",
        "MALLOC_TRIM_THRESHOLD_": "4294967296",
        # The first call's seconds are a compilation's, not a cache's.
        "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
        # Peers decorate with a deprecated TorchScript.
        "PYTHONWARNINGS": "ignore",
    }
    if threads > 1:
        variables["OMP_WAIT_POLICY"] = "passive"
    return variables


def environment() -> dict[str, str]:
    """The machine, the versions, the commit."""
    found = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "memory": f"{total_memory() / 2**30:.0f} GiB",
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def _commit() -> str:
    def git(*arguments: str) -> str:
        folder = Path(__file__).parent
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = " with changes" if git("status", "--porcelain", "--untracked-files=no") else ""
        return git("rev-parse", "HEAD") + changed
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")
