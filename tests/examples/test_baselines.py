from __future__ import annotations

import numpy as np
import pytest

from examples.mmsr.baselines import Markov, Popularity, judge_baselines
from examples.mmsr.data import Dataset
from examples.mmsr.metrics import rank_all
from examples.mmsr.protocol import split
from examples.mmsr.results import counted

# Train parts: 0 1 0 1 | 0 2 1 3 | 0 1 2 0; the last step of each is its test step.
HISTORIES = [[0, 1, 0, 1, 2], [0, 2, 1, 3, 3], [0, 1, 2, 0, 1]]


@pytest.fixture
def data() -> Dataset:
    items = np.array([item for history in HISTORIES for item in history])
    return Dataset("three users", items, np.array([0, 5, 10, 15]), num_items=5)


def test_popularity_by_hand(data):
    parts = split(data)
    scorer = Popularity(parts.train, 5)
    assert scorer(parts.test).tolist() == [[5, 4, 2, 1, 0]] * 3
    # targets 2, 3, 1
    assert rank_all(scorer, parts.test).tolist() == [3, 4, 2]


def test_markov_by_hand(data):
    parts = split(data)
    scorer = Markov(parts.train, 5)
    share = np.array([5, 4, 2, 1, 0]) / 6
    # after 1: 0 once, 2 once, 3 once; after 3: nothing; after 0: 1 three times, 2 once
    counts = np.array([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [0, 3, 1, 0, 0]])
    np.testing.assert_allclose(scorer(parts.test).numpy(), counts + share, rtol=0, atol=1e-15)
    assert rank_all(scorer, parts.test).tolist() == [2, 4, 1]


def test_what_never_occurred_ties(data):
    parts = split(data)
    bare = Markov(parts.train, 7)  # items 4, 5 and 6 never occur
    ranks = rank_all(bare, parts.test)
    assert ranks.tolist() == [2, 4, 1]
    popularity = Popularity(parts.train, 7)
    lone = parts.test[:1]
    lone.items[lone.target] = 5
    assert rank_all(popularity, lone).tolist() == [1 + 4 + 2 / 2]


def test_judged_together(data):
    parts = split(data)
    rows = judge_baselines(parts.train, 5, parts.test)
    assert list(rows) == ["popularity", "Markov"]
    assert rows["Markov"]["MRR@5"] == pytest.approx(100 * (1 / 2 + 1 / 4 + 1) / 3)


def test_what_is_kept_is_counted_in_the_train_parts(data, tmp_path):
    parts = split(data)
    found = counted(data, tmp_path)
    assert found == judge_baselines(parts.train, 5, parts.test)
    assert found != judge_baselines(parts.fit, 5, parts.test)
