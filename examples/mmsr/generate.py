"""Generated histories with planted structure, and a dial for where the structure lies.

Every item has an image code and a text code, seen only through noisy features, and sometimes not
even through those. Each modality has a chain, a fixed random successor for every code. What the
next item is follows one of two rules, and the dial is the share of the second:

homogeneous (dial 0): each modality's own sequence
    The next item is one whose image code succeeds the image code of the step *before* the last,
    and whose text code succeeds that step's text code. The last step says nothing. Neither does
    which image code goes with which text code: either modality's sequence would do alone.

heterogeneous (dial 1): the match between modalities, inside the last step
    The match of an item is ``(image code + text code) mod num_codes`` after both are relabelled
    at random, a Latin square: an image code alone, or a text code alone, leaves every match
    equally likely. Matches have a chain of their own, and the next item is one whose match
    succeeds the last item's.

Among the items that fit, and where noise replaces the rule, every pair of codes is equally likely,
so that the words "say nothing" above hold exactly; of the items of a pair, some are more popular
than others. A recommender that counts items, or pairs of items in a row, sees the structure only
through single items; one that uses codes can share what it learns between all items of a code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from examples.mmsr.data import DataError, Dataset


@dataclass(frozen=True)
class GenerateConfig:
    """What to generate.

    Args:
        dial: share of steps that follow the match between modalities, in [0, 1]; the others
            follow a modality's own sequence.
        users: number of histories.
        items: size of the catalogue.
        codes: codes per modality, and so also matches.
        noise: share of steps that follow nothing.
        missing: share of items whose image features are missing, and the same for text.
        width: of each feature vector.
        blur: standard deviation of a feature vector about its code's centre, whose own is 1.
        seed: draws everything.
    """

    dial: float = 0.5
    users: int = 2400
    items: int = 720
    codes: int = 12
    noise: float = 0.1
    missing: float = 0.1
    width: int = 128
    blur: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("dial", "noise", "missing"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise DataError(f"{name} must be in [0, 1], not {value}")
        if self.codes < 2 or self.width < 1 or self.users < 1 or self.blur < 0:
            raise DataError(
                "codes must be at least 2, width and users at least 1 and blur not negative, "
                f"not {self.codes}, {self.width}, {self.users} and {self.blur}"
            )
        if self.items < self.codes**2:
            raise DataError(
                f"items must be at least the square of codes, {self.codes**2}, so that every pair "
                f"of codes has an item, not {self.items}"
            )


@dataclass(frozen=True)
class Generated:
    """A generated data set with the structure that a recommender has to find.

    Args:
        data: histories and features; titles name the codes.
        code: by modality ``[items]``, every item's code, also where the features are missing.
        match: ``[items]``, the match of each item's codes.
        successor: by modality, and for ``"match"``, ``[codes]``: the chain.
    """

    data: Dataset
    code: dict[str, np.ndarray]
    match: np.ndarray
    successor: dict[str, np.ndarray]


MODALITIES = ("image", "text")
SHORTEST, LONGEST = 6, 20


def generate(config: GenerateConfig) -> Generated:
    """Generate histories, features and titles."""
    # One stream each, so that turning the dial changes the steps and nothing else.
    catalogue, steps, looks = (
        np.random.default_rng(seed) for seed in np.random.SeedSequence(config.seed).spawn(3)
    )
    # Every pair of codes has its share of the items, so neither code tells anything of the other.
    pair = catalogue.permutation(np.arange(config.items) % config.codes**2)
    code = {"image": pair % config.codes, "text": pair // config.codes}
    relabel = {m: catalogue.permutation(config.codes) for m in MODALITIES}
    match = (relabel["image"][code["image"]] + relabel["text"][code["text"]]) % config.codes
    successor = {name: _chain(config.codes, catalogue) for name in (*MODALITIES, "match")}

    weight = _popularity(pair)
    matches = [_Urn(np.flatnonzero(match == m), weight) for m in range(config.codes)]
    pairs = {
        (image, text): _Urn(np.flatnonzero(pair == text * config.codes + image), weight)
        for image in range(config.codes)
        for text in range(config.codes)
    }
    anything = _Urn(np.arange(config.items), weight)

    items: list[int] = []
    offsets = [0]
    for length in np.clip(steps.geometric(0.2, config.users) + SHORTEST - 1, None, LONGEST):
        history: list[int] = [anything.draw(steps), anything.draw(steps)]
        while len(history) < length:
            if steps.random() < config.noise:
                urn = anything
            elif steps.random() < config.dial:
                urn = matches[successor["match"][match[history[-1]]]]
            else:
                before = history[-2]
                urn = pairs[tuple(successor[m][code[m][before]] for m in MODALITIES)]
            history.append(urn.draw(steps))
        items += history
        offsets.append(len(items))

    data = Dataset(
        name=f"generated (dial {config.dial:g})",
        items=np.array(items),
        offsets=np.array(offsets),
        num_items=config.items,
        features={m: _features(code[m], config, looks) for m in MODALITIES},
        titles=[
            f"item {i}, image {code['image'][i]}, text {code['text'][i]}, match {match[i]}"
            for i in range(config.items)
        ],
    )
    return Generated(data, code, match, successor)


class _Urn:
    """Items to draw from, with the weights of a popularity."""

    def __init__(self, items: np.ndarray, weight: np.ndarray) -> None:
        self.items = items
        self.cumulative = np.cumsum(weight[items])

    def draw(self, rng: np.random.Generator) -> int:
        at = np.searchsorted(self.cumulative, rng.random() * self.cumulative[-1], side="right")
        return int(self.items[min(at, len(self.items) - 1)])


def _popularity(pair: np.ndarray) -> np.ndarray:
    """Weights that fall with an item's place among those of its pair, and sum to 1 in each pair."""
    place = np.empty(len(pair))
    order = np.argsort(pair, kind="stable")
    _, first, counts = np.unique(pair[order], return_index=True, return_counts=True)
    place[order] = np.arange(len(pair)) - np.repeat(first, counts)
    weight = (1.0 + place) ** -1.2
    return weight / np.bincount(pair, weight)[pair]


def _chain(codes: int, rng: np.random.Generator) -> np.ndarray:
    """A successor for every code: one cycle through all, in random order."""
    order = rng.permutation(codes)
    successor = np.empty(codes, dtype=np.int64)
    successor[order] = np.roll(order, -1)
    return successor


def _features(code: np.ndarray, config: GenerateConfig, rng: np.random.Generator) -> np.ndarray:
    centres = rng.normal(size=(config.codes, config.width))
    features = centres[code] + config.blur * rng.normal(size=(len(code), config.width))
    features[rng.random(len(code)) < config.missing] = np.nan
    return features.astype(np.float32)
