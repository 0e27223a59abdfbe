"""Raw files to a data folder, on small files of the distributed formats; nothing is fetched but
from a server that the tests start themselves."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import json
import socket
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import auto_cli

import mmgraph
from examples.mmsr import encoders
from examples.mmsr.amazon import PUBLISHED, histories, k_core, prepare
from examples.mmsr.amazon_download import download, read_checksums
from examples.mmsr.amazon_files import (
    CATEGORIES,
    IMAGE_WIDTH,
    Malformed,
    Product,
    Ratings,
    Report,
    check_whole,
    read_image_features,
    read_metadata,
    read_ratings,
)
from examples.mmsr.data import DataError, read
from examples.mmsr.encoders import HashedText, attribute_features, encode, find_encoder

DAY = 86_400
ASINS = [f"B00000000{digit}" for digit in "7351"]  # not in order
TITLES = {
    ASINS[0]: "Red wooden train &amp; rails",
    ASINS[1]: "Blue wooden\nboat",
    ASINS[2]: "Paper kite",
}


def csv_of(rows: list[tuple[str, str, int]]) -> str:
    return "".join(f"{user},{item},5.0,{day * DAY}\n" for user, item, day in rows)


def small() -> list[tuple[str, str, int]]:
    """Two users who rated four products each, a third with one rating, and a repeated rating."""
    rows = [("U2", asin, day) for asin, day in zip(ASINS, (3, 1, 1, 2), strict=True)]
    rows += [("U1", asin, 9) for asin in ASINS]
    return [*rows, ("U3", ASINS[0], 4), ("U2", ASINS[1], 8)]


def metadata() -> list[dict[str, object]]:
    return [
        {
            "asin": ASINS[0],
            "title": TITLES[ASINS[0]],
            "brand": "Brio",
            "categories": [["Toys", "Trains"], ["Toys", "Wood"]],
            "price": 3.5,
            "imUrl": "http://127.0.0.1/a.jpg",
        },
        {"asin": ASINS[1], "title": TITLES[ASINS[1]], "categories": [["Toys", "Wood"]]},
        {"asin": "B0000OTHER", "title": "not among the items"},
        {"asin": ASINS[2], "title": TITLES[ASINS[2]], "related": {"also_bought": [ASINS[0]]}},
    ]


def image_file(path: Path, asins: list[str], width: int = IMAGE_WIDTH) -> Path:
    rng = np.random.default_rng(0)
    path.write_bytes(
        b"".join(asin.encode() + rng.normal(size=width).astype("<f4").tobytes() for asin in asins)
    )
    return path


def packed(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    return path


def literals(rows: list[dict[str, object]]) -> str:
    return "".join(f"{row!r}\n" for row in rows)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder of raw files of Toys."""
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "ratings_Toys_and_Games.csv").write_text(csv_of(small()))
    packed(folder / "meta_Toys_and_Games.json.gz", literals(metadata()))
    image_file(folder / "image_features_Toys_and_Games.b", [ASINS[3], "B0000OTHER", ASINS[0]])
    return folder


