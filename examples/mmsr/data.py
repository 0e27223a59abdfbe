"""Data folders: histories, features of the items, titles.

A data folder holds

    sequences.npz    items [interactions], 0-based item indices, every user's history after
                     another, oldest first; offsets [users + 1], where each history begins
    <name>.npy       one feature matrix a modality, [items, width]; a row of NaN where the item
                     lacks the modality
    attributes.npz   optional: values, offsets [items + 1], the attributes of every item, with
                     ids from 0 or from 1; a modality of multi-hot features
    attributes.txt   optional, not read: an attribute's name a line
    titles.txt       optional: one title a line; HTML's entities, such as &amp;, are read as text
    items.txt        optional: one original id a line

Other files, such as a second ``sequences_*.npz``, are read when they are asked for by name.
"""

from __future__ import annotations

import hashlib
import html
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy import sparse

ATTRIBUTES = "attributes"


class DataError(ValueError):
    """A data folder, or a data set, that cannot be what it says it is."""


@dataclass(frozen=True)
class Dataset:
    """Histories over a catalogue whose items have modalities.

    Args:
        name: what tables call it.
        items: ``[interactions]``, int64, every user's history after another, oldest first.
        offsets: ``[users + 1]``, int64; user ``u`` has ``items[offsets[u]:offsets[u + 1]]``.
        num_items: the size of the catalogue.
        features: by modality ``[num_items, width]``: float32 with NaN rows where an item lacks
            the modality, or a sparse matrix whose empty rows mean the same.
        titles: one per item, or None.
        item_ids: the items' original ids, or None.
    """

    name: str
    items: np.ndarray
    offsets: np.ndarray
    num_items: int
    features: dict[str, np.ndarray | sparse.csr_array] = field(default_factory=dict)
    titles: list[str] | None = None
    item_ids: list[str] | None = None

    def __post_init__(self) -> None:
        _check_offsets(f"{self.name}: offsets", self.offsets, len(self.items), "items")
        outside = np.flatnonzero((self.items < 0) | (self.items >= self.num_items))
        if len(outside):
            at = outside[0]
            raise DataError(
                f"{self.name}: items must be in [0, {self.num_items}), the catalogue's size, "
                f"but items[{at}] is {self.items[at]}"
            )
        for name, matrix in self.features.items():
            if matrix.shape[0] != self.num_items:
                raise DataError(
                    f"{self.name}: {name} has {matrix.shape[0]} rows, but there are "
                    f"{self.num_items} items"
                )
        for what, lines in (("titles", self.titles), ("item ids", self.item_ids)):
            if lines is not None and len(lines) != self.num_items:
                raise DataError(
                    f"{self.name}: {len(lines)} {what}, but there are {self.num_items} items"
                )

    @property
    def num_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.features)

    def only(self, modalities: Sequence[str]) -> Dataset:
        """The same data set with some of its modalities, in this order."""
        return replace(self, features={name: self.features[name] for name in modalities})

    def has(self, modality: str) -> np.ndarray:
        """Which items have the modality, as booleans ``[num_items]``."""
        matrix = self.features[modality]
        if isinstance(matrix, np.ndarray):
            return ~np.isnan(matrix[:, 0])
        return np.diff(matrix.indptr) > 0

    def name_of(self, item: int) -> str:
        """The item's title, else its original id, else its index."""
        for lines in (self.titles, self.item_ids):
            if lines is not None and lines[item]:
                return lines[item]
        return str(item)


def read(
    folder: str | Path,
    *,
    sequences: str = "sequences.npz",
    modalities: Sequence[str] | None = None,
) -> Dataset:
    """Read a data folder.

    Args:
        folder: the folder described at the top of this module.
        sequences: the file in it that holds the histories.
        modalities: which modalities to read, in this order. None takes every feature matrix, by
            name; attributes then only stand in where there is no feature matrix.

    Raises:
        DataError: a file is missing or unreadable, or its contents do not fit the others'; the
            message names the file, what was expected and what came.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a data folder: no such directory")
    items, offsets = _read_ragged(folder / sequences, "items")
    if len(items) == 0:
        raise DataError(f"{folder / sequences}: there are no interactions")

    if modalities is None:
        modalities = without_attributes(available_modalities(folder))
    features: dict[str, np.ndarray | sparse.csr_array] = {}
    for name in modalities:
        if name in features:
            raise DataError(f"{folder}: modality {name!r} is asked for twice")
        if name == ATTRIBUTES and not (folder / f"{ATTRIBUTES}.npy").exists():
            features[name] = _read_attributes(folder / f"{ATTRIBUTES}.npz")
        else:
            features[name] = _read_features(folder / f"{name}.npy")
    titles = _read_lines(folder / "titles.txt")
    if titles is not None:
        titles = [html.unescape(title) for title in titles]
    item_ids = _read_lines(folder / "items.txt")

    sizes = [matrix.shape[0] for matrix in features.values()]
    sizes += [len(lines) for lines in (item_ids, titles) if lines is not None]
    # The first that is there counts, and Dataset holds the others to it.
    num_items = sizes[0] if sizes else int(items.max()) + 1
    return Dataset(folder.name, items, offsets, num_items, features, titles, item_ids)


def fingerprint(data: Dataset) -> dict[str, str]:
    """SHA-256 of the histories and of each modality's features, whatever width they are kept in."""
    arrays: dict[str, tuple[np.ndarray, ...]] = {"sequences": (data.items, data.offsets)}
    for name, matrix in data.features.items():
        dense = isinstance(matrix, np.ndarray)
        arrays[name] = (matrix,) if dense else (matrix.data, matrix.indices, matrix.indptr)
    digests = {}
    for name, parts in arrays.items():
        digest = hashlib.sha256()
        for part in parts:
            kept = part.astype(np.int64 if np.issubdtype(part.dtype, np.integer) else np.float32)
            digest.update(f"{part.shape}".encode())
            digest.update(np.ascontiguousarray(kept).data)
        digests[name] = digest.hexdigest()
    return digests


