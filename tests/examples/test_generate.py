from __future__ import annotations

import numpy as np
import pytest

from examples.mmsr.data import DataError
from examples.mmsr.generate import GenerateConfig, Generated, generate

CODES = 8


def made(dial: float, **changes: float) -> Generated:
    settings = {"users": 1500, "items": 200, "codes": CODES, "noise": 0.0, **changes}
    return generate(GenerateConfig(dial=dial, **settings))


def steps(data) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every item whose history has two items at least, and these two: before, last, next."""
    at = np.concatenate(
        [np.arange(a + 2, b) for a, b in zip(data.offsets[:-1], data.offsets[1:], strict=True)]
    )
    return data.items[at - 2], data.items[at - 1], data.items[at]


def follows(found: Generated, name: str, item: np.ndarray, following: np.ndarray) -> np.ndarray:
    label = found.match if name == "match" else found.code[name]
    return found.successor[name][label[item]] == label[following]


def information(known: np.ndarray, following: np.ndarray) -> float:
    """Mutual information of two labels in bits, less its expected excess in a finite sample."""
    joint = np.zeros((known.max() + 1, following.max() + 1))
    np.add.at(joint, (known, following), 1)
    n = joint.sum()
    joint /= n
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    inside = joint > 0
    bits = (joint[inside] * np.log2(joint[inside] / apart[inside])).sum()
    excess = (joint.shape[0] - 1) * (joint.shape[1] - 1) / (2 * n * np.log(2))
    return float(bits - excess)


def test_the_seed_decides_everything():
    first, again, other = made(0.5), made(0.5), made(0.5, seed=1)
    np.testing.assert_array_equal(first.data.items, again.data.items)
    for modality in ("image", "text"):
        np.testing.assert_array_equal(first.data.features[modality], again.data.features[modality])
    assert first.data.titles == again.data.titles
    assert first.data.items[:50].tolist() != other.data.items[:50].tolist()


def test_the_dial_changes_steps_and_nothing_else():
    low, high = made(0.0), made(1.0)
    np.testing.assert_array_equal(low.data.features["image"], high.data.features["image"])
    np.testing.assert_array_equal(low.match, high.match)
    assert low.data.items.tolist() != high.data.items.tolist()


def test_at_zero_each_modality_s_own_sequence_decides():
    found = made(0.0)
    before, last, following = steps(found.data)
    assert follows(found, "image", before, following).all()
    assert follows(found, "text", before, following).all()
    # The last step tells nothing of what follows, by a code or by the match.
    for label in (found.code["image"], found.code["text"], found.match):
        for next_label in (found.code["image"], found.code["text"], found.match):
            assert abs(information(label[last], next_label[following])) < 0.02


def test_at_one_only_the_match_inside_the_last_step_decides():
    found = made(1.0)
    _, last, following = steps(found.data)
    assert follows(found, "match", last, following).all()
    assert information(found.match[last], found.match[following]) > 2.5
    image, text = found.code["image"], found.code["text"]
    for label in (image, text):
        for next_label in (image, text, found.match):
            assert abs(information(label[last], next_label[following])) < 0.02


def test_between_the_dial_is_a_share():
    found = made(0.25)
    _, last, following = steps(found.data)
    by_chance = 1 / CODES
    assert follows(found, "match", last, following).mean() == pytest.approx(
        0.25 + 0.75 * by_chance, abs=0.05
    )


def test_noise_follows_nothing():
    found = made(0.5, noise=1.0)
    before, last, following = steps(found.data)
    for name, item in (("image", before), ("text", before), ("match", last)):
        assert follows(found, name, item, following).mean() == pytest.approx(1 / CODES, abs=0.05)


def test_features_tell_the_codes_and_some_are_missing():
    found = made(0.5, missing=0.3)
    for modality in ("image", "text"):
        has = found.data.has(modality)
        assert 0.15 < 1 - has.mean() < 0.45
        features, code = found.data.features[modality][has], found.code[modality][has]
        centres = np.stack([features[code == c].mean(0) for c in range(CODES)])
        nearest = ((features[:, None] - centres) ** 2).sum(-1).argmin(1)
        np.testing.assert_array_equal(nearest, code)
    np.testing.assert_array_equal(made(0.5, missing=0.0).data.has("image"), True)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dial": 1.5}, r"dial must be in \[0, 1\], not 1.5"),
        ({"noise": -0.1}, r"noise must be in \[0, 1\], not -0.1"),
        ({"codes": 1}, "codes must be at least 2"),
        ({"codes": 20, "items": 399}, "items must be at least the square of codes, 400"),
    ],
)
def test_errors(settings, words):
    with pytest.raises(DataError, match=words):
        GenerateConfig(**settings)