@pytest.fixture
def make(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Run the command with small sizes; gives the data folder and what was printed."""

    def run(name: str = "toys", **options: object) -> tuple[Path, str]:
        settings: dict[str, object] = {"core": 2, "cache": str(tmp_path / "cache"), **options}
        prepare("toys", str(raw), str(tmp_path / name), **settings)
        return tmp_path / name, capsys.readouterr().out

    return run


def fails(call, *arguments: object, **options: object) -> str:
    with pytest.raises(DataError) as error:
        call(*arguments, **options)
    return str(error.value)


# From raw files to a data folder.


def test_a_data_folder_of_raw_files(make, raw):
    folder, printed = make()
    data = read(folder, modalities=["image", "text", "attributes"])
    in_order = sorted(ASINS)
    assert data.item_ids == in_order
    assert data.offsets.tolist() == [0, 4, 8]  # U1, U2
    assert [data.item_ids[item] for item in data.items[:4]] == in_order  # of one day: by id
    assert [data.item_ids[item] for item in data.items[4:]] == [
        *sorted([ASINS[1], ASINS[2]]),
        ASINS[3],
        ASINS[0],
    ]
    assert data.titles == ["", "Blue wooden boat", "Paper kite", "Red wooden train & rails"]
    assert data.has("image").tolist() == [asin in (ASINS[0], ASINS[3]) for asin in in_order]
    assert data.has("text").tolist() == [asin in TITLES for asin in in_order]
    assert data.has("attributes").tolist() == [asin in ASINS[:2] for asin in in_order]
    for name in ("image", "text"):
        assert np.load(folder / f"{name}.npy").dtype == np.float16
    stored = np.fromfile(raw / "image_features_Toys_and_Games.b", "<f4", IMAGE_WIDTH, offset=10)
    np.testing.assert_array_equal(data.features["image"][0], stored.astype(np.float16))
    names = (folder / "attributes.txt").read_text().splitlines()
    assert names == ["brand: Brio", "category: Toys", "category: Trains", "category: Wood"]
    np.testing.assert_array_equal(
        data.features["attributes"].toarray(), [[0] * 4, [0, 1, 0, 1], [0] * 4, [1] * 4]
    )
    for words in (
        "ratings_Toys_and_Games.csv: 10 lines, 0 malformed",
        "1 ratings repeat",
        "2-core: 2 users, 4 items, 8 interactions",
        "1 of 4 items have no metadata",
        "image: 4,096 features by image_features; 2 items have none",
        "text: 3 features by hashed; 1 items have none",
        "attributes: 4; 2 items have none",
    ):
        assert words in printed


def test_codes_can_be_made_of_it(make):
    data = read(make()[0])
    for modality, features in data.features.items():
        codes, _ = mmgraph.ModalityCodebook(2).fit_transform(features)
        assert (codes[:, 0] >= 0).tolist() == data.has(modality).tolist()


def test_what_is_left_out(make, raw):
    folder, _ = make("bare", image=None, text=None, attributes=False)
    assert sorted(path.name for path in folder.iterdir()) == [
        "items.txt",
        "sequences.npz",
        "titles.txt",
    ]
    (raw / "meta_Toys_and_Games.json.gz").unlink()
    folder, _ = make("barer", image=None, text=None, attributes=False)
    assert not (folder / "titles.txt").exists()
    folder, _ = make("image only", text=None, attributes=False)
    assert read(folder).modalities == ("image",)


def test_reviews_and_unpacked_files_give_the_same(make, raw):
    folder, _ = make("of ratings")
    expected = read(folder)
    rows = [
        {
            "reviewerID": user,
            "asin": item,
            "overall": 5.0,
            "unixReviewTime": day * DAY,
            "reviewText": 'So "good" – 好',
        }
        for user, item, day in reversed(small())
    ]
    (raw / "ratings_Toys_and_Games.csv").unlink()
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    reviews = packed(raw / "reviews_Toys_and_Games.json.gz", text)
    (raw / "meta_Toys_and_Games.json.gz").unlink()
    (raw / "meta_Toys_and_Games.json").write_text(
        "".join(f"{json.dumps(row)}\n" for row in metadata())
    )
    for name in ("packed", "unpacked", "5", "named"):
        if name == "unpacked":
            (raw / "reviews_Toys_and_Games.json").write_text(text)
            reviews.unlink()
        if name == "5":
            packed(raw / "reviews_Toys_and_Games_5.json.gz", text)
            (raw / "reviews_Toys_and_Games.json").unlink()
        named = str(raw / "reviews_Toys_and_Games_5.json.gz") if name == "named" else None
        folder, _ = make(name, ratings=named)
        found = read(folder)
        np.testing.assert_array_equal(found.items, expected.items)
        np.testing.assert_array_equal(found.offsets, expected.offsets)
        assert (found.item_ids, found.titles) == (expected.item_ids, expected.titles)
        np.testing.assert_array_equal(found.features["text"], expected.features["text"])


def test_nothing_is_overwritten_or_left_half_made(make, tmp_path, monkeypatch):
    make()
    with pytest.raises(DataError, match="exists already"):
        make()
    (tmp_path / "empty").mkdir()
    assert read(make("empty")[0]).num_items == 4

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("examples.mmsr.data.np.save", stop)
    with pytest.raises(KeyboardInterrupt):
        make("stopped")
    assert not [path for path in tmp_path.iterdir() if "stopped" in path.name]


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("ratings_Toys_and_Games.csv", "none of ratings_Toys_and_Games.csv, reviews_Toys"),
        ("meta_Toys_and_Games.json.gz", "lacks meta_Toys_and_Games.json.gz; --text null"),
        ("image_features_Toys_and_Games.b", "--image null does without"),
    ],
)
def test_missing_files(make, raw, missing, words):
    (raw / missing).unlink()
    with pytest.raises(DataError, match=words):
        make()


def test_wrong_arguments(raw, tmp_path, make):
    out = str(tmp_path / "out")
    assert "no such directory" in fails(prepare, "toys", str(tmp_path / "nowhere"), out)
    assert "category must be" in fails(prepare, "../toys", str(raw), out)
    assert "nothing is left of the 5-core" in fails(prepare, "toys", str(raw), out)
    assert "core must be" in fails(prepare, "toys", str(raw), out, core=0)
    assert "[0, 1], not 2" in fails(prepare, "toys", str(raw), out, malformed_limit=2)
    assert ".csv or .json" in fails(prepare, "toys", str(raw), out, ratings="ratings.txt")
    assert "no such file" in fails(prepare, "toys", str(raw), out, ratings="ratings.csv")
    with pytest.raises(DataError, match="text: no item has any"):
        make(text_fields=("description",))
    image_file(raw / "image_features_Toys_and_Games.b", ["B0000OTHER"])
    with pytest.raises(DataError, match="image: no item has any"):
        make()
    assert not Path(out).exists()


def test_the_published_sizes_are_said(raw, tmp_path, capsys, monkeypatch):
    rows = [(f"U{user}", f"B00000000{item}", item) for user in range(5) for item in range(5)]
    (raw / "ratings_Toys_and_Games.csv").write_text(csv_of(rows))
    options = {"image": None, "text": None, "attributes": False}
    prepare("Toys_and_Games", str(raw), str(tmp_path / "one"), **options)
    assert "25 interactions; published: 19,412 users" in capsys.readouterr().out
    monkeypatch.setitem(PUBLISHED, "Toys_and_Games", (5, 5, 25))
    prepare("toys", str(raw), str(tmp_path / "two"), **options)
    assert "25 interactions, as published" in capsys.readouterr().out
    assert set(PUBLISHED) == set(CATEGORIES.values())


def test_the_command_line(raw, tmp_path, capsys):
    auto_cli(
        {"amazon": prepare, "amazon_download": download},
        args=[
            *("amazon", "toys", str(raw), str(tmp_path / "out"), "--core=2", "--image=null"),
            *("--text_fields=[title, brand]", f"--cache={tmp_path / 'cache'}"),
        ],
    )
    assert read(tmp_path / "out").modalities == ("text",)


# The k-core and the order.


RATINGS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=60
)


def literal(rows: list[tuple[str, str, int]], k: int) -> dict[str, list[str]]:
    """Histories by user, one user or item out of the k-core taken out at a time."""
    first: dict[tuple[str, str], int] = {}
    for user, item, time in rows:
        first[user, item] = min(time, first.get((user, item), time))
    while True:
        users = Counter(user for user, _ in first)
        items = Counter(item for _, item in first)
        out = [pair for pair in first if users[pair[0]] < k or items[pair[1]] < k]
        if not out:
            break
        del first[out[0]]
    return {
        user: [item for _, item in sorted((t, i) for (u, i), t in first.items() if u == user)]
        for user in sorted({user for user, _ in first})
    }


@given(RATINGS, st.integers(1, 4), st.randoms(use_true_random=False))
def test_histories_are_the_literal_ones_in_any_order_of_lines(numbers, k, random):
    rows = [(f"U{user}", f"B{item}", time) for user, item, time in numbers]
    expected = literal(rows, k)
    random.shuffle(rows)
    users = list(dict.fromkeys(row[0] for row in rows))
    items = list(dict.fromkeys(row[1] for row in rows))
    ratings = Ratings(
        users,
        items,
        np.array([users.index(row[0]) for row in rows]),
        np.array([items.index(row[1]) for row in rows]),
        np.array([row[2] for row in rows]),
    )
    report = Report()
    if not expected:
        assert "nothing is left" in fails(histories, ratings, k, report)
        return
    values, offsets, ids = histories(ratings, k, report)
    found = [[ids[item] for item in values[begin:end]] for begin, end in pairwise(offsets)]
    assert found == list(expected.values())
    assert ids == sorted({item for history in expected.values() for item in history})
    repeated = len(rows) - len({row[:2] for row in rows})
    assert [note.split()[0] for note in report.notes] == [str(repeated)] * (repeated > 0)


def test_a_core_that_falls_apart_slowly():
    # A path: only its ends have too few, one after another.
    user = np.repeat(np.arange(300), 2)
    item = np.arange(1, 601) // 2
    assert len(k_core(user, item, 1)) == 600
    assert len(k_core(user, item, 2)) == 0


# Malformed lines.


GOOD = "U1,B000000001,5.0,86400"
BAD_CSV = {
    "U1,B000000001,5.0": "not 4 fields",
    "U1,B000000001,5.0,1,2": "not 4 fields",
    "U1,B000000001,five,86400": "the rating is not a number from 1 to 5",
    "U1,B000000001,0.0,86400": "the rating is not a number from 1 to 5",
    "U1,B000000001,nan,86400": "the rating is not a number from 1 to 5",
    "U1,B000000001,5.0,yesterday": "the time is not a number of seconds",
    "U1,B000000001,5.0,-1": "the time is not a number of seconds",
    "U1,B000000001,5.0,1_0": "the time is not a number of seconds",
    f"U1,B000000001,5.0,{10**18}": "the time is not a number of seconds",
    f"U1,B000000001,5.0,{'9' * 5000}": "the time is not a number of seconds",
    ",B000000001,5.0,86400": "the user's id is not ASCII without blanks",
    "U1,B00 000001,5.0,86400": "the product's id is not ASCII without blanks",
    "": "blank",
    "  ": "blank",
    b"U1,B\xff,5.0,86400": "not UTF-8",
}
REVIEW = {"reviewerID": "U1", "asin": "B000000001", "overall": 5.0, "unixReviewTime": DAY}
BAD_REVIEW = {
    "{'reviewerID': 'U1'}": "not JSON",
    json.dumps(REVIEW)[:-5]: "not JSON",
    "[" * 100_000: "not JSON",
    "[1, 2]": "not a JSON object",
    **{
        json.dumps({key: value for key, value in REVIEW.items() if key != name}): f"lacks {name}"
        for name in REVIEW
    },
    json.dumps(REVIEW | {"asin": 3}): "the product's id is not ASCII without blanks",
    json.dumps(REVIEW | {"overall": "5"}): "the rating is not a number from 1 to 5",
    json.dumps(REVIEW | {"overall": True}): "the rating is not a number from 1 to 5",
    json.dumps(REVIEW | {"unixReviewTime": "1"}): "the time is not a number of seconds",
    json.dumps(REVIEW | {"unixReviewTime": True}): "the time is not a number of seconds",
    json.dumps(REVIEW | {"unixReviewTime": 1.5}): "the time is not a number of seconds",
}
BAD_METADATA = {
    "{'asin': 'B000000002'": "neither a Python literal nor JSON",
    "{'asin': print('evaluated')}": "neither a Python literal nor JSON",
    "__import__('os').getcwd()": "neither a Python literal nor JSON",
    '{"asin": "B000000002", "title": ': "neither a Python literal nor JSON",
    "{[]: 1}": "neither a Python literal nor JSON",
    "(" * 10_000: "neither a Python literal nor JSON",
    "['asin']": "not a dict",
    "{'title': 'no id'}": "lacks asin",
    "{'asin': 2}": "the product's id is not ASCII without blanks",
    "{'asin': 'B000000002', 'title': ['a']}": "title is not text",
    "{'asin': 'B000000002', 'brand': 7}": "brand is not text",
    "{'asin': 'B000000002', 'description': {}}": "description is not text",
    "{'asin': 'B000000002', 'categories': ['Toys']}": "categories are not lists of names",
    "{'asin': 'B000000002', 'categories': [[1]]}": "categories are not lists of names",
    b"{'asin': 'B000000002', 'title': '\xff'}": "not UTF-8",
    "": "blank",
}
CASES = [
    ("ratings_x.csv", GOOD, BAD_CSV, read_ratings),
    ("reviews_x.json.gz", json.dumps(REVIEW), BAD_REVIEW, read_ratings),
    (
        "meta_x.json.gz",
        "{'asin': 'B000000001'}",
        BAD_METADATA,
        lambda path, report: read_metadata(path, ["B000000001", "B000000002"], report),
    ),
]


def lines_file(path: Path, lines: list[str | bytes]) -> Path:
    content = b"".join(
        (line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines
    )
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize(
    ("name", "good", "bad", "kind", "reader"),
    [
        pytest.param(name, good, bad, kind, reader, id=f"{name}-{number}")
        for name, good, kinds, reader in CASES
        for number, (bad, kind) in enumerate(kinds.items())
    ],
)
def test_every_malformed_line_is_named_and_counted(tmp_path, name, good, bad, kind, reader):
    path = lines_file(tmp_path / name, [good, bad, good, bad])
    report = Report(limit=0.5)
    found = reader(path, report)
    text = str(report)
    assert f"{path}: 4 lines, 2 malformed\n  {kind}: 2\n    line 2: " in text
    assert "\n    line 4: " in text
    assert report.count(path) == 2
    assert len(found.user if isinstance(found, Ratings) else found) in (1, 2)
    assert max(map(len, text.splitlines())) < 250
    message = fails(reader, path, Report(limit=0.49))
    assert message.startswith(f"{path}: 2 of 4 lines are malformed, more than the limit of 49.000%")
    assert f"{kind}: 2\n    line 2: " in message


def test_only_the_first_examples_are_kept_and_the_command_prints_them(make, raw):
    path = raw / "ratings_Toys_and_Games.csv"
    path.write_text("user,item,rating,timestamp\n" + "x\n" * 5 + csv_of(small()))
    with pytest.raises(DataError, match=r"6 of 16 lines are malformed, more than .* 0\.100%"):
        make()
    _, printed = make(malformed_limit=0.5)
    assert "16 lines, 6 malformed" in printed
    assert "not 4 fields: 5\n    line 2: x\n    line 3: x\n    line 4: x\n" in printed
    assert "line 1: user,item,rating,timestamp" in printed


def test_a_last_line_without_newline_is_read_and_mentioned(tmp_path):
    path = packed(tmp_path / "ratings_x.csv.gz", f"{GOOD}\r\n{GOOD}")
    report = Report()
    assert len(read_ratings(path, report).user) == 2
    assert "no newline ends line 2, the last; it may be cut off" in str(report)


def test_metadata_as_it_comes(tmp_path):
    path = lines_file(
        tmp_path / "meta_x.json",
        [
            r"""{'asin': 'A', 'title': "Tom's \d \ud800 cup", 'brand': ''}""",
            "{'asin': 'A', 'title': 'again'}",
            """{"asin": 'B', 'title': u'pan', 'categories': [['Toys', ''], ['Toys', 'Pans']]}""",
            '{"asin": "C", "title": null, "price": 1e400}',
        ],
    )
    report = Report()
    found = read_metadata(path, "ABC", report)
    assert report.count(path) == 0
    assert found["A"].title == r"Tom's \d ? cup"
    assert (found["B"].title, found["B"].categories) == ("pan", ("Toys", "Pans"))
    assert found["C"].title == ""
    assert "1 lines repeat a product" in str(report)


# Cut files.


@pytest.mark.parametrize("cut", [5, 60, -4])
def test_a_gzip_file_that_is_cut_short(tmp_path, cut):
    rng = np.random.default_rng(0)
    lines = [f"U{rng.integers(10**9)},B000000001,5.0,{rng.integers(10**9)}" for _ in range(5000)]
    path = tmp_path / "ratings_x.csv.gz"
    path.write_bytes(lines_file(tmp_path / "whole.gz", lines).read_bytes()[:cut])
    for call in (lambda: read_ratings(path, Report()), lambda: check_whole(path)):
        message = fails(call)
        assert message.startswith(f"{path} is cut short or damaged: of its")
        assert f"those up to byte {path.stat().st_size:,} were read" in message


def test_damaged_gzip_files(tmp_path):
    path = packed(tmp_path / "meta_x.json.gz", "{'asin': 'A'}\n" * 50)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # of the checksum
    path.write_bytes(bytes(content))
    assert "CRC" in fails(read_metadata, path, "A", Report())
    path.write_text("{'asin': 'A'}\n")
    assert "Not a gzipped file" in fails(read_metadata, path, "A", Report())
    path.write_bytes(gzip.compress(b""))
    assert "has no lines" in fails(read_metadata, path, "A", Report())


def test_image_features(tmp_path):
    path = image_file(tmp_path / "x.b", ["B000000001", "B000000002", "B000000001"], width=3)
    report = Report()
    features = read_image_features(path, ["B000000002", "B00000000X", "B000000001"], report, 3)
    stored = np.fromfile(path, [("id", "S10"), ("values", "<f4", 3)])["values"]
    np.testing.assert_array_equal(features[[0, 2]], stored[[1, 0]])
    assert np.isnan(features[1]).all()
    assert "1 records repeat a product" in str(report)

    content = path.read_bytes()
    path.write_bytes(content[:-1])
    message = fails(read_image_features, path, ["B000000001"], Report(), 3)
    assert "record 3, at byte 44, has 21 bytes, but a record has 22" in message
    path.write_bytes(b"")
    assert "has no records" in fails(read_image_features, path, ["B000000001"], Report(), 3)
    assert "no such file" in fails(read_image_features, tmp_path / "y.b", [], Report(), 3)

    infinite = content[:32] + np.float32(np.inf).tobytes() + content[36:]
    path.write_bytes(infinite + b"b\xff0000000" + content[9:22])
    report = Report(limit=0.5)
    features = read_image_features(path, ["B000000002"], report, 3)
    assert np.isnan(features).all()
    assert "4 records, 2 malformed" in str(report)
    assert "a feature is not a finite number: 1\n    record 2 at byte 22: B000000002" in str(report)
    assert "10 digits or capital letters: 1\n    record 4 at byte 66: b'b\\xff" in str(report)
    assert "2 of 4 records" in fails(read_image_features, path, ["B000000002"], Report(), 3)
    image_file(path, ["B000000001"], width=3)
    assert "is cut short" in fails(check_whole, path)


def test_malformed_says_what():
    assert str(Malformed("blank", "x" * 100)) == f"blank: {'x' * 77}..."


# Encoders and their cache.


class Counting:
    """An encoder of strings or files that counts its calls."""

    name = "counting/one"

    def __init__(self, fingerprint: str = "1") -> None:
        self.fingerprint, self.calls = fingerprint, 0

    def __call__(self, inputs: list[str | Path]) -> np.ndarray:
        self.calls += 1
        contents = [i.read_bytes() if isinstance(i, Path) else i.encode() for i in inputs]
        return np.array([[len(content), content[0]] for content in contents], dtype=np.float64)


def test_features_are_computed_once_and_never_taken_for_others(tmp_path):
    encoder = Counting()
    first = encode(encoder, ["a", "bc"], tmp_path / "cache")
    again = encode(encoder, ["a", "bc"], tmp_path / "cache")
    assert encoder.calls == 1
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, again)
    others = (["ab", "c"], ["bc", "a"], ["a", "bc", "d"], ["a"])
    for number, inputs in enumerate(others, start=2):
        features = encode(encoder, inputs, tmp_path / "cache")
        assert encoder.calls == number
        assert features[:, 0].tolist() == [len(text) for text in inputs]
    newer = Counting("2")
    encode(newer, ["a", "bc"], tmp_path / "cache")
    assert newer.calls == 1
    assert len(list((tmp_path / "cache").iterdir())) == 6  # and nothing unfinished
    encode(encoder, ["a", "bc"], None)
    assert encoder.calls == 6


def test_pictures_are_known_by_their_contents(tmp_path):
    encoder = Counting()
    picture = tmp_path / "a.jpg"
    picture.write_bytes(b"one")
    encode(encoder, [picture], tmp_path / "cache")
    picture.write_bytes(b"two!")
    assert encode(encoder, [picture], tmp_path / "cache")[0, 0] == 4
    moved = picture.rename(tmp_path / "b.jpg")
    encode(encoder, [moved], tmp_path / "cache")
    assert encoder.calls == 2
    assert "strings or paths, not int" in fails(encode, encoder, [3], tmp_path / "cache")


def test_the_cache_is_whole_or_not_there(tmp_path, monkeypatch):
    encoder = Counting()
    save = np.save

    def half(file, features) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(encoders.np, "save", half)
    with pytest.raises(KeyboardInterrupt):
        encode(encoder, ["a"], tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    monkeypatch.setattr(encoders.np, "save", save)
    encode(encoder, ["a"], tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(b"damaged")
    assert f"{kept} is not readable; remove it" in fails(encode, encoder, ["a"], tmp_path / "cache")


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (np.zeros(2), r"must give \[2, width\], not shape \[2\]"),
        (np.zeros((3, 4)), r"must give \[2, width\], not shape \[3, 4\]"),
        (np.zeros((2, 0)), r"not shape \[2, 0\]"),
        (np.zeros((2, 3), dtype=int), "floating-point features, not int64"),
        (np.array([[0.0, 1.0], [np.nan, 1.0]]), "row 1 is neither"),
        (np.array([[np.inf, 1.0], [0.0, 1.0]]), "row 0 is neither"),
    ],
)
def test_what_an_encoder_must_give(features, words):
    encoder = Counting()
    encoder.__class__ = type("Fixed", (Counting,), {"__call__": lambda self, inputs: features})
    with pytest.raises(DataError, match=words):
        encode(encoder, ["a", "b"], None)


MODULE = """
import numpy as np

class Lengths:
    name = "lengths"
    fingerprint = "1"

    def __call__(self, inputs):
        return np.array([[len(str(i)), 1.0] for i in inputs])

class Pictures(Lengths):
    name = "pictures"

    def __call__(self, inputs):
        return np.array([[len(path.read_bytes()), SCALE] for path in inputs])

SCALE = 1.0
instance = Lengths()

def make():
    return Lengths()

def needs(argument):
    return Lengths()

def plain(inputs):
    return np.ones((len(inputs), 2))

plain.name, plain.fingerprint = "plain", "1"
number = 3

def nothing():
    return None

class Nameless(Lengths):
    name = ""
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a user's module."""
    (tmp_path / "user_encoders.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "user_encoders", raising=False)
    yield "user_encoders"
    sys.modules.pop("user_encoders", None)


@pytest.mark.parametrize("named", ["Lengths", "instance", "make", "plain"])
def test_encoders_by_name(mine, named):
    encoder = find_encoder(f"{mine}:{named}", {})
    assert encode(encoder, ["a", "b"], None).shape == (2, 2)


def test_no_encoders(mine):
    built_in = {"hashed": HashedText()}
    assert find_encoder("hashed", built_in) is built_in["hashed"]
    assert "one of hashed, or module:callable, not 'clip'" in fails(find_encoder, "clip", built_in)
    assert "No module named 'nowhere'" in fails(find_encoder, "nowhere:x", {})
    assert "has no attribute 'x'" in fails(find_encoder, f"{mine}:x", {})
    assert "cannot be called without arguments" in fails(find_encoder, f"{mine}:needs", {})
    assert "gives a NoneType, which is no encoder" in fails(find_encoder, f"{mine}:nothing", {})
    assert "gives a int" in fails(find_encoder, f"{mine}:number", {})
    assert "its name must be text" in fails(find_encoder, f"{mine}:Nameless", {})


def test_plugged_in_encoders_make_a_data_folder(make, mine, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / f"{ASINS[1]}.jpg").write_bytes(b"12345")
    (pictures / "unrelated.txt").write_text("")
    options = {"text": f"{mine}:Lengths", "image": f"{mine}:Pictures", "pictures": str(pictures)}
    folder, printed = make(**options)
    data = read(folder)
    assert data.has("image").tolist() == [asin == ASINS[1] for asin in sorted(ASINS)]
    assert data.features["image"][1].tolist() == [5.0, 1.0]
    assert data.features["text"][1:, 0].tolist() == [16.0, 10.0, 24.0]
    assert "image: 2 features by pictures; 3 items have none" in printed
    sys.modules[mine].SCALE = np.inf  # were it called again, this would be refused
    make("again", **options)

    sys.modules[mine].SCALE = 1e6
    (pictures / f"{ASINS[1]}.jpg").write_bytes(b"1234")
    with pytest.raises(DataError, match=r"reach 1e\+06, but a data folder's are float16"):
        make("wide", **options)
    sys.modules[mine].SCALE = 0.0
    (pictures / f"{ASINS[1]}.jpg").write_bytes(b"")
    (pictures / f"{ASINS[2]}.jpg").write_bytes(b"1")
    folder, printed = make("zeros", **options)
    assert read(folder).has("image").tolist() == [asin == ASINS[2] for asin in sorted(ASINS)]
    assert "image: 1 rows of zeros count as missing" in printed
    (pictures / f"{ASINS[1]}.png").write_bytes(b"12345")
    with pytest.raises(DataError, match="more than one picture of B000000003"):
        make("twice", **options)
    with pytest.raises(DataError, match="and pictures is None"):
        make("none", **{**options, "pictures": None})


def test_hashed_text_is_the_same_each_time_and_near_for_near_texts():
    texts = ["red train", "red train set", "blue kite", "!", "blue kite string"]
    features = HashedText(width=3)(texts)
    np.testing.assert_array_equal(features, HashedText(width=3)(texts))
    assert features.shape == (5, 3)
    assert np.flatnonzero(np.isnan(features).all(axis=1)).tolist() == [3]
    rows = features[[0, 1, 2, 4]]
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
    assert (rows @ rows.T)[0].argsort().tolist()[-2:] == [1, 0]
    assert HashedText()(["one"]).shape == (1, 1)
    assert HashedText(width=3).fingerprint != HashedText(width=4).fingerprint
    assert "at least 1" in fails(HashedText, width=0)


def test_rare_attributes_can_be_left_out(tmp_path):
    path = lines_file(tmp_path / "meta_x.json", [repr(row) for row in metadata()])
    found = read_metadata(path, ASINS, Report())
    products = [found[asin] for asin in ASINS[:3]]
    matrix, names = attribute_features(products, min_items=2)
    assert names == ["category: Toys", "category: Wood"]
    np.testing.assert_array_equal(matrix.toarray(), [[1, 1], [1, 1], [0, 0]])
    assert attribute_features(products, min_items=9)[1] == []


# The download.


@dataclass
class Shop:
    """What a server has, how it behaves, and what it was asked."""

    files: dict[str, bytes]
    ranges: bool = True
    shift: int = 0  # added to where a range begins
    sizes: bool = True
    tag: str = '"1"'
    stop_after: list[int] = field(default_factory=list)  # bytes sent before the line is cut
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""


class Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, shop: Shop, *arguments: object) -> None:
        self.shop = shop
        super().__init__(*arguments)

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        shop, asked = self.shop, self.headers.get("Range")
        shop.requests.append((self.command, self.path, asked))
        content = shop.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        begin = 0
        if asked and shop.ranges and self.headers.get("If-Range", shop.tag) == shop.tag:
            begin = int(asked.removeprefix("bytes=").removesuffix("-")) + shop.shift
            if begin >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if shop.sizes:
            self.send_header("Content-Length", str(len(content) - begin))
        self.send_header("ETag", shop.tag)
        self.end_headers()
        if body:
            end = len(content)
            if shop.stop_after:
                end = begin + shop.stop_after.pop(0)
            self.wfile.write(content[begin:end])


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("no_proxy", "*")
    content = gzip.compress(literals(metadata()).encode(), mtime=0)
    images = np.zeros(2 * (10 + 4 * IMAGE_WIDTH), dtype=np.uint8).tobytes()
    found = Shop(
        {
            "/categoryFiles/ratings_Toys_and_Games.csv": csv_of(small() * 50).encode(),
            "/categoryFiles/meta_Toys_and_Games.json.gz": content,
            "/image_features/categoryFiles/image_features_Toys_and_Games.b": images,
        }
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, found))
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


