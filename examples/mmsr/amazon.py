"""From the Amazon product data of 2014, as distributed, to a data folder.

Every rating counts as positive, whatever its stars. Of a user's ratings of one product the first
in time counts. Then the iterative k-core: users and products with fewer than k ratings are taken
out until none is left that has fewer. Histories are in order of time; the source's time is in
whole days, and products of one day stand in order of their ids, as in most published work.
Users and items are numbered in order of their ids, so a file's order of lines changes nothing.

No codes are written: they depend on how many there shall be, so they are made from the features
when a model is composed (``--nodes.num_codes``, ``--nodes.k``), by
:class:`mmgraph.ModalityCodebook`.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import sparse

from examples.mmsr.amazon_files import (
    FILES,
    Product,
    Ratings,
    Report,
    category_name,
    find_file,
    read_metadata,
    read_ratings,
)
from examples.mmsr.data import ATTRIBUTES, DataError, Dataset, write
from examples.mmsr.encoders import (
    Encoder,
    HashedText,
    ImageFeatures,
    attribute_features,
    encode,
    find_encoder,
)
from examples.mmsr.files import replacing

PUBLISHED = {
    "Beauty": (22_363, 12_101, 198_502),
    "Clothing_Shoes_and_Jewelry": (39_387, 23_033, 278_677),
    "Sports_and_Outdoors": (35_598, 18_357, 296_337),
    "Toys_and_Games": (19_412, 11_924, 167_597),
    "Home_and_Kitchen": (66_519, 28_237, 551_682),
    "Cell_Phones_and_Accessories": (27_879, 10_429, 194_439),
}
"""Users, items and interactions of the 5-cores, as published."""

TextField = Literal["title", "brand", "categories", "description"]
Histories = tuple[np.ndarray, np.ndarray, list[str]]


def prepare(
    category: str,
    raw: str,
    out: str,
    ratings: str | None = None,
    core: int = 5,
    image: str | None = "image_features",
    pictures: str | None = None,
    text: str | None = "hashed",
    text_fields: tuple[TextField, ...] = ("title",),
    attributes: bool = True,
    attribute_min_items: int = 1,
    malformed_limit: float = 0.001,
    cache: str = "runs/features",
) -> None:
    """Make a data folder of Amazon's files of 2014, and print what was read and set aside.

    Args:
        category: beauty, clothing, sports, toys, kitchen or phone, or a name as in the files.
        raw: the folder of the files as they are distributed.
        out: the data folder to be made; it must not exist, or be empty.
        ratings: the file of ratings or reviews; unless given, the first in the folder of
            ratings_CATEGORY.csv, reviews_CATEGORY.json.gz and reviews_CATEGORY_5.json.gz.
        core: users and items with fewer ratings are taken out, again and again.
        image: image_features for those in the folder, module:callable for an encoder of pictures,
            or null for none.
        pictures: the folder of pictures for module:callable, each named by its product's id.
        text: hashed for features that need no model, module:callable for an encoder of strings,
            or null for none.
        text_fields: what of the metadata is the text, in this order.
        attributes: whether brands and categories become attributes.
        attribute_min_items: attributes of fewer items are left out.
        malformed_limit: the largest share of a file's lines or records that may be malformed.
        cache: the folder in which encoded features are kept.

    Raises:
        DataError: a file is missing, cut short, damaged or malformed beyond the limit; nothing is
            left of the k-core; an encoder cannot be found or gives no features of the items; or
            ``out`` is in use.
    """
    category = category_name(category)
    folder = Path(out).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists already; a data folder is made where there is nothing")
    if core < 1:
        raise DataError(f"core must be at least 1, not {core}")
    report = Report(malformed_limit)
    # What can be refused without reading is refused first: the reading takes minutes.
    rated = _find_ratings(raw, category, ratings)
    described = _find(raw, "metadata", category)
    if described is None and (text is not None or attributes):
        raise _lacks(raw, "metadata", category, "--text null --attributes false do without")
    text_encoder = None if text is None else find_encoder(text, {"hashed": HashedText()})
    image_encoder = _image_encoder(raw, category, image, pictures, report)

    read = read_ratings(rated, report)
    items, offsets, item_ids = histories(read, core, report)
    sizes = (len(offsets) - 1, len(item_ids), len(items))
    report.notes.append(_sizes(sizes, category, core))
    del read  # a category's ratings are many times those of its k-core
    products = [Product()] * len(item_ids)
    if described is not None:
        found = read_metadata(described, item_ids, report)
        products = [found.get(item, Product()) for item in item_ids]
        report.notes.append(
            f"{len(item_ids) - len(found):,} of {len(item_ids):,} items have no metadata"
        )

    features: dict[str, Any] = {}
    if isinstance(image_encoder, ImageFeatures):
        # The whole file is read once, here, and needs no copy in the cache.
        by_id = dict(zip(item_ids, item_ids, strict=True))
        features["image"] = _features("image", image_encoder, by_id, item_ids, None, report)
    elif image_encoder is not None:
        files = _pictures(Path(str(pictures)), item_ids)
        features["image"] = _features("image", image_encoder, files, item_ids, cache, report)
    if text_encoder is not None:
        texts = {
            item: words
            for item, product in zip(item_ids, products, strict=True)
            if (words := text_of(product, text_fields))
        }
        features["text"] = _features("text", text_encoder, texts, item_ids, cache, report)
    names: list[str] = []
    if attributes:
        matrix, names = attribute_features(products, attribute_min_items)
        if names:
            features[ATTRIBUTES] = matrix
        without = int((np.diff(sparse.csr_array(matrix).indptr) == 0).sum())
        report.notes.append(f"attributes: {len(names):,}; {without:,} items have none")
    titles = None if described is None else [product.title for product in products]
    data = Dataset(folder.name, items, offsets, len(item_ids), features, titles, item_ids)
    _write_whole(data, names, folder)
    print(f"{report}\ndata folder: {out}")


def histories(ratings: Ratings, core: int, report: Report) -> Histories:
    """Every user's items in order, of the k-core alone.

    Args:
        ratings: as read.
        core: k.
        report: is told of repeated ratings.

    Returns:
        ``items``, every user's history after another; ``offsets`` ``[users + 1]``; and the items'
        ids in order.

    Raises:
        DataError: nothing is left.
    """
    user, _ = _ranked(ratings.users, ratings.user)
    item, item_ids = _ranked(ratings.items, ratings.item)
    order = np.lexsort((item, ratings.time, user))
    user, item = user[order], item[order]
    # The order is by user and time, so the first of a pair is the earliest.
    _, first = np.unique(user * len(item_ids) + item, return_index=True)
    first.sort()
    if len(first) < len(user):
        report.notes.append(
            f"{len(user) - len(first):,} ratings repeat a user's rating of a product; the first "
            "in time counts"
        )
    user, item = user[first], item[first]
    kept = k_core(user, item, core)
    if len(kept) == 0:
        raise DataError(f"nothing is left of the {core}-core of {len(user):,} ratings")
    user, item = user[kept], item[kept]
    _, lengths = np.unique(user, return_counts=True)
    present, items = np.unique(item, return_inverse=True)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return items, offsets, [item_ids[index] for index in present]


def k_core(user: np.ndarray, item: np.ndarray, k: int) -> np.ndarray:
    """Which ratings are in the k-core, as rising positions.

    The largest set of ratings in which every user and every item has at least k. There is one such
    set, whatever the order in which users and items are taken out.

    Args:
        user, item: ``[ratings]``, from 0.
        k: the least number of ratings.
    """
    kept = np.arange(len(user))
    while len(kept):
        stays = (np.bincount(user[kept])[user[kept]] >= k) & (
            np.bincount(item[kept])[item[kept]] >= k
        )
        if stays.all():
            break
        kept = kept[stays]
    return kept


def text_of(product: Product, fields: tuple[TextField, ...]) -> str:
    """A product's text: these fields, one after another, with HTML's entities resolved."""
    parts = (
        " ".join(product.categories) if name == "categories" else getattr(product, name)
        for name in fields
    )
    return html.unescape(" ".join(part for part in parts if part)).strip()


def _ranked(ids: list[str], index: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Indices into the sorted ids, in place of indices into the ids."""
    order = sorted(range(len(ids)), key=ids.__getitem__)
    rank = np.empty(len(ids), dtype=np.int64)
    rank[order] = np.arange(len(ids))
    return rank[index], [ids[place] for place in order]


