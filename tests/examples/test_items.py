"""Item vectors from features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from examples.mmsr.data import Dataset
from examples.mmsr.items import ItemFeatures, ScoreConfig, reduced

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(9, 12)).astype(np.float32)
IMAGE[[2, 5]] = np.nan
ATTRIBUTES = sparse.csr_array(RNG.random((9, 7)) < 0.4).astype(np.float32)
ATTRIBUTES = sparse.csr_array(ATTRIBUTES.toarray() * (np.arange(9) != 4)[:, None])
DATA = Dataset(
    "made", np.arange(9), np.array([0, 9]), 9, {"image": IMAGE, "attributes": ATTRIBUTES}
)


def test_features_keep_their_angles_and_missing_ones_are_zero() -> None:
    rows = reduced(DATA, components=12)["image"].double()
    known = torch.from_numpy(IMAGE[[0, 1, 3, 4, 6, 7, 8]]).double()
    centred = known - known.mean(0)
    assert not rows[[2, 5]].any()
    kept = rows[[0, 1, 3, 4, 6, 7, 8]]
    torch.testing.assert_close(kept.norm(dim=1).mean().item(), 1.0)
    scale = centred.norm(dim=1).mean() ** 2
    torch.testing.assert_close(kept @ kept.T, centred @ centred.T / scale, rtol=1e-4, atol=1e-5)


def test_fewer_components_are_the_principal_ones() -> None:
    rows = reduced(DATA, components=3)
    known = torch.from_numpy(IMAGE[[0, 1, 3, 4, 6, 7, 8]]).double()
    values = torch.linalg.svdvals(known - known.mean(0))
    found = torch.linalg.svdvals(rows["image"].double())
    torch.testing.assert_close(found / found[0], values[:3] / values[0], rtol=1e-4, atol=1e-5)
    assert rows["attributes"].shape == (9, 3)
    assert not rows["attributes"][4].any()


def test_vectors_are_sums_over_the_modalities_that_are_there() -> None:
    torch.manual_seed(0)
    features = ItemFeatures(reduced(DATA, 4), channels=5)
    image, attributes = features.projections
    rows = features.rows()
    expected = image(rows["image"]) + attributes(rows["attributes"])
    torch.testing.assert_close(features(), expected)
    torch.testing.assert_close(features()[4], image(rows["image"][4]))
    items = torch.tensor([[0, 3], [8, 3]])
    absent = {"image": torch.tensor([[True, False], [False, True]])}
    found = features(items, absent)
    torch.testing.assert_close(found[0, 0], attributes(rows["attributes"][0]))
    torch.testing.assert_close(found[0, 1], expected[3])
    torch.testing.assert_close(found[1, 1], attributes(rows["attributes"][3]))


def test_embeddings_are_left_out_in_training_alone() -> None:
    torch.manual_seed(0)
    features = ItemFeatures(reduced(DATA, 4), channels=5, id_dropout=0.5)
    embeddings = torch.randn(9, 5)
    from_features = features()
    dropped = features.join(embeddings) - from_features
    left_out = (dropped.abs() < 1e-6).all(1)
    assert 0 < left_out.sum() < 9
    torch.testing.assert_close(dropped[~left_out], 2 * embeddings[~left_out])
    torch.testing.assert_close(features.eval().join(embeddings), from_features + embeddings)
    always = ItemFeatures(reduced(DATA, 4), channels=5)
    torch.testing.assert_close(always.join(embeddings), always() + embeddings)


def test_no_modality() -> None:
    with pytest.raises(ValueError, match="features: expected those of at least one modality"):
        ItemFeatures({}, 4)


@pytest.mark.parametrize("components", [2, 9])
@pytest.mark.parametrize("known", [0, 1, 9])
def test_features_that_tell_no_item_from_another_are_zero(known: int, components: int) -> None:
    image = np.full((9, 4), np.nan, np.float32)
    image[:known] = [1, 2, 3, 4]
    data = Dataset("made", np.arange(9), np.array([0, 9]), 9, {"image": image})
    rows = reduced(data, components)["image"]
    assert rows.shape == (9, min(components, 4))
    assert not rows.any()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("components", 0, "at least 1"),
        ("id_dropout", 1.0, "at least 0 and below 1"),
        ("similar", -1, "a number of steps"),
    ],
)
def test_settings_of_scores_that_mean_nothing(name: str, value: float, expected: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected {expected}, got {value}"):
        ScoreConfig(**{name: value})