def without_attributes(names: Sequence[str]) -> tuple[str, ...]:
    """What is taken without a choice: every feature matrix, attributes only where there is none."""
    return tuple(name for name in names if name != ATTRIBUTES) or tuple(names)


def write(data: Dataset, folder: str | Path) -> None:
    """Write a data set as a folder that :func:`read` takes.

    Raises:
        DataError: a modality has sparse features and is not called ``attributes``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "sequences.npz", items=data.items.astype(np.int32), offsets=data.offsets)
    for name, matrix in data.features.items():
        if isinstance(matrix, np.ndarray):
            np.save(folder / f"{name}.npy", matrix)
        elif name == ATTRIBUTES:
            np.savez(folder / f"{name}.npz", values=matrix.indices, offsets=matrix.indptr)
        else:
            raise DataError(f"sparse features are called {ATTRIBUTES!r} in a folder, not {name!r}")
    for file, lines in (("titles.txt", data.titles), ("items.txt", data.item_ids)):
        if lines is not None:
            (folder / file).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def available_modalities(folder: str | Path) -> list[str]:
    """Every modality that a folder has features for, attributes last."""
    folder = Path(folder)
    names = sorted(path.stem for path in folder.glob("*.npy"))
    if (folder / f"{ATTRIBUTES}.npz").exists() and ATTRIBUTES not in names:
        names.append(ATTRIBUTES)
    return names


def _read_ragged(path: Path, values_name: str) -> tuple[np.ndarray, np.ndarray]:
    """Two integer arrays of an .npz file, the second the offsets of the first."""
    if not path.exists():
        raise DataError(f"{path.parent} lacks {path.name}")
    try:
        with path.open("rb") as file, np.load(file) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is not a readable .npz file: {error}") from error
    for name in (values_name, "offsets"):
        if name not in arrays:
            raise DataError(f"{path} lacks the array {name!r}; it has {sorted(arrays)}")
        array = arrays[name]
        if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
            raise DataError(
                f"{path}: {name} must be integers in one dimension, "
                f"not {array.dtype} of shape {list(array.shape)}"
            )
    values, offsets = (arrays[name].astype(np.int64) for name in (values_name, "offsets"))
    _check_offsets(f"{path}: offsets", offsets, len(values), values_name)
    return values, offsets


def _check_offsets(what: str, offsets: np.ndarray, num_values: int, values_name: str) -> None:
    if len(offsets) < 2 or offsets[0] != 0:
        raise DataError(f"{what} must begin with 0 and have one entry more than there are rows")
    falling = np.flatnonzero(np.diff(offsets) < 0)
    if len(falling):
        at = falling[0]
        raise DataError(
            f"{what} must not fall, but offsets[{at}] is {offsets[at]} "
            f"and offsets[{at + 1}] is {offsets[at + 1]}"
        )
    if offsets[-1] != num_values:
        raise DataError(
            f"{what} must end at the number of {values_name}, {num_values}, not at {offsets[-1]}"
        )


def _read_features(path: Path) -> np.ndarray:
    if not path.exists():
        have = ", ".join(available_modalities(path.parent)) or "none"
        raise DataError(f"{path.parent} lacks {path.name}; the modalities it has: {have}")
    try:
        matrix = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is not a readable .npy file: {error}") from error
    if matrix.ndim != 2 or 0 in matrix.shape or not np.issubdtype(matrix.dtype, np.floating):
        raise DataError(
            f"{path} must be floating point [items, width], "
            f"not {matrix.dtype} of shape {list(matrix.shape)}"
        )
    matrix = matrix.astype(np.float32)
    rows = np.flatnonzero(np.isinf(matrix).any(axis=1))
    if len(rows):
        raise DataError(f"{path} has infinite features, first in row {rows[0]}")
    missing = np.isnan(matrix)
    rows = np.flatnonzero(missing.any(axis=1) & ~missing.all(axis=1))
    if len(rows):
        raise DataError(
            f"{path}: row {rows[0]} is NaN in part; a row of a missing modality is NaN throughout"
        )
    return matrix


def _read_attributes(path: Path) -> sparse.csr_array:
    values, offsets = _read_ragged(path, "values")
    if len(values) == 0:
        raise DataError(f"{path}: no item has an attribute")
    if values.min() < 0:
        at = int(np.argmin(values))
        raise DataError(f"{path}: ids begin at 0 or 1, but values[{at}] is {values[at]}")
    values -= min(1, values.min())  # ids that begin at 1 leave no empty first column
    rows = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    ones = np.ones(len(values), dtype=np.float32)
    matrix = sparse.csr_array((ones, (rows, values)), shape=(len(offsets) - 1, values.max() + 1))
    matrix.sum_duplicates()
    matrix.data[:] = 1.0  # an attribute named twice is still one attribute
    return matrix


def _read_lines(path: Path) -> list[str] | None:
    if not path.exists():
        return None
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}") from error
    # Only a newline ends a line: titles may hold other separators that splitlines would cut at.
    return lines[:-1] if lines[-1] == "" else lines