def _sizes(sizes: tuple[int, int, int], category: str, core: int) -> str:
    users, items, interactions = sizes
    text = f"{core}-core: {users:,} users, {items:,} items, {interactions:,} interactions"
    if core != 5 or category not in PUBLISHED:
        return text
    if sizes == PUBLISHED[category]:
        return f"{text}, as published"
    users, items, interactions = PUBLISHED[category]
    return f"{text}; published: {users:,} users, {items:,} items, {interactions:,} interactions"


def _find_ratings(raw: str, category: str, given: str | None) -> Path:
    if given is not None:
        return Path(given)
    kinds = ("ratings", "reviews", "reviews_5")
    found = [path for kind in kinds if (path := _find(raw, kind, category))]
    if not found:
        names = ", ".join(FILES[kind].format(category) for kind in kinds)
        raise DataError(f"{raw} has none of {names}")
    return found[0]


def _find(raw: str, kind: str, category: str) -> Path | None:
    if not Path(raw).is_dir():
        raise DataError(f"{raw} is not a folder of raw files: no such directory")
    return find_file(raw, kind, category)


def _lacks(raw: str, kind: str, category: str, instead: str) -> DataError:
    return DataError(f"{raw} lacks {FILES[kind].format(category)}; {instead}")


def _image_encoder(
    raw: str, category: str, named: str | None, pictures: str | None, report: Report
) -> Encoder | None:
    if named is None:
        return None
    if named == ImageFeatures.name:
        path = _find(raw, "image_features", category)
        if path is None:
            raise _lacks(raw, "image_features", category, "--image null does without")
        return ImageFeatures(path, report)
    encoder = find_encoder(named, {})
    if pictures is None or not Path(pictures).is_dir():
        raise DataError(
            f"image {named} encodes pictures: they must be in a folder, each named by its "
            f"product's id, and pictures is {pictures}"
        )
    return encoder


