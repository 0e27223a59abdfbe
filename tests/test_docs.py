"""Every public name has its entry in the API reference."""

from __future__ import annotations

import importlib
import re
import types
from pathlib import Path

import pytest

API = Path(__file__).parents[1] / "docs" / "api"


def documented_objects() -> list[object]:
    objects = []
    for page in API.glob("*.rst"):
        module = ""
        for directive, name in re.findall(r"^\.\. (\w+):: (\S+)$", page.read_text(), re.MULTILINE):
            if directive == "currentmodule":
                module = name
            elif directive in {"autoclass", "autofunction", "autoexception"}:
                objects.append(getattr(importlib.import_module(module), name))
    return objects


@pytest.mark.parametrize("module", ["mmgraph", "mmgraph.nn", "mmgraph.kernels", "mmgraph.plot"])
def test_public_names_are_documented(module: str) -> None:
    public = importlib.import_module(module)
    documented = documented_objects()
    missing = [
        name
        for name in public.__all__
        if not isinstance(getattr(public, name), types.ModuleType)
        and not any(getattr(public, name) is known for known in documented)
    ]
    assert missing == []
