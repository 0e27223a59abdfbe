"""Models on disk: what a recommender is made of, its weights, and the items' names."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only

from examples.mmsr.data import Dataset, fingerprint
from examples.mmsr.files import writing
from examples.mmsr.model import MMSR

FORMAT = "mmgraph-examples-mmsr"
VERSION = 1


class CheckpointError(ValueError):
    """A file that is not, or no longer, one of this example's checkpoints."""


def contents(model: MMSR, data: Dataset) -> dict[str, Any]:
    """What a file must hold beside the weights, as plain values and tensors."""
    names = None
    if data.titles is not None or data.item_ids is not None:
        names = [data.name_of(item) for item in range(data.num_items)]
    return {
        "format": FORMAT,
        "version": VERSION,
        "recipe": model.recipe(),
        "names": names,
        "fingerprint": fingerprint(data),
    }


def save(path: str | Path, model: MMSR, data: Dataset) -> None:
    """Write a model with the names of the items it recommends; of several processes, the first."""
    if rank_zero_only.rank:
        return
    with writing(Path(path)) as file:
        torch.save({**contents(model, data), "state_dict": model.state_dict()}, file)


def load(path: str | Path) -> tuple[MMSR, list[str] | None]:
    """Read a model that :func:`save` wrote, or one that training wrote on its way.

    Args:
        path: the file.

    Returns:
        The model in evaluation mode, and the items' names where there were any.

    Raises:
        CheckpointError: there is no such file, it is cut short, or it is something else.
    """
    return restored(path, read(path))


def restored(path: str | Path, found: dict[str, Any]) -> tuple[MMSR, list[str] | None]:
    """What :func:`load` returns, of the contents that :func:`read` found at ``path``.

    Raises:
        CheckpointError: it is something else.
    """
    try:
        model = MMSR.from_recipe(found["recipe"])
        prefix = "model."  # of a training checkpoint, whose module holds the model
        state = {name.removeprefix(prefix): value for name, value in found["state_dict"].items()}
        model.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise CheckpointError(f"{path} does not fit this version: {error}") from error
    return model.eval(), found["names"]


def read(path: str | Path) -> dict[str, Any]:
    """The contents of a checkpoint, weights included.

    Raises:
        CheckpointError: as for :func:`load`.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path} is not a checkpoint, or is cut short: it is not a whole zip archive"
        )
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise CheckpointError(f"{path} is a checkpoint of something else, not of this example")
    if found.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has version {found.get('version')}; this example reads version {VERSION}"
        )
    return found
