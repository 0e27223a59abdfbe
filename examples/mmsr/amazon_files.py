"""The files of the Amazon product data of 2014, as they are distributed.

    ratings_CATEGORY.csv          user,product,rating,time; no header
    reviews_CATEGORY.json.gz      a JSON object a line: reviewerID, asin, overall, unixReviewTime
    reviews_CATEGORY_5.json.gz    the same, of the 5-core alone
    meta_CATEGORY.json.gz         a Python dict a line: asin, title, brand, categories, ...
    image_features_CATEGORY.b     records of a product's id (10 bytes) and 4,096 float32

The ``.json`` files are read packed or unpacked. What cannot be read as its format says is never
dropped in silence: a :class:`Report` counts it by kind, names the first of each kind, and ends the
reading where the share of it in a file passes a limit.
"""

from __future__ import annotations

import ast
import gzip
import json
import re
import warnings
import zlib
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from examples.mmsr.data import DataError

CATEGORIES = {
    "beauty": "Beauty",
    "clothing": "Clothing_Shoes_and_Jewelry",
    "sports": "Sports_and_Outdoors",
    "toys": "Toys_and_Games",
    "kitchen": "Home_and_Kitchen",
    "phone": "Cell_Phones_and_Accessories",
}
"""The paper's names of its categories, in lower case, and the names in the files."""

FILES = {
    "ratings": "ratings_{}.csv",
    "reviews": "reviews_{}.json.gz",
    "reviews_5": "reviews_{}_5.json.gz",
    "metadata": "meta_{}.json.gz",
    "image_features": "image_features_{}.b",
}
"""Kinds of files and their names, with a place for the category."""

IMAGE_WIDTH = 4096
EXAMPLES = 3
LATEST = 2**40
"""Seconds; a time beyond it is none. It also keeps times inside 64 bits."""


def category_name(category: str) -> str:
    """The name of a category in the files, from that name or the paper's.

    Raises:
        DataError: it cannot be part of a file's name.
    """
    if not re.fullmatch(r"[A-Za-z0-9_]+", category):
        raise DataError(
            f"category must be one of {', '.join(CATEGORIES)} or a name as in the files, such as "
            f"{CATEGORIES['toys']}, not {category!r}"
        )
    return CATEGORIES.get(category.lower(), category)


def find_file(folder: str | Path, kind: str, category: str) -> Path | None:
    """The file of a kind of :data:`FILES` in a folder, packed or unpacked; None without one."""
    name = FILES[kind].format(category_name(category))
    for path in (Path(folder, name), Path(folder, name.removesuffix(".gz"))):
        if path.is_file():
            return path
    return None


class Malformed(ValueError):
    """One line or record that is not what its format says.

    Args:
        kind: what is wrong, the same words for all of a kind.
        found: what came instead.
    """

    def __init__(self, kind: str, found: object) -> None:
        text = found if isinstance(found, str) else repr(found)
        self.kind = kind
        self.found = text if len(text) <= 80 else f"{text[:77]}..."
        super().__init__(f"{kind}: {self.found}")


@dataclass
class _Count:
    unit: str = "lines"
    total: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def malformed(self) -> int:
        return sum(self.kinds.values())


