"""Counted successors: evidence as the counts without the instance itself give it."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from examples.mmsr.generate import GenerateConfig, generate
from examples.mmsr.protocol import Instances, Parts, split
from examples.mmsr.successors import COUNTS, TOTALS, SuccessorScore, count

DATA = generate(GenerateConfig(dial=0.5, users=40, items=16, codes=4, width=8)).data
LAGS = (1, 3, -2)


def literal_counts(parts: Parts, lag: int, but: int | None = None) -> Counter:
    """Pairs (item, the one so many steps on), all but the pair that ends at one position."""
    pairs: Counter = Counter()
    for begin, end in zip(parts.begin, parts.end, strict=True):
        for target in range(begin, end):
            if target - abs(lag) >= begin and target != but:
                pair = (int(DATA.items[target - abs(lag)]), int(DATA.items[target]))
                pairs[pair if lag > 0 else pair[::-1]] += 1
    return pairs


def literal_scores(
    score: SuccessorScore, parts: Parts, instances: Instances, training: bool
) -> torch.Tensor:
    expected = torch.zeros(len(instances), DATA.num_items)
    for row, (start, target) in enumerate(zip(instances.start, instances.target, strict=True)):
        for number, lag in enumerate(LAGS):
            if target - abs(lag) < start:
                continue
            own = int(target) if training else None
            pairs = literal_counts(parts, lag, own)
            item = int(DATA.items[target - abs(lag)])
            total = sum(times for (first, _), times in pairs.items() if first == item)
            for (first, second), times in pairs.items():
                if first == item:
                    a = int((times >= COUNTS).sum()) - 1
                    b = int((total >= TOTALS).sum()) - 1
                    expected[row, second] += score.weight[number, a, b].detach()
    return expected


@pytest.mark.parametrize("training", [True, False])
def test_evidence_is_counted_without_the_instance(training: bool) -> None:
    parts = split(DATA)
    score = SuccessorScore(count(parts.train, DATA.num_items, LAGS))
    torch.nn.init.normal_(score.weight)
    instances = parts.train.prefixes() if training else parts.test
    instances = instances[np.arange(0, len(instances), 7)]
    found = score(torch.zeros(len(instances), DATA.num_items), score.look_up(instances, training))
    expected = literal_scores(score, parts.train, instances, training)
    torch.testing.assert_close(found, expected)
    assert expected.any()


def test_weights_start_from_the_formula() -> None:
    score = SuccessorScore(count(split(DATA).train, DATA.num_items, LAGS))
    expected = [
        [[near * math.log(1 + 200 * c / (5 + total)) for total in TOTALS] for c in COUNTS]
        for near in (1, 1 / 5, 1 / 5)
    ]
    torch.testing.assert_close(score.weight.detach(), torch.tensor(expected))


def test_nobody_is_seen_before_he_is_counted() -> None:
    """A pair that occurs once is no evidence for the instance it comes from."""
    items = np.array([0, 1, 2, 3])
    parts = Parts(items, np.array([0, 2]), np.array([2, 4]))
    score = SuccessorScore(count(parts, 4, (1,)))
    rows = parts.prefixes()
    assert len(score.look_up(rows, training=True).place) == 0
    assert score.look_up(rows, training=False).place.tolist() == [1, 4 + 3]


def test_a_repeated_item_is_not_seen_before_itself_either() -> None:
    items = np.array([2, 2])
    parts = Parts(items, np.array([0]), np.array([2]))
    score = SuccessorScore(count(parts, 3, (-1,)))
    rows = parts.prefixes()
    assert len(score.look_up(rows, training=True).place) == 0
    assert score.look_up(rows, training=False).place.tolist() == [2]


def test_it_learns_and_keeps_its_counts() -> None:
    parts = split(DATA)
    score = SuccessorScore(count(parts.fit, DATA.num_items, (1, -1)))
    rows = score.look_up(parts.validation, training=False)
    scores = torch.zeros(len(parts.validation), DATA.num_items)
    score(scores.clone(), rows).logsumexp(1).sum().backward()
    assert score.weight.grad is not None
    assert (score.weight.grad != 0).sum() > 5
    again = SuccessorScore.from_recipe(score.recipe())
    torch.testing.assert_close(
        again(scores.clone(), again.look_up(parts.validation, training=False)),
        score(scores.clone(), rows),
    )
    part = slice(3, 6)
    torch.testing.assert_close(
        score(scores[part].clone(), rows.of(part, DATA.num_items)),
        score(scores.clone(), rows)[part],
    )


@pytest.mark.parametrize("lags", [(), (0, 1), (1, 1)])
def test_lags_that_mean_nothing(lags: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="lags: expected different numbers of steps, not 0"):
        count(split(DATA).fit, DATA.num_items, lags)
