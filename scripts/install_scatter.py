"""Install torch-scatter and torch-sparse, building their wheels once per PyTorch and Python.

    python scripts/install_scatter.py constraints.txt

Both are compiled against the installed PyTorch and work with no other, but neither their wheels'
names nor pip's own cache says which one that was. So pip's cache is left out, and the wheels are
kept in a folder that names it, where every clone on the machine finds them:

    ${XDG_CACHE_HOME:-~/.cache}/mmgraph/wheels/torch-<version>/<python>-<platform>/
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import torch

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
PACKAGES = ("torch-scatter", "torch-sparse")


def wheel_folder() -> Path:
    """Where the wheels for this PyTorch and this Python are kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    python = f"{sys.implementation.cache_tag}-{sysconfig.get_platform()}"
    return cache / "mmgraph" / "wheels" / f"torch-{torch.__version__}" / python


def pinned_version(package: str, constraints: Path) -> str:
    """The version that the constraints file pins `package` to."""
    match = re.search(rf"^{package}==(\S+)", constraints.read_text(), re.MULTILINE)
    if match is None:
        raise SystemExit(f"{constraints} has no line '{package}==VERSION'")
    return match[1]


def build(package: str, version: str, folder: Path) -> Path:
    """Build one wheel beside its final place, then move it there in one step."""
    print(
        f"Building {package} {version} for PyTorch {torch.__version__}: "
        f"this takes minutes, once. It will be kept in {folder}",
        flush=True,
    )
    # Each compiler process takes about 1 GB: more than eight at once may not fit in memory.
    jobs = os.environ.get("MAX_JOBS") or str(min(os.cpu_count() or 1, 8))
    with tempfile.TemporaryDirectory(prefix=".building-", dir=folder) as scratch:
        subprocess.run(
            [
                *PIP,
                *("wheel", "--no-deps", "--no-build-isolation", "--no-cache-dir"),
                *("--no-binary", package, "--wheel-dir", scratch, f"{package}=={version}"),
            ],
            check=True,
            # The environment's ninja compiles in parallel; without one, files are built one by one.
            env=os.environ
            | {"MAX_JOBS": jobs, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        )
        (wheel,) = Path(scratch).glob("*.whl")
        return wheel.replace(folder / wheel.name)


def main() -> None:
    constraints = Path(sys.argv[1])
    folder = wheel_folder()
    folder.mkdir(parents=True, exist_ok=True)
    wheels = []
    # Of two clones that are set up at once, the second waits and takes the first one's wheels.
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in folder.glob(".building-*"):  # of a build that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        for package in PACKAGES:
            version = pinned_version(package, constraints)
            built = sorted(folder.glob(f"{package.replace('-', '_')}-{version}-*.whl"))
            wheels.append(built[0] if built else build(package, version, folder))

    # Reinstalled even where the version is there already: it may be of another PyTorch.
    subprocess.run(
        [*PIP, "install", "--no-deps", "--no-index", "--force-reinstall", *map(str, wheels)],
        check=True,
    )
    imported = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "import torch_scatter, torch_sparse"], check=False
    )
    if imported.returncode != 0:
        raise SystemExit(f"The wheels in {folder} do not load: remove that folder and try again.")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{error}; see the messages above") from None
