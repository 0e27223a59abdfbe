"""The README: its example runs as printed, its picture is current, and what it names exists."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# What no required package needs, by the names that are imported.
EXTRAS = (
    *("sklearn", "scipy", "matplotlib", "torch_scatter", "torch_sparse", "torch_geometric"),
    *("lightning", "jsonargparse", "yaml", "tensorboard"),
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_example_runs_as_printed_with_the_required_packages_alone(tmp_path: Path) -> None:
    (example,) = blocks("python")
    assert len(example.splitlines()) == 20
    expected = re.search(r"^print\(.*\)  # (.*)$", example, re.MULTILINE)
    assert expected
    script = tmp_path / "example.py"
    script.write_text(example, encoding="utf-8")
    hide = f"import sys\nsys.modules.update(dict.fromkeys({EXTRAS!r}))\n"
    run = f"import runpy\nrunpy.run_path({str(script)!r})\n"
    command = [sys.executable, "-W", "error", "-c", hide + run]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == expected[1]


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README) + re.findall(r'(?:src|srcset)="([^"]+)"', README)
    assert len(links) > 5
    for link in links:
        file, _, heading = link.partition("#")
        path = ROOT / (file or "README.md")
        assert path.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {title.lower().replace(" ", "-") for title in titles}, link


def test_commands_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    commands = set(re.findall(r"(?:^|`)make (\w+)", README, re.MULTILINE))
    assert commands >= {"demo", "test"}
    targets = set(re.findall(r"^(\w+):.*## ", makefile, re.MULTILINE))
    assert commands <= targets


def test_required_packages_are_each_justified() -> None:
    named = re.findall(r"^- \*\*(\S+)\*\*", section("Requirements"), re.MULTILINE)
    assert named == [Requirement(line).name for line in PROJECT["dependencies"]]


def test_every_extra_is_named() -> None:
    text = section("Requirements")
    assert [extra for extra in PROJECT["optional-dependencies"] if f"`{extra}`" not in text] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_picture_is_what_its_script_draws(theme: str) -> None:
    source = ROOT / "docs" / "overview.py"
    spec = importlib.util.spec_from_file_location("overview", source)
    assert spec is not None
    assert spec.loader is not None
    overview = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(overview)
    committed = (ROOT / "docs" / "_static" / f"overview-{theme}.svg").read_text(encoding="utf-8")
    assert overview.draw(overview.PALETTES[theme]) == committed
