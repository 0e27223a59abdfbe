"""ModalityCodebook against literal references in float64."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from mmgraph import codebook as module
from mmgraph.codebook import Codes, ModalityCodebook

pytest.importorskip("sklearn")
from scipy import sparse


def dense(rows: int = 60, width: int = 12, seed: int = 0) -> np.ndarray:
    """Rows around six well-separated points, so that clusters exist."""
    rng = np.random.default_rng(seed)
    return 3.0 * rng.standard_normal((6, width))[rng.integers(6, size=rows)] + rng.standard_normal(
        (rows, width)
    )


def multi_hot(rows: int = 60, width: int = 15, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    matrix = rng.random((rows, width)) < 0.25
    matrix[np.arange(rows), rng.integers(width, size=rows)] = True
    return matrix.astype(np.float32)


def brute_force(
    points: np.ndarray, centres: torch.Tensor, k: int, metric: str
) -> tuple[list[list[int]], list[list[float]]]:
    """One pair at a time, from the formulas in the docstring."""
    codes, distances = [], []
    for x in points.astype(np.float64):
        row = []
        for code, c in enumerate(centres.double().numpy()):
            if metric == "cosine":
                distance = 1 - float(x @ c) / (np.sqrt(x @ x) * np.sqrt(c @ c))
            else:
                distance = float(np.sqrt(((x - c) ** 2).sum()))
            row.append((distance, code))
        nearest = sorted(row)[:k]
        codes.append([code for _, code in nearest])
        distances.append([distance for distance, _ in nearest])
    return codes, distances


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("components", [None, 5])
def test_codes_are_the_nearest_centres(metric, components):
    features = dense()
    codebook = ModalityCodebook(8, 3, metric, components)
    found = codebook.fit_transform(features)
    assert isinstance(found, Codes)
    codes, distances = found
    assert codes.dtype == torch.int64
    assert distances.dtype == torch.float32
    points = features if components is None else codebook.compress(features).numpy()
    expected_codes, expected_distances = brute_force(points, codebook.centres, 3, metric)
    assert codes.tolist() == expected_codes
    torch.testing.assert_close(
        distances, torch.tensor(expected_distances).float(), atol=1e-5, rtol=1e-5
    )


def test_centres_are_cluster_means():
    """Six tight groups: each centre is its group's mean (for cosine, of unit rows, scaled to 1)."""
    rng = np.random.default_rng(1)
    means = 5 * rng.standard_normal((6, 4))
    group = rng.permutation(np.repeat(np.arange(6), 50))
    features = means[group] + 0.01 * rng.standard_normal((300, 4))
    for metric in ("euclidean", "cosine"):
        codebook = ModalityCodebook(6, metric=metric)
        codes = codebook.fit_transform(features).codes[:, 0]
        for members in range(6):
            (code,) = set(codes[group == members].tolist())
            expected = features[group == members]
            if metric == "cosine":
                expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
            expected = expected.mean(0)
            if metric == "cosine":
                expected /= np.linalg.norm(expected)
            np.testing.assert_allclose(codebook.centres[code].numpy(), expected, atol=0.01)


def test_cosine_centres_have_length_one():
    centres = ModalityCodebook(8).fit(dense()).centres
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(8))


@pytest.mark.parametrize(("rows", "width"), [(60, 12), (20, 30)])
@pytest.mark.parametrize("narrow", [4096, 1])
def test_compression_is_the_optimal_linear_one(rows, width, narrow, monkeypatch):
    """As much of the squared length is kept as any projection to 5 numbers can keep."""
    monkeypatch.setattr(module, "_COVARIANCE_WIDTH", narrow)  # 1: the solver of wide features
    features = dense(rows, width)
    compressed = ModalityCodebook(4, components=5).fit(features).compress(features)
    centred = features - features.mean(0)
    singular = np.linalg.svd(centred, compute_uv=False)
    assert float((compressed.double() ** 2).sum()) == pytest.approx((singular[:5] ** 2).sum())
    # The projection is orthonormal: no direction is stretched to get there.
    np.testing.assert_allclose(
        np.linalg.svd(compressed.numpy(), compute_uv=False), singular[:5], rtol=1e-5
    )


