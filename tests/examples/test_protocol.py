from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.mmsr import protocol
from examples.mmsr.data import Dataset
from examples.mmsr.protocol import Instances, split

Pair = tuple[tuple[int, ...], int]


def dataset(histories: list[list[int]]) -> Dataset:
    items = np.array([item for history in histories for item in history], dtype=np.int64)
    offsets = np.cumsum([0, *map(len, histories)])
    return Dataset("drawn", items, offsets, num_items=10)


def pairs(instances: Instances) -> list[Pair]:
    values, offsets = instances.histories()
    return [
        (tuple(values[a:b].tolist()), target)
        for a, b, target in zip(offsets[:-1], offsets[1:], instances.targets.tolist(), strict=True)
    ]


drawn = st.lists(st.lists(st.integers(0, 9), max_size=14), min_size=1, max_size=8)


@given(histories=drawn, seed=st.integers(0, 3), small=st.booleans())
def test_against_the_words_of_the_protocol(histories, seed, small):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "SMALL", 10_000 if small else 0)
        parts = split(dataset(histories), seed)

    train, test = [], []
    for history in histories:
        kept = len(history) - int(0.2 * len(history))
        train += [(tuple(history[:t]), history[t]) for t in range(1, kept)]
        # A test step without any history cannot be, since int(0.2 n) leaves more than it takes.
        test += [(tuple(history[:t]), history[t]) for t in range(kept, len(history))]
    assert pairs(parts.train.prefixes()) == train
    assert pairs(parts.test) == test

    held_out = parts.validation.user.tolist()
    assert held_out == sorted(set(held_out))
    last = {}
    for user, history in enumerate(histories):
        kept = len(history) - int(0.2 * len(history))
        if kept >= 2:
            last[user] = (tuple(history[: kept - 1]), history[kept - 1])
    assert pairs(parts.validation) == [last[user] for user in held_out]
    if small:
        assert held_out == sorted(last)
    else:
        assert len(held_out) <= (len(histories) + 1) // 2

    fit = []
    for user, history in enumerate(histories):
        kept = len(history) - int(0.2 * len(history)) - (user in held_out)
        fit += [(tuple(history[:t]), history[t]) for t in range(1, kept)]
    assert pairs(parts.fit.prefixes()) == fit

    values = [
        item for history in histories for item in history[: len(history) - int(0.2 * len(history))]
    ]
    assert parts.train.values().tolist() == values
    assert len(parts.fit.values()) == len(values) - len(held_out)


def test_every_second_user_of_a_large_data_set_by_seed(monkeypatch):
    monkeypatch.setattr(protocol, "SMALL", 100)
    data = dataset([[0, 1, 2, 3, 4]] * 100)
    first, again, other = split(data, 0), split(data, 0), split(data, 1)
    assert len(first.validation) == 50
    assert first.validation.user.tolist() == again.validation.user.tolist()
    assert first.validation.user.tolist() != other.validation.user.tolist()
    assert len(split(dataset([[0, 1, 2, 3, 4]] * 99)).validation) == 99


def test_instances_share_the_interactions():
    data = dataset([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]])
    prefixes = split(data).train.prefixes()
    assert prefixes[2:4].items is data.items
    assert pairs(prefixes[np.array([5, 0])]) == [((5, 6, 7), 8), ((0,), 1)]
    assert prefixes.last_items.tolist() == [0, 1, 2, 5, 6, 7]