RATINGS_URL = "/categoryFiles/ratings_Toys_and_Games.csv"


@pytest.fixture
def fetch(shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Run the command on the shop; gives what was printed."""

    def run(*files: str, **options: object) -> str:
        settings: dict[str, object] = {"base_url": shop.url, "dry_run": False, **options}
        download("toys", str(tmp_path / "raw"), files or ("ratings",), **settings)
        return capsys.readouterr().out

    return run


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_by_default_nothing_is_fetched(shop, tmp_path, capsys):
    shop.files.pop("/categoryFiles/meta_Toys_and_Games.json.gz")
    download("toys", str(tmp_path / "raw"), base_url=f"{shop.url}/")
    printed = capsys.readouterr().out
    size = len(shop.files[RATINGS_URL])
    assert f"ratings_Toys_and_Games.csv: {size:,} bytes\n    {shop.url}{RATINGS_URL}\n" in printed
    assert "meta_Toys_and_Games.json.gz: size unknown (the server answers 404" in printed
    assert "image_features_Toys_and_Games.b: 32,788 bytes" in printed
    assert "nothing was fetched" in printed
    assert {command for command, *_ in shop.requests} == {"HEAD"}
    assert not (tmp_path / "raw").exists()
    shop.sizes = False
    download("toys", str(tmp_path / "raw"), ("ratings",), base_url=shop.url)
    assert "size unknown (the server does not say)" in capsys.readouterr().out


def test_files_are_fetched_verified_and_recorded(shop, fetch, tmp_path):
    printed = fetch("ratings", "metadata", "image_features")
    raw = tmp_path / "raw"
    for url, content in shop.files.items():
        name = url.rsplit("/", 1)[1]
        assert (raw / name).read_bytes() == content
        recorded = read_checksums(raw / f"{name}.sha256")
        assert recorded == {name: hashlib.sha256(content).hexdigest()}
        assert f"now recorded in {name}.sha256" in printed
    assert len(names_in(raw)) == 6
    shop.requests.clear()
    printed = fetch("ratings", "metadata", "image_features")
    assert printed.count("there already, SHA-256 as in") == 3
    assert shop.requests == []
    with (raw / "ratings_Toys_and_Games.csv").open("a") as file:
        file.write("x")
    with pytest.raises(DataError, match=r"its SHA-256 is .*; remove it to fetch it again"):
        fetch()


def test_an_interrupted_transfer_goes_on(shop, fetch, tmp_path):
    shop.stop_after = [1000, 500]
    assert "SHA-256" in fetch()
    asked = [asked for command, _, asked in shop.requests if command == "GET"]
    assert asked == [None, "bytes=1000-", "bytes=1500-"]
    assert (tmp_path / "raw" / "ratings_Toys_and_Games.csv").read_bytes() == shop.files[RATINGS_URL]
    assert len(names_in(tmp_path / "raw")) == 2


def test_a_server_that_stops_giving_and_the_command_again(shop, fetch, tmp_path):
    shop.stop_after = [1000, 0]
    with pytest.raises(DataError, match=r"ended at byte 1,000; the same command goes on"):
        fetch()
    assert names_in(tmp_path / "raw") == [
        "ratings_Toys_and_Games.csv.partial",
        "ratings_Toys_and_Games.csv.partial.json",
    ]
    assert "(the server" not in (printed := fetch(dry_run=True))
    assert "1,000 bytes of it there already" in printed
    shop.requests.clear()
    fetch()
    assert shop.requests[-1][2] == "bytes=1000-"
    assert (tmp_path / "raw" / "ratings_Toys_and_Games.csv").read_bytes() == shop.files[RATINGS_URL]


@pytest.mark.parametrize("change", ["ignores Range", "changed file", "other server", "too long"])
def test_when_a_part_cannot_be_used_the_whole_is_fetched(shop, fetch, tmp_path, change):
    shop.stop_after = [1000, 0]
    with pytest.raises(DataError):
        fetch()
    raw = tmp_path / "raw"
    if change == "ignores Range":
        shop.ranges = False
    elif change == "changed file":
        shop.tag = '"2"'
        shop.files[RATINGS_URL] = csv_of(small() * 60)[::-1].encode()
    elif change == "other server":
        (raw / "ratings_Toys_and_Games.csv.partial.json").write_text('{"url": "http://other/"}')
        (raw / "ratings_Toys_and_Games.csv.partial").write_bytes(b"x" * 1000)
    else:
        (raw / "ratings_Toys_and_Games.csv.partial").write_bytes(b"x" * 10**6)
    fetch()
    assert (raw / "ratings_Toys_and_Games.csv").read_bytes() == shop.files[RATINGS_URL]


def test_a_part_that_is_the_whole(shop, fetch, tmp_path):
    shop.stop_after = [1000, 0]
    with pytest.raises(DataError):
        fetch()
    content = shop.files[RATINGS_URL]
    (tmp_path / "raw" / "ratings_Toys_and_Games.csv.partial").write_bytes(content)
    fetch()
    assert (tmp_path / "raw" / "ratings_Toys_and_Games.csv").read_bytes() == content


def test_checksums_and_broken_files(shop, fetch, tmp_path):
    sums = tmp_path / "SHA256SUMS"
    content = shop.files[RATINGS_URL]
    sums.write_text(f"\n{hashlib.sha256(content).hexdigest()} *ratings_Toys_and_Games.csv\n")
    assert "SHA-256 as in the list of checksums" in fetch(checksums=str(sums))
    raw = tmp_path / "raw"
    (raw / "ratings_Toys_and_Games.csv").unlink()
    sums.write_text(f"{'0' * 64}  ratings_Toys_and_Games.csv\n")
    with pytest.raises(DataError, match="the list of checksums has 0000") as error:
        fetch(checksums=str(sums))
    assert "ratings_Toys_and_Games.csv.rejected" in str(error.value)
    assert names_in(raw) == ["ratings_Toys_and_Games.csv.rejected"]

    path = "/categoryFiles/meta_Toys_and_Games.json.gz"
    shop.files[path] = shop.files[path][:-9]
    with pytest.raises(DataError, match="cut short or damaged"):
        fetch("metadata")
    path = "/image_features/categoryFiles/image_features_Toys_and_Games.b"
    shop.files[path] = shop.files[path][:-9]
    with pytest.raises(DataError, match="record 2, at byte 16,394"):
        fetch("image_features")
    assert all(name.endswith(".rejected") for name in names_in(raw))

    sums.write_text("abc  name\n")
    assert f"{sums}, line 1: expected" in fails(read_checksums, sums)
    assert "not a readable list" in fails(read_checksums, tmp_path / "none")


def test_a_server_that_names_no_size(shop, fetch, tmp_path):
    shop.sizes = False
    assert "the server named no size to compare with" in fetch()
    assert (tmp_path / "raw" / "ratings_Toys_and_Games.csv").read_bytes() == shop.files[RATINGS_URL]


def test_no_server_and_no_file(shop, fetch, tmp_path):
    with pytest.raises(DataError, match="the server answers 404"):
        fetch("reviews")
    with pytest.raises(DataError, match="http:// or https://, not 'file:///etc'"):
        fetch(base_url="file:///etc")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(DataError, match=r"no answer: .*refused"):
        fetch(base_url=nobody)
    assert "size unknown (no answer" in fetch(base_url=nobody, dry_run=True)


def test_a_server_that_answers_with_another_part(shop, fetch):
    shop.stop_after = [1000, 0]
    with pytest.raises(DataError):
        fetch()
    shop.shift = 1
    with pytest.raises(DataError, match=r"follows byte 1,000, but the server answers .*1001-"):
        fetch()


# What is only nearly right.


def test_an_unpacked_csv_that_is_cut_inside_its_last_line(tmp_path):
    path = tmp_path / "ratings_x.csv"
    path.write_text(f"{GOOD}\n{GOOD}\n"[:-3])  # the time is a time still
    report = Report(limit=0.5)
    assert read_ratings(path, report).time.tolist() == [DAY]
    kind = "no newline ends the last line; it may be cut off"
    assert f"2 lines, 1 malformed\n  {kind}: 1\n    line 2: {GOOD[:-2]}" in str(report)
    assert kind in fails(read_ratings, path, Report())
    path.write_text(f"{GOOD}\n{GOOD}"[:-9])  # one line is malformed once
    report = Report(limit=0.5)
    read_ratings(path, report)
    assert report.count(path) == 1


@pytest.mark.parametrize("name", ["reviews_x.json", "reviews_x.json.gz"])
def test_a_review_says_itself_where_it_ends(tmp_path, name):
    content = f"{json.dumps(REVIEW)}\n{json.dumps(REVIEW)}".encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    report = Report()
    assert len(read_ratings(path, report).user) == 2
    assert "no newline ends line 2, the last" in str(report)


@pytest.mark.parametrize("rating", ["0_5", " 5 ", "+5", "5e0", "5.0.0", "", "٥", "9" * 5000])
def test_ratings_that_python_would_take(tmp_path, rating):
    path = lines_file(tmp_path / "ratings_x.csv", [GOOD, f"U1,B000000002,{rating},{DAY}"])
    report = Report(limit=0.5)
    read_ratings(path, report)
    assert "the rating is not a number from 1 to 5: 1\n    line 2: " in str(report)


def test_ratings_in_plain_digits(tmp_path):
    ratings = ["5", "5.0", "1.", "4.50", "05"]
    lines = [f"U1,B00000000{n},{rating},{DAY}" for n, rating in enumerate(ratings)]
    report = Report()
    assert len(read_ratings(lines_file(tmp_path / "ratings_x.csv", lines), report).user) == 5


def test_a_long_attribute_takes_only_its_own_room():
    rng = np.random.default_rng(0)
    products = [
        Product(
            brand=f"brand {rng.integers(300)}" if rng.random() < 0.8 else "",
            categories=tuple(f"c{each}é" for each in rng.integers(40, size=rng.integers(5))),
        )
        for _ in range(2000)
    ]
    products[7] = Product(brand="long" * 1250)
    rows = [
        {f"category: {name}" for name in product.categories}
        | ({f"brand: {product.brand}"} if product.brand else set())
        for product in products
    ]
    counts = Counter(name for row in rows for name in row)
    for least in (1, 3):
        tracemalloc.start()
        try:
            matrix, names = attribute_features(products, least)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 10_000_000  # 5,000 characters for each of 5,000 names would be 100,000,000
        assert names == sorted(name for name, count in counts.items() if count >= least)
        expected = [[name in row for name in names] for row in rows]
        np.testing.assert_array_equal(matrix.toarray(), expected)
        assert matrix.dtype == np.float32