@dataclass
class Report:
    """What was read, what of it was malformed, and what else was set aside.

    Args:
        limit: the largest share of a file's lines or records that may be malformed.
        files: by path, what was counted.
        notes: what else there is to know, a sentence each.
    """

    limit: float = 0.001
    files: dict[Path, _Count] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not 0 <= self.limit <= 1:
            raise DataError(f"the limit of malformed lines must be in [0, 1], not {self.limit}")

    def malformed(self, path: Path, where: str, problem: Malformed) -> None:
        """Count a malformed line or record; the first of each kind are kept to be shown."""
        count = self.files.setdefault(path, _Count())
        count.kinds[problem.kind] = count.kinds.get(problem.kind, 0) + 1
        examples = count.examples.setdefault(problem.kind, [])
        if len(examples) < EXAMPLES:
            examples.append(f"{where}: {problem.found}")

    def finish(self, path: Path, total: int, unit: str = "lines") -> None:
        """Say that a file is read.

        Raises:
            DataError: it is empty, or too much of it is malformed.
        """
        count = self.files.setdefault(path, _Count())
        count.total, count.unit = total, unit
        if total == 0:
            raise DataError(f"{path} has no {unit}")
        if count.malformed > self.limit * total:
            raise DataError(
                f"{path}: {count.malformed:,} of {total:,} {unit} are malformed, more than the "
                f"limit of {self.limit:.3%}\n" + "\n".join(self._lines_of(path))
            )

    def count(self, path: Path) -> int:
        """How many lines or records of a file are malformed."""
        return self.files[path].malformed

    def __str__(self) -> str:
        lines: list[str] = []
        for path, count in self.files.items():
            lines.append(f"{path}: {count.total:,} {count.unit}, {count.malformed:,} malformed")
            lines += self._lines_of(path)
        return "\n".join([*lines, *self.notes])

    def _lines_of(self, path: Path) -> Iterator[str]:
        count = self.files[path]
        for kind, number in count.kinds.items():
            yield f"  {kind}: {number:,}"
            yield from (f"    {example}" for example in count.examples[kind])


@dataclass(frozen=True)
class Ratings:
    """Who rated what and when, in the order of the file.

    Args:
        users, items: the different ids, as they first came.
        user, item: ``[ratings]``, whose and of what, as indices of those.
        time: ``[ratings]``, in seconds.
    """

    users: list[str]
    items: list[str]
    user: np.ndarray
    item: np.ndarray
    time: np.ndarray


def read_ratings(path: str | Path, report: Report) -> Ratings:
    """Read ratings from ``ratings_*.csv`` or ``reviews_*.json``, packed or not.

    Raises:
        DataError: the file is missing, empty, cut short or damaged, its name ends differently, or
            too many of its lines are malformed.
    """
    path = Path(path)
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix not in (".csv", ".json"):
        raise DataError(f"{path}: ratings are in .csv or .json files, packed (.gz) or not")
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    user, item, time = array("q"), array("q"), array("q")

    def take(line: str) -> None:
        who, what, when = (_csv_rating if suffix == ".csv" else _json_rating)(line)
        user.append(users.setdefault(who, len(users)))
        item.append(items.setdefault(what, len(items)))
        time.append(when)

    _read_lines(path, report, take)
    arrays = (np.array(values, dtype=np.int64) for values in (user, item, time))
    return Ratings(list(users), list(items), *arrays)


@dataclass(frozen=True)
class Product:
    """What the metadata say of a product; "" or nothing where they do not say it.

    Args:
        title, brand, description: text.
        categories: all names on its paths through the categories, each once.
    """

    title: str = ""
    brand: str = ""
    description: str = ""
    categories: tuple[str, ...] = ()


