"""Feature vectors to codes: each item's vector becomes its k nearest of K centres."""

from __future__ import annotations

import os
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmgraph import _checks as check

Metric = Literal["cosine", "euclidean"]

_FORMAT = "mmgraph.ModalityCodebook"
_VERSION = 1
_BATCH = 1024  # rows a step of mini-batch k-means sees
_SEEDS = 1 << 32  # scikit-learn's seeds are below
_STARTS = 3  # k-means++ draws, of which the best on a sample is taken
_PASSES = 20  # over all rows, at most
_TOLERANCE = 1e-3  # a pass that lowers the mean squared distance by less than this is the last
_COVARIANCE_WIDTH = 4096  # up to this width PCA goes through the [width, width] covariance
_CHUNK = 1 << 22  # numbers held at once in double precision
_UNREADABLE = (
    ValueError,
    OSError,
    EOFError,
    KeyError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)
_SPARSE_LAYOUTS = (
    torch.sparse_coo,
    torch.sparse_csr,
    torch.sparse_csc,
    torch.sparse_bsr,
    torch.sparse_bsc,
)


class Codes(NamedTuple):
    """The codes of each item, nearest first.

    Attributes:
        codes: LongTensor ``[num_items, k]``, -1 where the item lacks the modality. It is what
            :class:`mmgraph.SequenceGraphBuilder` takes as ``codes``.
        distances: FloatTensor ``[num_items, k]``, to each code's centre; NaN where missing.
    """

    codes: Tensor
    distances: Tensor


