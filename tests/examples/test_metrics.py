from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from examples.mmsr.metrics import rank_all, ranks, summarise, table, values
from examples.mmsr.protocol import Instances


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 2**31))
def test_ranks_against_the_definition(batch, items, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(-2, 3, (batch, items)).astype(np.float32)  # few values, many ties
    targets = rng.integers(0, items, batch)
    found = ranks(torch.from_numpy(scores), torch.from_numpy(targets)).tolist()
    for row, target, rank in zip(scores.tolist(), targets.tolist(), found, strict=True):
        above = sum(score > row[target] for score in row)
        ties = sum(score == row[target] for at, score in enumerate(row) if at != target)
        assert rank == 1 + above + ties / 2


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite(bad):
    scores = torch.zeros(3, 4)
    scores[1, 2] = bad
    with pytest.raises(ValueError, match=rf"scores must be finite, but scores\[1, 2\] is {bad}"):
        ranks(scores, torch.zeros(3, dtype=torch.long))


def test_summary_by_hand():
    metrics = summarise(np.array([1.0, 2.5, 5.0, 5.5, 20.0, 21.0]))
    assert metrics == pytest.approx(
        {
            "HR@5": 100 * 3 / 6,
            "MRR@5": 100 * (1 + 1 / 2.5 + 1 / 5) / 6,
            "NDCG@5": 100 * (1 + 1 / math.log2(3.5) + 1 / math.log2(6)) / 6,
            "HR@20": 100 * 5 / 6,
            "MRR@20": 100 * (1 + 1 / 2.5 + 1 / 5 + 1 / 5.5 + 1 / 20) / 6,
            "NDCG@20": 100 * (1 + sum(1 / math.log2(1 + r) for r in (2.5, 5.0, 5.5, 20.0))) / 6,
        }
    )


def test_nothing_to_summarise():
    with pytest.raises(ValueError, match="there are no ranks to summarise"):
        summarise(np.empty(0))


@pytest.mark.parametrize("metric", ["AUC@5", "HR", "HR@", "HR@five"])
def test_a_metric_that_there_is_not(metric):
    with pytest.raises(ValueError, match="metric: expected HR, MRR, NDCG @ a number, got"):
        values(np.array([1.0, 2.0]), metric)


def test_batches_give_the_ranks_of_one_call():
    items = np.arange(12) % 5
    one = Instances(
        items, np.zeros(11, dtype=np.int64), np.zeros(11, dtype=np.int64), np.arange(1, 12)
    )

    def scorer(instances: Instances) -> torch.Tensor:
        return torch.from_numpy(((instances.last_items[:, None] * 7 + np.arange(5)) % 5) * 1.0)

    whole = rank_all(scorer, one, batch_size=100)
    assert len(set(whole.tolist())) > 1
    np.testing.assert_array_equal(rank_all(scorer, one, batch_size=4), whole)


def test_table():
    text = table({"popularity": {"HR@5": 1.23456}, "MMSR": {"HR@5": 12.3}})
    assert "| popularity |   1.235 |" in text
    assert "| MMSR       |  12.300 |" in text
