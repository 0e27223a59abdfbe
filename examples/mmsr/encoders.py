"""From what products show and say to feature matrices: encoders, and a cache of what they gave.

An encoder is anything with a name, a fingerprint and a call from a list of inputs to an array
``[inputs, width]``. It is called once, with all inputs, and cuts batches itself. A text encoder's
inputs are strings, an image encoder's are paths of picture files. A row of NaN says that an input
could not be encoded. For example, in a file ``mine.py``::

    class Sentences:
        name = "sentences"
        fingerprint = "all-MiniLM-L6-v2, its revision"

        def __call__(self, inputs):
            from sentence_transformers import SentenceTransformer

            return SentenceTransformer("all-MiniLM-L6-v2").encode(inputs)

is named ``mine:Sentences`` on the command line.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from scipy import sparse

from examples.mmsr.amazon_files import Product, Report, read_image_features
from examples.mmsr.data import DataError
from examples.mmsr.files import writing


@runtime_checkable
class Encoder(Protocol):
    """From inputs to features."""

    @property
    def name(self) -> str:
        """What messages and files of the cache call it."""
        ...

    @property
    def fingerprint(self) -> str:
        """Text that changes whenever the features would: model, revision, settings."""
        ...

    def __call__(self, inputs: list[Any], /) -> np.ndarray:
        """Floating-point features ``[inputs, width]``, NaN rows where an input has none."""
        ...


class HashedText:
    """Words and pairs of words, hashed and weighted by rarity, in few dimensions.

    Needs no model: scikit-learn's hashing vectoriser and tf-idf, then a truncated singular value
    decomposition, over all texts at once, and rows of length one. A text without a word, or one of
    which the decomposition keeps nothing, has no features.

    Args:
        width: at most so many dimensions; never more than there are texts.
        buckets: of the hashing.
        seed: of the decomposition.
    """

    name = "hashed"

    def __init__(self, width: int = 256, buckets: int = 2**18, seed: int = 0) -> None:
        if width < 1 or buckets < 1:
            raise DataError(f"width and buckets must be at least 1, not {width} and {buckets}")
        self.width, self.buckets, self.seed = width, buckets, seed

    @property
    def fingerprint(self) -> str:
        import sklearn

        return (
            f"1, width {self.width}, {self.buckets} buckets, seed {self.seed}, "
            f"scikit-learn {sklearn.__version__}"
        )

    def __call__(self, inputs: list[str], /) -> np.ndarray:
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
        from sklearn.utils.extmath import randomized_svd

        hashing = HashingVectorizer(
            n_features=self.buckets, ngram_range=(1, 2), alternate_sign=False, norm=None
        )
        words = TfidfTransformer(sublinear_tf=True).fit_transform(hashing.transform(inputs))
        left, values, _ = randomized_svd(
            words, min(self.width, *words.shape), random_state=self.seed
        )
        features = left * values
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
        # tf-idf rows have length one: what is far below it is rounding, and has no direction.
        known = lengths > 1e-6
        return np.where(known, features / np.where(known, lengths, 1), np.nan).astype(np.float32)


class ImageFeatures:
    """The image features that are distributed with the ratings, looked up by product id.

    Args:
        path: ``image_features_CATEGORY.b``.
        report: counts malformed records.
    """

    name = "image_features"
    # Looking up is reading the file once, and so would be telling its contents from others'.
    # Hence nothing is cached, and no cached features can go by this fingerprint.
    fingerprint = "not cached"

    def __init__(self, path: str | Path, report: Report) -> None:
        self.path, self.report = path, report

    def __call__(self, inputs: list[str], /) -> np.ndarray:
        return read_image_features(self.path, inputs, self.report)


def attribute_features(
    products: Sequence[Product], min_items: int = 1
) -> tuple[sparse.csr_array, list[str]]:
    """Multi-hot features of brands and categories, and the columns' names in order.

    Args:
        products: one per item.
        min_items: attributes of fewer items are left out.
    """
    names = [
        sorted(
            {f"category: {name}" for name in product.categories}
            | ({f"brand: {product.brand}"} if product.brand else set())
        )
        for product in products
    ]
    # Not an array of names: each would take the room of the longest.
    different = sorted({name for row in names for name in row})
    place = {name: number for number, name in enumerate(different)}
    column = np.array([place[name] for row in names for name in row], dtype=np.int64)
    counts = np.bincount(column, minlength=len(different))
    row = np.repeat(np.arange(len(names)), [len(row) for row in names])
    matrix = sparse.csr_array(
        (np.ones(len(row), dtype=np.float32), (row, column)), shape=(len(names), len(different))
    )
    enough = np.flatnonzero(counts >= min_items)
    return matrix[:, enough], [different[number] for number in enough]


def find_encoder(named: str, built_in: Mapping[str, Encoder]) -> Encoder:
    """An encoder by the name of a built-in one or as ``module:callable``.

    What ``module:callable`` names is an encoder itself, or a class or function that gives one when
    called without arguments.

    Raises:
        DataError: there is nothing of the name, or what is there is no encoder.
    """
    if named in built_in:
        return built_in[named]
    module, colon, attribute = named.partition(":")
    if not colon or not module or not attribute:
        raise DataError(
            f"an encoder is one of {', '.join(built_in) or 'no built-in ones'}, or "
            f"module:callable, not {named!r}"
        )
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise DataError(f"there is no encoder {named!r}: {error}") from error
    if isinstance(found, type) or (callable(found) and not isinstance(found, Encoder)):
        try:
            inspect.signature(found).bind()
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{named} is no encoder and cannot be called without arguments to give one: {error}"
            ) from error
        found = found()
    if not isinstance(found, Encoder):
        raise DataError(
            f"{named} gives a {type(found).__name__}, which is no encoder: it must have a name, "
            "a fingerprint and a call"
        )
    for what in ("name", "fingerprint"):
        if not isinstance(getattr(found, what), str) or not getattr(found, what):
            raise DataError(f"{named}: its {what} must be text, not {getattr(found, what)!r}")
    return found


def encode(encoder: Encoder, inputs: Sequence[Any], cache: str | Path | None) -> np.ndarray:
    """The features of inputs, computed once: float32 ``[inputs, width]``.

    Features are kept under the SHA-256 of the encoder's name and fingerprint and of all inputs in
    their order: the text of a string, the contents of a file. So features of other inputs, or of
    another encoder, are never taken for these.

    Args:
        encoder: what to call.
        inputs: strings, or paths of files.
        cache: the folder of kept features; None keeps nothing.

    Raises:
        DataError: the encoder gave something else than features of the inputs, or kept features
            cannot be read.
    """
    if cache is None:
        return _checked(encoder, inputs, encoder(list(inputs)))
    label = re.sub(r"[^A-Za-z0-9_-]", "_", encoder.name)
    path = Path(cache, f"{label}-{_key(encoder, inputs)}.npy")
    if path.exists():
        try:
            kept = np.load(path)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path} is not readable; remove it: {error}") from error
        return _checked(encoder, inputs, kept)
    features = _checked(encoder, inputs, encoder(list(inputs)))
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as file:
        np.save(file, features)
    return features


def _key(encoder: Encoder, inputs: Sequence[Any]) -> str:
    digest = hashlib.sha256()

    def add(kind: bytes, content: bytes) -> None:
        # With its length before it, no content can pass for two others.
        digest.update(kind + len(content).to_bytes(8, "little") + content)

    add(b"name", encoder.name.encode())
    add(b"fingerprint", encoder.fingerprint.encode())
    for given in inputs:
        if isinstance(given, Path):
            add(b"file", hashlib.sha256(given.read_bytes()).digest())
        elif isinstance(given, str):
            add(b"text", given.encode())
        else:
            raise DataError(f"inputs to be cached are strings or paths, not {type(given).__name__}")
    return digest.hexdigest()


def _checked(encoder: Encoder, inputs: Sequence[Any], features: Any) -> np.ndarray:
    who = f"encoder {encoder.name}"
    features = np.asarray(features)
    if features.ndim != 2 or len(features) != len(inputs) or features.shape[1] == 0:
        raise DataError(f"{who} must give [{len(inputs)}, width], not shape {list(features.shape)}")
    if not np.issubdtype(features.dtype, np.floating):
        raise DataError(f"{who} must give floating-point features, not {features.dtype}")
    missing = np.isnan(features)
    wrong = (missing.any(axis=1) & ~missing.all(axis=1)) | np.isinf(features).any(axis=1)
    if wrong.any():
        raise DataError(
            f"{who}: a row is finite, or NaN throughout where there are no features, "
            f"but row {np.flatnonzero(wrong)[0]} is neither"
        )
    return features.astype(np.float32)