class ModalityCodebook:
    r"""Turns one modality's feature vectors into discrete codes.

    Three steps, as in MMSR (Hu et al., CIKM 2023):

    1. *Compress* to ``components`` numbers by principal component analysis, the optimum of the
       paper's linear autoencoder; sparse features by truncated SVD, which does not centre.
    2. *Cluster* with mini-batch k-means into ``num_codes`` centres :math:`c_1, \dots, c_K`; with
       ``metric="cosine"`` on rows scaled to length one.
    3. *Look up* each item's ``k`` nearest centres, at the distance
       :math:`1 - x \cdot c\, /\, (|x|\,|c|)` (``"cosine"``, the paper's) or :math:`|x - c|`
       (``"euclidean"``, its released code's).

    A row of features is missing where all of it is NaN or, in a sparse matrix, where it has no
    entry. Under ``"cosine"`` a dense row of zeros has no direction and is an error, and a row of
    which the compression keeps nothing (such as an item whose only attribute is shared with
    nobody) counts as missing.

    The same features and seed give the same codes. Fitting needs scikit-learn (the extra
    ``codebook``), and so do sparse features; looking up dense ones does not.

    Args:
        num_codes: the number of centres, K.
        k: how many codes an item gets, at most ``num_codes``.
        metric: ``"cosine"`` or ``"euclidean"``.
        components: the width after compression; ``None`` clusters the features as they are.
            Centres that initialise a :class:`mmgraph.nn.NodeEmbedding` need ``components`` equal
            to its ``channels``.
        seed: of everything random.
        progress: whether a fit of more than two seconds says on stderr how far it is.

    Raises:
        TypeError: if a number is not an int.
        ValueError: if a number is out of its range or the metric is unknown.

    Example:
        >>> image = torch.randn(100, 32, generator=torch.Generator().manual_seed(0))
        >>> image[7] = float("nan")                     # item 7 has no image
        >>> codebook = ModalityCodebook(10, k=2, components=8)
        >>> codes, distances = codebook.fit_transform(image)
        >>> codes.shape, codes[7].tolist(), codebook.centres.shape
        (torch.Size([100, 2]), [-1, -1], torch.Size([10, 8]))
    """

    def __init__(
        self,
        num_codes: int,
        k: int = 1,
        metric: Metric = "cosine",
        components: int | None = None,
        *,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        check.positive("num_codes", num_codes)
        check.positive("k", k)
        if k > num_codes:
            raise ValueError(f"k: expected at most num_codes = {num_codes}, got {k}")
        if metric not in get_args(Metric):
            raise ValueError(f"metric: expected one of {get_args(Metric)}, got {metric!r}")
        if components is not None:
            check.positive("components", components)
        check.positive("seed", seed, least=0)
        if seed >= _SEEDS:
            raise ValueError(f"seed: expected less than 2**32, got {seed}")
        check.boolean("progress", progress)
        self.num_codes = num_codes
        self.k = k
        self.metric: Metric = metric
        self.components = components
        self.seed = seed
        self.progress = progress
        self._fitted: _Fitted | None = None

    @property
    def centres(self) -> Tensor:
        """FloatTensor ``[num_codes, width]``, of length one under ``"cosine"``.

        The width is ``components``, or the features' own where that is ``None``.

        Raises:
            RuntimeError: before :meth:`fit`.
        """
        return torch.from_numpy(self._state.centres.copy())

    def fit(self, features: Any) -> Self:
        """Learn the compression and the centres.

        Args:
            features: ``[num_items, num_features]``, a NumPy array or a tensor of any numeric
                type, a SciPy sparse matrix or a sparse tensor.

        Returns:
            The codebook itself.

        Raises:
            ImportError: if scikit-learn is missing.
            TypeError: if the features are of another kind.
            ValueError: if a row is partly NaN, infinite or (cosine) zero, naming the first such
                row; if there are fewer rows than ``num_codes``, or fewer distinct ones (cosine:
                directions); or if ``components`` exceeds the number of rows or features.
        """
        _require("sklearn", "ModalityCodebook.fit")
        given = _Features.read(features, self.metric)
        rows = given.matrix if given.present.all() else given.matrix[given.present]
        self._check_enough(rows)
        with _Progress(self.progress) as progress:
            basis, offset = self._fit_compression(rows, progress)
            # Compressed once, by chunks, to the single precision that k-means works in, and to a
            # size whose squares stay inside it.
            scale = 1.0 if self.metric == "cosine" else float(abs(rows).max()) or 1.0
            chunks = _chunks(np.arange(rows.shape[0]), rows.shape[1])
            projected = (self._project(rows[chunk], basis, offset) for chunk in chunks)
            points = _stack([(z[alive] / scale).astype(np.float32) for z, alive in projected])
            if points.shape[0] < self.num_codes:
                raise ValueError(
                    f"components: the compression to {self.components} keeps something of only "
                    f"{points.shape[0]} rows, fewer than num_codes = {self.num_codes}"
                )
            centres = _cluster(points, self.num_codes, self.seed, progress)
        if self.metric == "cosine":
            # A centre of length zero, between opposite rows, is at distance 1 from every row.
            length = np.linalg.norm(centres, axis=1, keepdims=True)
            centres /= np.where(length > 0, length, 1.0)
        with np.errstate(over="ignore"):
            single = (centres * scale).astype(np.float32)
        if not np.isfinite(single).all():
            raise ValueError("features: too large for centres in float32; scale them down")
        self._fitted = _Fitted(rows.shape[1], single, basis, offset)
        return self

    def transform(self, features: Any) -> Codes:
        """The ``k`` nearest codes of each row, nearest first; of equal distances the lower code.

        Args:
            features: as for :meth:`fit`, with the same number of columns.

        Returns:
            :class:`Codes`, on the CPU.

        Raises:
            RuntimeError: before :meth:`fit`.
            TypeError: if the features are of another kind.
            ValueError: if a row is partly NaN, infinite or (cosine) zero, naming the first such
                row, or the number of columns differs from the fit's.
        """
        state = self._state
        given = _Features.read(features, self.metric)
        self._check_width(given)
        codes = np.full((given.matrix.shape[0], self.k), -1, dtype=np.int64)
        distances = np.full(codes.shape, np.nan, dtype=np.float32)
        centres = state.centres.astype(np.float64)
        squares = (centres**2).sum(1)
        width = max(given.matrix.shape[1], self.num_codes)
        for part in _chunks(np.flatnonzero(given.present), width):
            z, alive = self._project(given.matrix[part], state.basis, state.offset)
            product = np.asarray(z @ centres.T)
            if self.metric == "cosine":
                distance = 1.0 - product
            else:
                distance = (_lengths(z) ** 2)[:, None] + squares - 2.0 * product
            nearest = np.argsort(distance, axis=1, kind="stable")[:, : self.k]
            distance = np.maximum(np.take_along_axis(distance, nearest, 1), 0.0)
            if self.metric == "euclidean":
                distance = np.sqrt(distance)
            codes[part[alive]] = nearest[alive]
            distances[part[alive]] = distance[alive]
        return Codes(torch.from_numpy(codes), torch.from_numpy(distances))

    def fit_transform(self, features: Any) -> Codes:
        """:meth:`fit`, then :meth:`transform` of the same features."""
        return self.fit(features).transform(features)

    def compress(self, features: Any) -> Tensor:
        """The features as ``components`` numbers a row, without the scaling to length one.

        Args:
            features: as for :meth:`transform`.

        Returns:
            FloatTensor ``[num_items, components]``, NaN rows where the item lacks the modality.

        Raises:
            RuntimeError: before :meth:`fit`.
            TypeError: if the features are of another kind.
            ValueError: as :meth:`transform`, and if ``components`` is ``None``.
        """
        state = self._state
        if state.basis is None:
            raise ValueError("components: expected a number to compress to, got None")
        given = _Features.read(features, self.metric)
        self._check_width(given)
        out = np.full((given.matrix.shape[0], state.basis.shape[0]), np.nan, dtype=np.float32)
        for part in _chunks(np.flatnonzero(given.present), given.matrix.shape[1]):
            out[part] = _compress(given.matrix[part], state.basis, state.offset)
        return torch.from_numpy(out)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted codebook as an ``.npz`` of plain arrays (no pickle).

        Args:
            path: the file, named as given.

        Raises:
            RuntimeError: before :meth:`fit`.
        """
        state = self._state
        arrays: dict[str, Any] = {
            "format": np.array(_FORMAT),
            "version": np.array(_VERSION),
            "num_codes": np.array(self.num_codes),
            "k": np.array(self.k),
            "metric": np.array(self.metric),
            "seed": np.array(self.seed),
            "num_features": np.array(state.num_features),
            "centres": state.centres,
        }
        if state.basis is not None and state.offset is not None:
            arrays |= {"basis": state.basis, "offset": state.offset}
        with open(path, "wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a codebook that :meth:`save` wrote; it looks up the same codes.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is truncated, damaged, or not a codebook.
        """
        with open(path, "rb") as file:
            try:
                # NumPy takes any other file for a pickle, and says how to load it all the same.
                if not zipfile.is_zipfile(file):
                    raise ValueError("it is no zip archive")
                file.seek(0)
                archive = np.load(file, allow_pickle=False)
                arrays = {name: archive[name] for name in archive.files}
            except _UNREADABLE as error:
                raise _not_a_codebook(path, f"truncated, damaged or no .npz: {error}") from error
        if "format" not in arrays or str(arrays["format"]) != _FORMAT:
            raise _not_a_codebook(path, f"it does not name the format {_FORMAT!r}")
        try:
            version = int(arrays["version"])
            if version != _VERSION:
                raise ValueError(f"version: expected {_VERSION}, got {version}")
            basis, offset = arrays.get("basis"), arrays.get("offset")
            book = cls(
                int(arrays["num_codes"]),
                int(arrays["k"]),
                str(arrays["metric"]),  # type: ignore[arg-type]  # checked by the constructor
                None if basis is None else basis.shape[0],
                seed=int(arrays["seed"]),
            )
            centres, num_features = arrays["centres"], int(arrays["num_features"])
            width = num_features
            if basis is not None:
                width = basis.shape[0]
                _check_array("basis", basis, (width, num_features), np.float64)
                _check_array("offset", offset, (width,), np.float64)
            _check_array("centres", centres, (book.num_codes, width), np.float32)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise _not_a_codebook(path, str(error)) from error
        book._fitted = _Fitted(num_features, centres, basis, offset)
        return book

    @property
    def _state(self) -> _Fitted:
        if self._fitted is None:
            raise RuntimeError("this ModalityCodebook is not fitted: call fit first")
        return self._fitted

    def _check_width(self, given: _Features) -> None:
        expected = self._state.num_features
        if given.matrix.shape[1] != expected:
            raise ValueError(
                f"features: expected {expected} columns, as in fit, got {given.matrix.shape[1]}"
            )

    def _check_enough(self, rows: Any) -> None:
        count, width = rows.shape
        if count < self.num_codes:
            raise ValueError(
                f"features: expected at least num_codes = {self.num_codes} rows that are not "
                f"missing, got {count}"
            )
        if self.components is not None and self.components > min(count, width):
            raise ValueError(
                f"components: expected at most the number of rows that are not missing, {count}, "
                f"and of features, {width}, got {self.components}"
            )
        distinct = set()
        for row in range(count):
            distinct.add(_row_bytes(rows, row, self.metric))
            if len(distinct) == self.num_codes:
                return
        raise ValueError(
            f"features: expected at least num_codes = {self.num_codes} distinct "
            f"{'directions' if self.metric == 'cosine' else 'rows'}, got {len(distinct)}"
        )

    def _fit_compression(
        self, rows: Any, progress: _Progress
    ) -> tuple[npt.NDArray[np.float64] | None, npt.NDArray[np.float64] | None]:
        """Basis ``[components, features]`` and offset: a row compresses to ``basis x - offset``."""
        if self.components is None:
            return None, None
        from sklearn.decomposition import PCA, TruncatedSVD

        count, width = rows.shape
        progress.say(
            f"compressing {count:,} x {width:,} features to {self.components}",
            at_once=count * width * min(count, width) > 10**11,
        )
        # Every solver here is exact; scikit-learn's default may take a randomised one.
        partial = self.components < min(count, width)
        rows = rows.astype(np.float64)
        if _is_sparse(rows):
            model = TruncatedSVD(
                self.components,
                algorithm="arpack" if partial else "randomized",
                random_state=self.seed,
            ).fit(rows)
            basis = np.asarray(model.components_, dtype=np.float64)
            return basis, np.zeros(self.components)
        if width <= _COVARIANCE_WIDTH:
            solver = "covariance_eigh"
        else:
            solver = "arpack" if partial else "full"
        model = PCA(self.components, svd_solver=solver, random_state=self.seed).fit(rows)
        basis = np.asarray(model.components_, dtype=np.float64)
        return basis, basis @ model.mean_

    def _project(
        self,
        rows: Any,
        basis: npt.NDArray[np.float64] | None,
        offset: npt.NDArray[np.float64] | None,
    ) -> tuple[Any, npt.NDArray[np.bool_]]:
        """Rows as k-means sees them, and which of them have a place there."""
        z = _compress(rows, basis, offset)
        if self.metric != "cosine":
            return z, np.ones(z.shape[0], dtype=bool)
        length = _lengths(z)
        # What is left below single precision's rounding of the row is noise, not a direction.
        alive = length > 1e-6 * _lengths(rows.astype(np.float64))
        scale = 1.0 / np.where(alive, length, 1.0)
        return (z.multiply(scale[:, None]).tocsr() if _is_sparse(z) else z * scale[:, None]), alive

    def __repr__(self) -> str:
        state = "not fitted" if self._fitted is None else f"{self._fitted.num_features} features"
        return (
            f"ModalityCodebook({self.num_codes}, k={self.k}, metric={self.metric!r}, "
            f"components={self.components}, seed={self.seed}; {state})"
        )


@dataclass(frozen=True)
class _Fitted:
    num_features: int
    centres: npt.NDArray[np.float32]
    basis: npt.NDArray[np.float64] | None
    offset: npt.NDArray[np.float64] | None


@dataclass(frozen=True)
class _Features:
    """A checked feature matrix: a float32 array or CSR matrix, and which rows are present."""

    matrix: Any
    present: npt.NDArray[np.bool_]

    @classmethod
    def read(cls, features: Any, metric: Metric) -> _Features:
        kind = type(features).__name__
        if isinstance(features, Tensor):
            features = _from_tensor(features)
        other = isinstance(features, np.matrix | np.ma.MaskedArray)
        if other or not (isinstance(features, np.ndarray) or _is_sparse(features)):
            raise TypeError(
                f"features: expected a tensor, a NumPy array or a SciPy sparse matrix, got {kind}"
            )
        if features.ndim != 2 or features.shape[1] == 0:
            raise ValueError(
                "features: expected shape [num_items, num_features] with at least one feature, "
                f"got {list(features.shape)}"
            )
        if features.dtype.kind not in "fiub":
            raise TypeError(f"features: expected real numbers, got {features.dtype}")
        return cls._sparse(features) if _is_sparse(features) else cls._dense(features, metric)

    @classmethod
    def _dense(cls, features: npt.NDArray[Any], metric: Metric) -> _Features:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is named
            matrix = features.astype(np.float32, copy=False)
        finite = np.isfinite(matrix).all(1)
        missing = np.zeros_like(finite)
        suspect = np.flatnonzero(~finite)
        missing[suspect] = np.isnan(matrix[suspect]).all(1)
        for row in suspect[~missing[suspect]][:1]:
            infinite = np.flatnonzero(np.isinf(matrix[row]))
            if infinite.size:
                column = infinite[0]
                raise ValueError(
                    f"features[{row}, {column}]: expected a finite number that fits float32, "
                    f"got {features[row, column]}"
                )
            raise ValueError(
                f"features[{row}]: expected numbers, or NaN in the whole row where it is missing, "
                f"got NaN in {np.isnan(matrix[row]).sum()} of {matrix.shape[1]} columns"
            )
        if metric == "cosine":
            for row in np.flatnonzero(~matrix.any(1))[:1]:
                raise ValueError(
                    f"features[{row}]: a row of zeros has no direction, which cosine needs; "
                    "where the modality is missing, expected a row of NaN"
                )
        return cls(matrix, ~missing)

    @classmethod
    def _sparse(cls, features: Any) -> _Features:
        with np.errstate(over="ignore"):
            matrix = features.tocsr().astype(np.float32)  # a copy, which may be changed
        matrix.sum_duplicates()
        for entry in np.flatnonzero(~np.isfinite(matrix.data))[:1]:
            row = int(np.searchsorted(matrix.indptr, entry, side="right")) - 1
            column = matrix.indices[entry]
            raise ValueError(
                f"features[{row}, {column}]: expected a finite number that fits float32 "
                f"(a missing row of a sparse matrix has no entry), got {matrix.data[entry]}"
            )
        matrix.eliminate_zeros()
        if max(matrix.nnz, *matrix.shape) < 2**31:  # scikit-learn takes no wider indices
            matrix.indptr = matrix.indptr.astype(np.int32)
            matrix.indices = matrix.indices.astype(np.int32)
        return cls(matrix, np.diff(matrix.indptr) > 0)


class _Progress:
    """Says on stderr how far a fit is, once it has taken two seconds."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.start = time.monotonic()
        self.terminal = sys.stderr is not None and sys.stderr.isatty()
        self.next = self.start + 2.0
        self.open_line = False

    def say(self, text: str, at_once: bool = False) -> None:
        now = time.monotonic()
        if not self.enabled or sys.stderr is None or (now < self.next and not at_once):
            return
        # A terminal's line is rewritten; a log gets one now and then.
        self.next = now + (0.2 if self.terminal else 10.0)
        line = f"ModalityCodebook: {text} ({now - self.start:.0f} s)"
        sys.stderr.write(f"\r\x1b[K{line}" if self.terminal else f"{line}\n")
        sys.stderr.flush()
        self.open_line = self.terminal

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.open_line:
            sys.stderr.write("\n")


def _cluster(
    points: Any, num_codes: int, seed: int, progress: _Progress
) -> npt.NDArray[np.float64]:
    """Mini-batch k-means by whole passes, which are what progress and the end are judged by."""
    from sklearn.cluster import MiniBatchKMeans, kmeans_plusplus
    from sklearn.metrics import pairwise_distances_argmin_min

    rng = np.random.default_rng(seed)
    count = points.shape[0]
    batch = max(_BATCH, num_codes)
    sample = points[np.sort(rng.permutation(count)[: 3 * batch])]
    starts = []
    for start in range(_STARTS):
        progress.say(f"k-means++, start {start + 1} of {_STARTS}")
        centres, _ = kmeans_plusplus(sample, num_codes, random_state=(seed + start) % _SEEDS)
        _, distance = pairwise_distances_argmin_min(sample, centres)
        starts.append((float((distance.astype(np.float64) ** 2).sum()), start, centres))
    model = MiniBatchKMeans(
        num_codes, init=min(starts)[2], n_init=1, batch_size=batch, random_state=seed
    )
    before = np.inf
    for turn in range(_PASSES):
        order = rng.permutation(count)
        total = 0.0
        for first in range(0, count, batch):
            progress.say(
                f"k-means, pass {turn + 1} of at most {_PASSES}, row {first:,} of {count:,}"
            )
            model.partial_fit(points[order[first : first + batch]])
            total += float(model.inertia_)
        if not total < before * (1.0 - _TOLERANCE):
            break
        before = total
    return np.asarray(model.cluster_centers_, dtype=np.float64)


def _require(package: str, user: str) -> None:
    try:
        import_module(package)
    except ImportError as error:
        raise ImportError(
            f"{user} needs scikit-learn, of the extra codebook: pip install scikit-learn"
        ) from error


def _from_tensor(features: Tensor) -> Any:
    """The tensor as an array or a CSR matrix; any other layout as it is, to be refused by name."""
    features = features.detach().cpu()
    if features.dtype == torch.bfloat16:
        features = features.float()
    if features.layout == torch.strided:
        return features.numpy()
    if features.layout not in _SPARSE_LAYOUTS or features.dense_dim():
        return features
    _require("scipy.sparse", "ModalityCodebook with sparse features")
    from scipy.sparse import coo_array

    entries = features.to_sparse_coo().coalesce()  # type: ignore[no-untyped-call]
    values, indices = entries.values().numpy(), tuple(entries.indices().numpy())
    return coo_array((values, indices), shape=tuple(features.shape))


def _is_sparse(matrix: Any) -> bool:
    return hasattr(matrix, "tocsr")


def _stack(parts: list[Any]) -> Any:
    if not _is_sparse(parts[0]):
        return np.concatenate(parts)
    from scipy.sparse import vstack

    return vstack(parts, format="csr")


def _compress(
    rows: Any, basis: npt.NDArray[np.float64] | None, offset: npt.NDArray[np.float64] | None
) -> Any:
    """Rows in double precision, times the basis where there is one."""
    rows = rows.astype(np.float64)
    return rows if basis is None else np.asarray(rows @ basis.T) - offset


def _lengths(rows: Any) -> npt.NDArray[np.float64]:
    squares = rows.multiply(rows) if _is_sparse(rows) else rows**2
    lengths: npt.NDArray[np.float64] = np.sqrt(np.asarray(squares.sum(axis=1)).reshape(-1))
    return lengths


def _row_bytes(rows: Any, row: int, metric: Metric) -> bytes:
    """The same for rows that are equal or, under cosine, of one direction."""
    where = b""
    if _is_sparse(rows):
        entries = slice(rows.indptr[row], rows.indptr[row + 1])
        where, numbers = rows.indices[entries].tobytes(), rows.data[entries]
    else:
        numbers = rows[row]
    if metric == "cosine":
        numbers = numbers.astype(np.float64)
        numbers = (numbers / np.linalg.norm(numbers)).astype(np.float32)
    return bytes(where + (numbers + np.float32(0)).tobytes())  # which makes 0 of -0


def _chunks(rows: npt.NDArray[np.int64], width: int) -> Iterator[npt.NDArray[np.int64]]:
    """The row numbers in pieces that hold about as many numbers as may be held at once."""
    size = max(1, _CHUNK // width)
    return (rows[first : first + size] for first in range(0, rows.shape[0], size))


def _check_array(name: str, array: Any, shape: tuple[int, ...], dtype: type) -> None:
    if array is None or array.shape != shape or array.dtype != dtype:
        got = "nothing" if array is None else f"{array.dtype} {list(array.shape)}"
        raise ValueError(f"{name}: expected {np.dtype(dtype)} {list(shape)}, got {got}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers")


def _not_a_codebook(path: str | os.PathLike[str], why: str) -> ValueError:
    return ValueError(f"{os.fspath(path)!r} is not a saved ModalityCodebook: {why}")
