"""Every public name has its entry in the API reference."""

from __future__ import annotations

import importlib
import inspect
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


def public_names(module: types.ModuleType) -> list[str]:
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if not inspect.ismodule(getattr(module, name))]
    return [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]


@pytest.mark.parametrize("name", ["mmgraph", "mmgraph.nn", "mmgraph.kernels", "mmgraph.plot"])
def test_public_names_are_documented(name: str) -> None:
    module = importlib.import_module(name)
    documented = documented_objects()
    public = public_names(module)
    assert public
    assert [
        name for name in public if not any(getattr(module, name) is known for known in documented)
    ] == []