def _pictures(folder: Path, item_ids: list[str]) -> dict[str, Path]:
    """By item, its picture: the file whose name without its suffix is the item's id."""
    wanted = set(item_ids)
    files = sorted(path for path in folder.iterdir() if path.stem in wanted and path.is_file())
    twice = [item for item, number in Counter(path.stem for path in files).items() if number > 1]
    if twice:
        raise DataError(f"{folder} has more than one picture of {twice[0]}")
    return {path.stem: path for path in files}


def _features(
    modality: str,
    encoder: Encoder,
    inputs: Mapping[str, Any],
    item_ids: list[str],
    cache: str | None,
    report: Report,
) -> np.ndarray:
    """One row per item, float16; NaN where there is no input, or no features of it."""
    rows = [row for row, item in enumerate(item_ids) if item in inputs]
    if not rows:
        raise DataError(f"{modality}: no item has any; --{modality} null does without")
    encoded = encode(encoder, [inputs[item_ids[row]] for row in rows], cache)
    with np.errstate(over="ignore"):
        half = encoded.astype(np.float16)
    if np.isinf(half).any():
        raise DataError(
            f"{modality}: features of encoder {encoder.name} reach {np.nanmax(np.abs(encoded)):g}, "
            f"but a data folder's are float16, at most {np.finfo(np.float16).max:g}"
        )
    # A row of zeros, as of a picture that could not be had, has no direction to find a code by.
    zeros = np.flatnonzero(~half.any(axis=1))
    half[zeros] = np.nan
    if len(zeros):
        report.notes.append(f"{modality}: {len(zeros):,} rows of zeros count as missing")
    features = np.full((len(item_ids), half.shape[1]), np.nan, dtype=np.float16)
    features[rows] = half
    missing = int(np.isnan(features[:, 0]).sum())
    if missing == len(item_ids):
        raise DataError(f"{modality}: no item has any; --{modality} null does without")
    report.notes.append(
        f"{modality}: {half.shape[1]:,} features by {encoder.name}; {missing:,} items have none"
    )
    return features


def _write_whole(data: Dataset, attribute_names: list[str], folder: Path) -> None:
    """Write a data folder under another name until it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing(folder) as partial:
        write(data, partial)
        if attribute_names:
            lines = "".join(f"{name}\n" for name in attribute_names)
            (partial / f"{ATTRIBUTES}.txt").write_text(lines, encoding="utf-8")