def test_sparse_compression_is_the_truncated_svd():
    features = multi_hot()
    codebook = ModalityCodebook(4, components=5)
    compressed = codebook.fit(sparse.csr_array(features)).compress(features)
    singular = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    np.testing.assert_allclose(
        np.linalg.svd(compressed.numpy(), compute_uv=False), singular[:5], rtol=1e-5
    )


@pytest.mark.parametrize("as_sparse", [False, True])
@pytest.mark.parametrize("rows", [60, 10])
def test_full_compression_keeps_every_distance(as_sparse, rows):
    features = multi_hot(rows, 10)
    given = sparse.csr_array(features) if as_sparse else features
    compressed = ModalityCodebook(4, components=10).fit(given).compress(given)
    torch.testing.assert_close(
        torch.cdist(compressed, compressed),
        torch.cdist(torch.tensor(features), torch.tensor(features)),
        atol=1e-3,
        rtol=1e-4,
    )


SPARSE_FORMS = {
    "csr_matrix": sparse.csr_matrix,
    "csc_array": sparse.csc_array,
    "coo_array": sparse.coo_array,
    "bool": lambda m: sparse.csr_array(m.astype(bool)),
    "torch coo": lambda m: torch.tensor(m).to_sparse(),
    "torch int": lambda m: torch.tensor(m).long().to_sparse(),
    "explicit zeros": lambda m: sparse.coo_array(
        (m.ravel(), (np.arange(m.size) // m.shape[1], np.arange(m.size) % m.shape[1])), m.shape
    ),
}


@pytest.mark.parametrize("form", SPARSE_FORMS)
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_sparse_equals_dense(form, metric):
    features = multi_hot()
    features[[3, 17]] = 0.0  # without an entry: missing
    marked = features.copy()
    marked[[3, 17]] = np.nan
    expected = ModalityCodebook(6, 2, metric).fit_transform(marked)
    codebook = ModalityCodebook(6, 2, metric)
    codes, distances = codebook.fit_transform(SPARSE_FORMS[form](features))
    assert torch.equal(codes, expected.codes)
    assert codes[[3, 17]].tolist() == [[-1, -1]] * 2
    torch.testing.assert_close(distances, expected.distances, equal_nan=True)
    # A codebook that was fitted on sparse rows takes dense ones too.
    assert torch.equal(codebook.transform(marked).codes, codes)


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")  # PyTorch calls its CSR tensors beta
def test_sparse_row_and_column_tensors():
    features = torch.tensor(multi_hot())
    expected = ModalityCodebook(6).fit_transform(features.to_sparse()).codes
    for form in (features.to_sparse_csr(), features.to_sparse_csc()):
        assert torch.equal(ModalityCodebook(6).fit_transform(form).codes, expected)


def test_sparse_codes_are_the_nearest_centres_after_compression():
    features = sparse.csr_array(multi_hot())
    codebook = ModalityCodebook(6, 2, components=4)
    codes, _ = codebook.fit_transform(features)
    expected, _ = brute_force(codebook.compress(features).numpy(), codebook.centres, 2, "cosine")
    assert codes.tolist() == expected


def test_a_row_of_which_nothing_is_left_is_missing():
    """Feature 9 occurs in one row alone, so the leading components know nothing of it."""
    features = multi_hot(width=9)
    features = np.concatenate([features, np.zeros((60, 1), np.float32)], 1)
    features[20] = 0.0
    features[20, 9] = 1.0
    codes, distances = ModalityCodebook(4, 2, components=3).fit_transform(
        sparse.csr_array(features)
    )
    assert codes[20].tolist() == [-1, -1]
    assert bool(distances[20].isnan().all())
    assert int((codes < 0).any(1).sum()) == 1


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_missing_rows_have_no_code_and_change_nothing(metric):
    features = dense()
    without = ModalityCodebook(5, 2, metric, 4).fit_transform(features)
    holes = np.full((63, 12), np.nan)
    kept = np.setdiff1d(np.arange(63), [0, 30, 62])
    holes[kept] = features
    codebook = ModalityCodebook(5, 2, metric, 4)
    codes, distances = codebook.fit_transform(holes)
    assert torch.equal(codes[kept], without.codes)
    torch.testing.assert_close(distances[kept], without.distances)
    for row in (0, 30, 62):
        assert codes[row].tolist() == [-1, -1]
        assert bool(distances[row].isnan().all())
        assert bool(codebook.compress(holes)[row].isnan().all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_float_type(dtype):
    features = torch.tensor(dense()).to(torch.bfloat16).to(dtype)  # the same numbers in each type
    features[5] = float("nan")
    codes = ModalityCodebook(5, 2, components=4).fit_transform(features).codes
    reference = ModalityCodebook(5, 2, components=4).fit_transform(features.double().numpy()).codes
    assert torch.equal(codes, reference)


def test_integers_and_tensors_that_require_gradients():
    counts = np.random.default_rng(0).integers(1, 5, (40, 6))
    expected = ModalityCodebook(4).fit_transform(counts.astype(np.float32)).codes
    assert torch.equal(ModalityCodebook(4).fit_transform(counts).codes, expected)
    tracked = torch.tensor(counts).float().requires_grad_()
    assert torch.equal(ModalityCodebook(4).fit_transform(tracked).codes, expected)


def test_the_largest_seed_fits():
    book = ModalityCodebook(5, seed=2**32 - 1).fit(dense())
    assert book.centres.shape == (5, 12)


def test_the_seed_decides_everything():
    features = dense(400)
    runs = [ModalityCodebook(12, 2, components=5, seed=s).fit(features) for s in (3, 3, 4)]
    assert torch.equal(runs[0].centres, runs[1].centres)
    assert torch.equal(runs[0].transform(features).codes, runs[1].transform(features).codes)
    assert not torch.equal(runs[0].centres, runs[2].centres)


def test_fitting_leaves_the_features_alone():
    for features in (dense(), sparse.csr_array(multi_hot())):
        before = features.copy()
        ModalityCodebook(4, components=3).fit_transform(features)
        assert (before != features).sum() == 0


@pytest.mark.parametrize("chunk", [1, 100, 1 << 22])
@pytest.mark.parametrize("as_sparse", [False, True])
def test_chunks_do_not_show(chunk, as_sparse, monkeypatch):
    features = sparse.csr_array(multi_hot()) if as_sparse else dense()
    expected = ModalityCodebook(5, 2, components=4).fit_transform(features)
    monkeypatch.setattr(module, "_CHUNK", chunk)
    codes, distances = ModalityCodebook(5, 2, components=4).fit_transform(features)
    assert torch.equal(codes, expected.codes)
    torch.testing.assert_close(distances, expected.distances)


def test_every_code_where_k_equals_num_codes():
    codes, distances = ModalityCodebook(5, 5).fit_transform(dense())
    assert torch.equal(codes.sort(1).values, torch.arange(5).expand(60, 5))
    assert bool((distances.diff(dim=1) >= 0).all())


def test_of_equal_distances_the_lower_code_comes_first():
    codebook = ModalityCodebook(2, 2, "euclidean").fit(np.array([[0.0], [2.0]]))
    codes, distances = codebook.transform(np.array([[1.0]]))
    assert codes.tolist() == [[0, 1]]
    assert distances.tolist() == [[1.0, 1.0]]


def test_as_many_codes_as_rows():
    features = dense(7)
    codes, distances = ModalityCodebook(7).fit_transform(features)
    assert sorted(codes[:, 0].tolist()) == list(range(7))
    torch.testing.assert_close(distances, torch.zeros(7, 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("seed", range(10))
def test_a_row_that_is_its_centre_is_at_no_distance(seed):
    """Where rounding leaves the square of a distance below zero, too."""
    rows = 5 + 3 * np.random.default_rng(seed).standard_normal((7, 12))
    distances = ModalityCodebook(7, metric="euclidean").fit_transform(rows).distances
    torch.testing.assert_close(distances, torch.zeros(7, 1), atol=1e-5, rtol=0)


def test_opposite_rows_leave_a_centre_without_direction():
    codebook = ModalityCodebook(1)
    _, distances = codebook.fit_transform(np.array([[1.0, 0.0], [-1.0, 0.0]]))
    assert codebook.centres.tolist() == [[0.0, 0.0]]
    assert distances.tolist() == [[1.0], [1.0]]


def test_no_rows_to_look_up():
    codebook = ModalityCodebook(4, 2).fit(dense())
    codes, distances = codebook.transform(np.empty((0, 12)))
    assert codes.shape == distances.shape == (0, 2)
    codes, _ = codebook.transform(np.full((3, 12), np.nan))
    assert codes.tolist() == [[-1, -1]] * 3


def test_fit_stays_close_to_full_k_means():
    from sklearn.cluster import KMeans

    features = dense(2000, 8, seed=2)
    codebook = ModalityCodebook(20, metric="euclidean")
    ours = float((codebook.fit_transform(features).distances.double() ** 2).sum())
    full = KMeans(20, n_init=3, random_state=0).fit(features).inertia_
    assert ours < 1.05 * full


@pytest.mark.parametrize("as_path", [str, Path])
@pytest.mark.parametrize("components", [None, 5])
def test_saved_and_loaded(tmp_path, as_path, components):
    features = dense()
    codebook = ModalityCodebook(6, 2, "euclidean", components, seed=9)
    expected = codebook.fit_transform(features)
    path = as_path(tmp_path / "image.codebook")
    codebook.save(path)
    assert Path(path).exists()
    loaded = ModalityCodebook.load(path)
    assert repr(loaded) == repr(codebook)
    assert torch.equal(loaded.centres, codebook.centres)
    codes, distances = loaded.transform(features)
    assert torch.equal(codes, expected.codes)
    assert torch.equal(distances, expected.distances)
    for name in zipfile.ZipFile(path).namelist():  # nothing in it needs pickle
        np.lib.format.read_array(io.BytesIO(zipfile.ZipFile(path).read(name)), allow_pickle=False)


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = tmp_path / "codes.npz"
    ModalityCodebook(6, components=3).fit(dense()).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    with pytest.raises(ValueError, match=r"codes\.npz' is not a saved ModalityCodebook: trunc"):
        ModalityCodebook.load(path)


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "codes.npz"
    ModalityCodebook(6, components=3).fit(dense()).save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ValueError, match="is not a saved ModalityCodebook"):
        ModalityCodebook.load(path)


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "other"
    path.write_text("hello")
    with pytest.raises(ValueError, match=r"is not a saved ModalityCodebook: .* no \.npz.*no zip"):
        ModalityCodebook.load(path)
    torch.save({"weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="is not a saved ModalityCodebook"):
        ModalityCodebook.load(path)
    with open(path, "wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(ValueError, match=r"is not a saved ModalityCodebook: .* no \.npz"):
        ModalityCodebook.load(path)
    with open(path, "wb") as file:
        np.savez(file, centres=np.ones(3))
    with pytest.raises(ValueError, match=r"does not name the format 'mmgraph\.ModalityCodebook'"):
        ModalityCodebook.load(path)
    with pytest.raises(FileNotFoundError):
        ModalityCodebook.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": np.array(99)}, "version: expected 1, got 99"),
        ({"k": np.array(7)}, "k: expected at most num_codes = 6, got 7"),
        ({"metric": np.array("manhattan")}, "metric: expected one of"),
        ({"centres": np.ones((6, 4), np.float32)}, r"centres: expected float32 \[6, 3\], got"),
        ({"centres": np.ones((6, 3))}, r"centres: expected float32 \[6, 3\], got float64"),
        ({"centres": np.full((6, 3), np.nan, np.float32)}, "centres: expected finite numbers"),
        ({"offset": None}, r"offset: expected float64 \[3\], got nothing"),
        ({"num_features": np.array(5)}, r"basis: expected float64 \[3, 5\]"),
        ({"seed": None}, "seed"),
    ],
)
def test_a_changed_file_is_refused(tmp_path, change, words):
    path = tmp_path / "codes.npz"
    ModalityCodebook(6, components=3).fit(dense()).save(path)
    arrays = {**np.load(path), **change}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(ValueError, match=f"is not a saved ModalityCodebook: .*{words}"):
        ModalityCodebook.load(path)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"num_codes": 0}, ValueError, "num_codes: expected at least 1, got 0"),
        ({"num_codes": 5.0}, TypeError, "num_codes: expected an int, got float"),
        ({"num_codes": 5, "k": 6}, ValueError, "k: expected at most num_codes = 5, got 6"),
        ({"num_codes": 5, "k": 0}, ValueError, "k: expected at least 1, got 0"),
        ({"num_codes": 5, "metric": "l1"}, ValueError, "metric: expected one of .*got 'l1'"),
        ({"num_codes": 5, "components": 0}, ValueError, "components: expected at least 1, got 0"),
        ({"num_codes": 5, "progress": None}, TypeError, "progress: expected a bool"),
        ({"num_codes": 5, "seed": -1}, ValueError, "seed: expected at least 0, got -1"),
        ({"num_codes": 5, "seed": 2**32}, ValueError, r"seed: expected less than 2\*\*32, got 42"),
    ],
)
def test_wrong_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        ModalityCodebook(**arguments)


def put(place, value):
    features = dense()
    features[place] = value
    return features


def put_sparse(row, column, value):
    features = sparse.lil_array(multi_hot())
    features[row, column] = value
    return features


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (put((4, 2), np.nan), r"features\[4\]: expected numbers, or NaN in the whole row .* in 1 "),
        (put((9, 3), -np.inf), r"features\[9, 3\]: expected a finite number .* got -inf"),
        (put((9, 3), 1e300), r"features\[9, 3\]: .* fits float32, got 1e\+300"),
        (put((slice(2, 6), 0), np.inf), r"features\[2, 0\]"),
        (put(6, 0.0), r"features\[6\]: a row of zeros has no direction.*NaN"),
        (put_sparse(8, 1, np.nan), r"features\[8, 1\]: expected a finite number .* got nan"),
        (put_sparse(8, 1, np.inf), r"features\[8, 1\]: expected a finite number .* got inf"),
        (np.zeros(5), r"features: expected shape \[num_items, num_features\].*got \[5\]"),
        (np.zeros((5, 0)), r"features: expected shape .*got \[5, 0\]"),
        (dense(4), r"at least num_codes = 5 rows that are not missing, got 4"),
        (put(slice(4, None), np.nan), r"at least num_codes = 5 rows that are not missing, got 4"),
        (np.ones((20, 3)), r"at least num_codes = 5 distinct directions, got 1"),
        (sparse.csr_array(np.ones((20, 3))), r"at least num_codes = 5 distinct directions, got 1"),
        (dense(60, 2), r"components: expected at most .*missing, 60, and of features, 2, got 3"),
    ],
)
def test_wrong_features(features, words):
    with pytest.raises(ValueError, match=words):
        ModalityCodebook(5, components=3).fit(features)


