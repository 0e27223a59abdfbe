"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Another name beside a file or folder, under which to write what takes its place at the end.

    Where the writing ends early, what was there before stays, and nothing is left of the new; a
    process that is killed leaves it under the other name. A folder can take the place of an empty
    one at most.

    Args:
        path: the file or folder to be.

    Yields:
        The other name, at which there is nothing.
    """
    # Beside it, since only inside a file system is a file replaced in one step.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    _remove(partial)  # of a killed process that had the same number
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        _remove(partial)
        raise


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that takes the place of another at the end, as by :func:`replacing`.

    It is given open, since to a name NumPy would add an ending, and PyTorch writes it into the
    archive.
    """
    with replacing(path) as partial, partial.open("wb") as file:
        yield file


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
