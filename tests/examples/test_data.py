from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from examples.mmsr.data import DataError, Dataset, available_modalities, read, write

ITEMS = np.array([0, 1, 2, 2, 3], dtype=np.int32)
OFFSETS = np.array([0, 3, 5])
IMAGE = np.array([[1.0, 2.0], [np.nan, np.nan], [0.5, 0.5], [3.0, 1.0]], dtype=np.float16)


def make(folder: Path, **changes: object) -> Path:
    """A valid folder of four items and two users, with some files replaced or (None) left out."""
    files: dict[str, object] = {
        "sequences.npz": {"items": ITEMS, "offsets": OFFSETS},
        "image.npy": IMAGE,
        "attributes.npz": {"values": np.array([1, 2, 3, 3]), "offsets": np.array([0, 2, 2, 3, 4])},
        "titles.txt": "cup\npan\npot\nlid\n",
        "items.txt": "a\nb\nc\nd\n",
    }
    files.update({name.replace("__", "."): value for name, value in changes.items()})
    for name, value in files.items():
        if isinstance(value, dict):
            np.savez(folder / name, **value)
        elif isinstance(value, str):
            (folder / name).write_text(value, encoding="utf-8")
        elif isinstance(value, bytes):
            (folder / name).write_bytes(value)
        elif value is not None:
            np.save(folder / name, value)
    return folder


def test_reads_everything(tmp_path):
    data = read(make(tmp_path), modalities=["attributes", "image"])
    assert (data.num_users, data.num_items) == (2, 4)
    assert data.items.tolist() == ITEMS.tolist()
    assert data.offsets.tolist() == OFFSETS.tolist()
    assert data.modalities == ("attributes", "image")
    assert data.has("image").tolist() == [True, False, True, True]
    assert data.has("attributes").tolist() == [True, False, True, True]
    assert data.features["image"].dtype == np.float32
    np.testing.assert_array_equal(
        data.features["attributes"].toarray(), [[1, 1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 1]]
    )
    assert data.name_of(2) == "pot"


def test_attributes_stand_in_only_without_feature_matrices(tmp_path):
    assert read(make(tmp_path)).modalities == ("image",)
    assert available_modalities(tmp_path) == ["image", "attributes"]
    (tmp_path / "image.npy").unlink()
    assert read(tmp_path).modalities == ("attributes",)
    (tmp_path / "attributes.npz").unlink()
    bare = read(tmp_path)
    assert (bare.modalities, bare.num_items) == ((), 4)


@pytest.mark.parametrize("first", [0, 1])
def test_attributes_count_from_zero_or_one_and_a_repeated_one_counts_once(tmp_path, first):
    values = np.array([0, 0, 1, 2, 2]) + first
    make(tmp_path, attributes__npz={"values": values, "offsets": np.array([0, 2, 3, 4, 5])})
    matrix = read(tmp_path, modalities=["attributes"]).features["attributes"].toarray()
    np.testing.assert_array_equal(matrix, [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]])


def test_another_file_of_sequences(tmp_path):
    np.savez(tmp_path / "sequences_other_order.npz", items=ITEMS[::-1], offsets=OFFSETS)
    data = read(make(tmp_path), sequences="sequences_other_order.npz")
    assert data.items.tolist() == ITEMS[::-1].tolist()


def test_titles_are_text_not_html(tmp_path):
    data = read(make(tmp_path, titles__txt="cup &amp; saucer\n9&quot; pan\npot\nlid\n"))
    assert data.titles == ["cup & saucer", '9" pan', "pot", "lid"]


def test_titles_may_hold_other_line_separators(tmp_path):
    data = read(make(tmp_path, titles__txt="cup\u2028large\npan\n\nlid\n"))
    assert data.titles == ["cup\u2028large", "pan", "", "lid"]
    assert data.name_of(2) == "c"  # without a title, its id


def test_write_and_read_again(tmp_path):
    data = read(make(tmp_path), modalities=["image", "attributes"])
    write(data, tmp_path / "copy")
    again = read(tmp_path / "copy", modalities=["image", "attributes"])
    np.testing.assert_array_equal(again.items, data.items)
    np.testing.assert_array_equal(again.features["image"], data.features["image"])
    np.testing.assert_array_equal(
        again.features["attributes"].toarray(), data.features["attributes"].toarray()
    )
    assert (again.titles, again.item_ids) == (data.titles, data.item_ids)