def test_centres_that_float32_cannot_hold():
    features = 3e38 * np.sign(dense())
    with pytest.raises(ValueError, match="features: too large for centres in float32"):
        ModalityCodebook(5, metric="euclidean", components=3).fit(features)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_scale_of_features_does_not_matter(scale, metric):
    expected = ModalityCodebook(5, 2, metric, 4).fit_transform(dense()).codes
    assert torch.equal(
        ModalityCodebook(5, 2, metric, 4).fit_transform(scale * dense()).codes, expected
    )


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ([[1.0, 2.0]], "features: expected a tensor, a NumPy array or a SciPy .* got list"),
        (np.array([["a", "b"]]), "features: expected real numbers, got <U1"),
        (np.ones((2, 2), np.complex64), "features: expected real numbers, got complex64"),
        (
            torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
            "features: expected a tensor, a NumPy",
        ),
    ],
)
def test_features_of_another_kind(features, words):
    with pytest.raises(TypeError, match=words):
        ModalityCodebook(1).fit(features)


def test_wrong_use():
    codebook = ModalityCodebook(4)
    for use in (
        lambda: codebook.transform(dense()),
        lambda: codebook.compress(dense()),
        lambda: codebook.save("nowhere"),
        lambda: codebook.centres,
    ):
        with pytest.raises(RuntimeError, match="not fitted: call fit first"):
            use()
    codebook.fit(dense())
    with pytest.raises(ValueError, match="features: expected 12 columns, as in fit, got 11"):
        codebook.transform(dense(width=11))
    with pytest.raises(ValueError, match=r"features\[4\]: expected numbers, or NaN"):
        codebook.transform(put((4, 2), np.nan))
    with pytest.raises(ValueError, match="components: expected a number to compress to, got None"):
        codebook.compress(dense())