def read_metadata(path: str | Path, wanted: Collection[str], report: Report) -> dict[str, Product]:
    """Read the metadata of the products wanted; every line is checked all the same.

    A line is a Python dict, taken as a literal and never evaluated, or a JSON object. Of a product
    that is described twice the first line counts.

    Args:
        path: the file, gzipped or not.
        wanted: identifiers of products.
        report: where malformed lines are counted.

    Raises:
        DataError: the file is missing, empty, cut short or damaged, or too many of its lines are
            malformed.
    """
    path = Path(path)
    wanted = frozenset(wanted)
    products: dict[str, Product] = {}
    again = 0

    def take(line: str) -> None:
        nonlocal again
        identifier, product = _product(_literal(line))
        if identifier in products:
            again += 1
        elif identifier in wanted:
            products[identifier] = product

    with warnings.catch_warnings():
        # A backslash that escapes nothing is one in a title, not in a program.
        warnings.simplefilter("ignore", SyntaxWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        _read_lines(path, report, take)
    if again:
        report.notes.append(f"{path}: {again:,} lines repeat a product; the first one counts")
    return products


def read_image_features(
    path: str | Path, items: Sequence[str], report: Report, width: int = IMAGE_WIDTH
) -> np.ndarray:
    """Read the image features of products: float32 ``[items, width]``, NaN for those without.

    Of a product with two records the first counts.

    Args:
        path: the file.
        items: identifiers of products, in the order of the rows.
        report: where malformed records are counted.
        width: of a vector.

    Raises:
        DataError: the file is missing, empty or ends inside a record, or too many of its records
            are malformed.
    """
    path = Path(path)
    record = _check_records(path, width)
    row_of = {item.encode(): row for row, item in enumerate(items)}
    features = np.full((len(items), width), np.nan, dtype=np.float32)
    found = np.zeros(len(items), dtype=bool)
    letter = np.zeros(256, dtype=bool)
    letter[list(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")] = True
    first = again = 0
    with path.open("rb") as file:
        while len(chunk := np.fromfile(file, record, count=1024)):
            letters = chunk["item"]
            named = letter[letters].all(axis=1)
            finite = np.isfinite(chunk["values"]).all(axis=1)
            for at in np.flatnonzero(~(named & finite)).tolist():
                where = f"record {first + at + 1:,} at byte {(first + at) * record.itemsize:,}"
                name = letters[at].tobytes()
                report.malformed(
                    path,
                    where,
                    Malformed("a feature is not a finite number", name.decode())
                    if named[at]
                    else Malformed("a product's id is not 10 digits or capital letters", name),
                )
            for at in np.flatnonzero(named & finite).tolist():
                row = row_of.get(letters[at].tobytes())
                if row is None:
                    continue
                if found[row]:
                    again += 1
                else:
                    features[row], found[row] = chunk["values"][at], True
            first += len(chunk)
    report.finish(path, first, "records")
    if again:
        report.notes.append(f"{path}: {again:,} records repeat a product; the first one counts")
    return features


def check_whole(path: str | Path, name: str | None = None) -> None:
    """Read a packed file to its end, or compare an image file's size with that of its records.

    Args:
        path: the file.
        name: whose ending says what it is; the file's own unless given.

    Raises:
        DataError: the file is cut short or damaged.
    """
    path = Path(path)
    suffix = Path(name or path.name).suffix
    if suffix == ".gz":
        for _ in _lines(path, packed=True):
            pass
    elif suffix == ".b":
        _check_records(path, IMAGE_WIDTH)


def _check_records(path: Path, width: int) -> np.dtype:
    record = np.dtype([("item", "u1", 10), ("values", "<f4", width)])
    _check_there(path)
    whole, rest = divmod(path.stat().st_size, record.itemsize)
    if rest:
        raise DataError(
            f"{path} is cut short: record {whole + 1:,}, at byte {whole * record.itemsize:,}, has "
            f"{rest:,} bytes, but a record has {record.itemsize:,}"
        )
    return record


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"{path}: no such file")


def _lines(path: Path, packed: bool) -> Iterator[bytes]:
    """The lines of a file."""
    _check_there(path)
    number = unpacked = 0
    with path.open("rb") as raw:
        file = gzip.GzipFile(fileobj=raw) if packed else raw
        try:
            for line in file:
                number += 1
                unpacked += len(line)
                yield line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(
                f"{path} is cut short or damaged: of its {path.stat().st_size:,} bytes, those up "
                f"to byte {raw.tell():,} were read, and unpacked to {number:,} lines, {unpacked:,} "
                f"bytes ({error})"
            ) from error


def _read_lines(path: Path, report: Report, take: Callable[[str], None]) -> None:
    number, line = 0, b"\n"
    lines = _lines(path, path.suffix == ".gz")
    # A bar only where there is a terminal: the metadata of a large category take minutes.
    bar = tqdm(lines, desc=path.name, unit=" lines", disable=None, leave=False)
    for number, line in enumerate(bar, start=1):
        try:
            text = _text(line.rstrip(b"\r\n"))
            # A time that is cut off is a time still. Half an object or a dict is none, and a packed
            # file says itself where it ends.
            if path.suffix == ".csv" and not line.endswith(b"\n"):
                raise Malformed("no newline ends the last line; it may be cut off", text)
            take(text)
        except Malformed as problem:
            report.malformed(path, f"line {number:,}", problem)
    if path.suffix != ".csv" and not line.endswith(b"\n"):
        report.notes.append(f"{path}: no newline ends line {number:,}, the last; it may be cut off")
    report.finish(path, number)


def _text(line: bytes) -> str:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise Malformed("not UTF-8", line) from error
    if not text or text.isspace():
        raise Malformed("blank", text)
    return text


def _csv_rating(line: str) -> tuple[str, str, int]:
    fields = line.split(",")
    if len(fields) != 4:
        raise Malformed("not 4 fields", line)
    user, item, rating, time = fields
    # Neither float() nor int() alone, which take blanks and underscores too.
    value = float(rating) if re.fullmatch(r"[0-9]+(\.[0-9]*)?", rating) else None
    seconds = int(time) if time.isascii() and time.isdigit() and len(time) < 20 else None
    return _rating(user, item, value, seconds, line)


def _json_rating(line: str) -> tuple[str, str, int]:
    try:
        review = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Malformed("not JSON", f"{line[:40]} ({error})") from error
    if not isinstance(review, dict):
        raise Malformed("not a JSON object", line)
    for name in ("reviewerID", "asin", "overall", "unixReviewTime"):
        if name not in review:
            raise Malformed(f"lacks {name}", line)
    return _rating(
        review["reviewerID"], review["asin"], review["overall"], review["unixReviewTime"], line
    )


def _rating(user: Any, item: Any, rating: Any, time: Any, line: str) -> tuple[str, str, int]:
    _check_identifier(user, "user", line)
    _check_identifier(item, "product", line)
    if isinstance(rating, bool) or not isinstance(rating, int | float) or not 1 <= rating <= 5:
        raise Malformed("the rating is not a number from 1 to 5", line)
    if isinstance(time, bool) or not isinstance(time, int) or not 0 <= time < LATEST:
        raise Malformed("the time is not a number of seconds", line)
    return user, item, time


def _check_identifier(identifier: Any, of: str, line: str) -> None:
    if (
        not isinstance(identifier, str)
        or not identifier
        or not identifier.isascii()
        or not identifier.isprintable()
        or " " in identifier
    ):
        raise Malformed(f"the {of}'s id is not ASCII without blanks", line)


def _literal(line: str) -> dict[str, Any]:
    found: Any = None
    if line.startswith('{"'):  # a dict's repr has its keys in single quotes
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
    if found is None:
        try:
            found = ast.literal_eval(line)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise Malformed("neither a Python literal nor JSON", line) from error
    if not isinstance(found, dict):
        raise Malformed("not a dict", line)
    return found


def _product(fields: dict[str, Any]) -> tuple[str, Product]:
    if "asin" not in fields:
        raise Malformed("lacks asin", fields)
    identifier = fields["asin"]
    _check_identifier(identifier, "product", repr(fields))
    texts: dict[str, str] = {}
    for name in ("title", "brand", "description"):
        value = fields.get(name)
        if value is not None and not isinstance(value, str):
            raise Malformed(f"{name} is not text", f"{identifier}: {value!r}")
        texts[name] = _one_line(value or "")
    paths = fields.get("categories") or []
    if not isinstance(paths, list) or not all(
        isinstance(path, list) and all(isinstance(name, str) for name in path) for path in paths
    ):
        raise Malformed("categories are not lists of names", f"{identifier}: {paths!r}")
    names = dict.fromkeys(_one_line(name) for path in paths for name in path)
    names.pop("", None)
    return identifier, Product(**texts, categories=tuple(names))


def _one_line(text: str) -> str:
    """One line of what UTF-8 can write: JSON and literals can also hold lone surrogates."""
    return " ".join(text.encode(errors="replace").decode().split())