NAN = np.nan
BAD = {
    "lacks sequences.npz": {"sequences__npz": None},
    "sequences.npz is not a readable .npz file": {"sequences__npz": b"PK\x03\x04 cut short"},
    "sequences.npz lacks the array 'offsets'": {"sequences__npz": {"items": ITEMS}},
    "items must be integers in one dimension, not float64 of shape": {
        "sequences__npz": {"items": ITEMS * 0.5, "offsets": OFFSETS}
    },
    "offsets must end at the number of items, 5, not at 4": {
        "sequences__npz": {"items": ITEMS, "offsets": np.array([0, 3, 4])}
    },
    r"offsets must not fall, but offsets\[1\] is 6 and offsets\[2\] is 5": {
        "sequences__npz": {"items": ITEMS, "offsets": np.array([0, 6, 5])}
    },
    "offsets must begin with 0": {"sequences__npz": {"items": ITEMS, "offsets": np.array([1, 5])}},
    "there are no interactions": {
        "sequences__npz": {"items": ITEMS[:0], "offsets": np.array([0, 0])}
    },
    r"items must be in \[0, 4\), the catalogue's size, but items\[4\] is 4": {
        "sequences__npz": {"items": np.array([0, 1, 2, 2, 4]), "offsets": OFFSETS}
    },
    r"items\[0\] is -1": {
        "sequences__npz": {"items": np.array([-1, 1, 2, 2, 3]), "offsets": OFFSETS}
    },
    "image.npy is not a readable .npy file": {"image__npy": b"not an array"},
    r"image.npy must be floating point \[items, width\], not int64 of shape \[4, 2\]": {
        "image__npy": np.ones((4, 2), dtype=np.int64)
    },
    r"must be floating point \[items, width\], not float64 of shape \[4\]": {
        "image__npy": np.ones(4)
    },
    "image.npy has infinite features, first in row 2": {
        "image__npy": np.array([[1.0], [NAN], [np.inf], [1.0]])
    },
    "image.npy: row 1 is NaN in part": {
        "image__npy": np.array([[1.0, 1.0], [NAN, 1.0], [1.0, 1.0], [1.0, 1.0]])
    },
    "2 titles, but there are 4 items": {"titles__txt": "cup\npan\n"},
    "5 item ids, but there are 4 items": {"items__txt": "a\nb\nc\nd\ne\n"},
    "titles.txt is not UTF-8": {"titles__txt": b"\xff\xfe\n"},
}


@pytest.mark.parametrize("words", BAD)
def test_errors(tmp_path, words):
    folder = make(tmp_path, **BAD[words])
    with pytest.raises(DataError, match=words):
        read(folder)


BAD_ATTRIBUTES = {
    "attributes has 3 rows, but there are 4 items": ([0, 1, 2], [0, 1, 2, 3]),
    r"offsets must end at the number of values, 3, not at 2": ([0, 1, 2], [0, 1, 1, 1, 2]),
    r"ids begin at 0 or 1, but values\[1\] is -4": ([0, -4, 2], [0, 1, 1, 1, 3]),
    "no item has an attribute": ([], [0, 0, 0, 0, 0]),
}


@pytest.mark.parametrize("words", BAD_ATTRIBUTES)
def test_errors_of_attributes(tmp_path, words):
    values, offsets = BAD_ATTRIBUTES[words]
    arrays = {"values": np.array(values, dtype=np.int64), "offsets": np.array(offsets)}
    make(tmp_path, attributes__npz=arrays)
    with pytest.raises(DataError, match=words):
        read(tmp_path, modalities=["image", "attributes"])


def test_errors_of_names(tmp_path):
    with pytest.raises(DataError, match="nowhere is not a data folder: no such directory"):
        read(tmp_path / "nowhere")
    make(tmp_path)
    with pytest.raises(DataError, match=r"lacks sound.npy; the modalities it has: image, attri"):
        read(tmp_path, modalities=["sound"])
    with pytest.raises(DataError, match="modality 'image' is asked for twice"):
        read(tmp_path, modalities=["image", "image"])
    with pytest.raises(DataError, match=r"lacks other\.npz"):
        read(tmp_path, sequences="other.npz")
    sparse = read(tmp_path, modalities=["attributes"]).features["attributes"]
    odd = Dataset("odd", ITEMS.astype(np.int64), OFFSETS, 4, {"brand": sparse})
    with pytest.raises(DataError, match="sparse features are called 'attributes' in a folder"):
        write(odd, tmp_path / "odd")


def test_damaged_compression(tmp_path):
    path = make(tmp_path) / "sequences.npz"
    np.savez_compressed(path, items=ITEMS, offsets=OFFSETS)
    content = bytearray(path.read_bytes())
    name, extra = (int.from_bytes(content[at : at + 2], "little") for at in (26, 28))
    content[30 + name + extra] |= 0b110  # no kind of block has this number
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"sequences\.npz is not a readable .npz file: .*block"):
        read(tmp_path)