def test_the_compression_keeps_too_few_rows():
    """Each row has a feature of its own: one component can hold only one of them."""
    with pytest.raises(ValueError, match="components: the compression to 1 keeps something of"):
        ModalityCodebook(4, components=1).fit(sparse.diags_array(np.arange(1.0, 7.0)).tocsr())


def test_without_scikit_learn(monkeypatch, tmp_path):
    codebook = ModalityCodebook(4).fit(dense())
    expected = codebook.transform(dense()).codes
    codebook.save(tmp_path / "codes")
    for name in [name for name in sys.modules if name.split(".")[0] in ("sklearn", "scipy")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        ModalityCodebook(4).fit(dense())
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        codebook.transform(torch.tensor(multi_hot()).to_sparse())
    assert torch.equal(ModalityCodebook.load(tmp_path / "codes").transform(dense()).codes, expected)


def test_optional_packages_are_imported_late():
    blocked = ("sklearn", "matplotlib", "networkx")
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked})); " + (
        "import mmgraph.codebook, mmgraph.plot; mmgraph.codebook.ModalityCodebook(3)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_long_fits_alone(monkeypatch, capsys):
    ModalityCodebook(4).fit(dense())
    assert capsys.readouterr() == ("", "")
    clock = iter(range(0, 10**6, 3))  # every look at the clock finds three seconds gone
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    ModalityCodebook(4, components=3).fit(dense())
    err = capsys.readouterr().err
    assert "ModalityCodebook: compressing 60 x 12 features to 3 (3 s)\n" in err
    assert "ModalityCodebook: k-means, pass " in err
    ModalityCodebook(4, progress=False).fit(dense())
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys, "stderr", Terminal())
    ModalityCodebook(4).fit(dense())
    written = sys.stderr.getvalue()
    assert written.count("\n") == 1  # one line, rewritten in place
    assert written.endswith("s)\n")


def test_repr():
    codebook = ModalityCodebook(4, k=2, components=3)
    assert "ModalityCodebook(4, k=2, metric='cosine', components=3" in repr(codebook)
    assert "not fitted" in repr(codebook)
    assert "12 features" in repr(codebook.fit(dense()))


def test_rows_count_as_distinct_only_where_codes_can_tell_them_apart():
    with pytest.raises(ValueError, match="2 distinct rows, got 1"):
        ModalityCodebook(2, metric="euclidean").fit(np.array([[0.0, 1], [-0.0, 1], [0, 1]]))
    along = np.outer([1.0, 2, 3, 4], [1.0, 1])
    for features in (along, sparse.csr_array(along)):
        with pytest.raises(ValueError, match="3 distinct directions, got 1"):
            ModalityCodebook(3).fit(features)
    with pytest.raises(TypeError, match=r"features: expected a tensor, .* got MaskedArray"):
        ModalityCodebook(2).fit(np.ma.masked_array(along))
