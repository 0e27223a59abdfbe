"""The wheel: what it holds, that it runs away from the repository, what its metadata says."""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import mmgraph

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir"]


def run(*command: str, cwd: Path, **environment: str) -> str:
    result = subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(folder))
    run(*PIP, "wheel", *options, str(ROOT), cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_holds_the_library_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith("/LICENSE")]
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mmgraph").rglob("*.py")}
    assert names == sources | {"mmgraph/py.typed"}
    assert len(licences) == 1


def test_wheel_imports_away_from_the_repository(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    options = ("--no-deps", "--no-index", "--no-compile", "--target", str(site))
    run(*PIP, "install", *options, str(wheel), cwd=tmp_path)
    script = (
        "import importlib, pkgutil, mmgraph\n"
        "for module in pkgutil.walk_packages(mmgraph.__path__, 'mmgraph.'):\n"
        "    importlib.import_module(module.name)\n"
        "print(mmgraph.__file__, mmgraph.__version__)\n"
    )
    output = run(sys.executable, "-c", script, cwd=tmp_path, PYTHONPATH=str(site))
    file, version = output.split()
    assert Path(file) == site / "mmgraph" / "__init__.py"
    assert version == wheel.name.split("-")[1]


def test_version_is_the_installed_one() -> None:
    assert importlib.metadata.version("mmgraph") == mmgraph.__version__


def test_requirements_are_few() -> None:
    names = {Requirement(line).name for line in PROJECT["dependencies"]}
    assert names == {"torch", "numpy", "numba"}


@pytest.mark.parametrize("version", ["2.11.0", "2.13.0", "2.13.0+cpu"])
def test_torch_range(version: str) -> None:
    (torch,) = (
        requirement
        for requirement in map(Requirement, PROJECT["dependencies"])
        if requirement.name == "torch"
    )
    assert torch.specifier.contains(version)


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_extra_is_in_the_metadata(extra: str) -> None:
    requirements = map(Requirement, importlib.metadata.requires("mmgraph") or [])
    found = {
        requirement.name
        for requirement in requirements
        if requirement.marker and f'extra == "{extra}"' in str(requirement.marker)
    }
    assert found == {Requirement(line).name for line in EXTRAS[extra]}


def test_every_requirement_is_pinned_within_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert pins["torch"] == "2.13.0"
    for line in itertools.chain(PROJECT["dependencies"], *EXTRAS.values()):
        requirement = Requirement(line)
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(Version(version)), f"{line} is pinned to {version}"
