"""Alike features in the score: against a loop over steps and candidates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor

from examples.mmsr import checkpoint
from examples.mmsr.generate import GenerateConfig, generate
from examples.mmsr.items import ScoreConfig, reduced, weighed
from examples.mmsr.loss import cross_entropy
from examples.mmsr.missing import MissingConfig
from examples.mmsr.model import NodesConfig
from examples.mmsr.protocol import Instances, split
from examples.mmsr.similarity import SimilarityScore
from examples.mmsr.zoo import Composition, Zoo

DATA = generate(GenerateConfig(dial=0.5, users=40, items=16, codes=4, width=8)).data
DENSE = reduced(DATA, 5)
for item, rows in enumerate(DENSE.values()):
    rows[item] = 0  # that item has no such modality
ATTRIBUTES = sparse.random_array((DATA.num_items, 9), density=0.3, rng=np.random.default_rng(0))
ATTRIBUTES = sparse.csr_array(ATTRIBUTES * (np.arange(DATA.num_items) != 5)[:, None])
FEATURES = {**DENSE, "attributes": ATTRIBUTES}
PARTS = split(DATA)
INSTANCES = PARTS.test
SIMILAR = Composition(
    nodes=NodesConfig(kind="features"), score=ScoreConfig(similar=2), attributes=True
)
HELD = np.arange(DATA.num_items)[:, None] % np.arange(2, 7) == 0
WITH_ATTRIBUTES = replace(
    DATA, features={**DATA.features, "attributes": sparse.csr_array(HELD.astype(np.float32))}
)
ZOO = Zoo(WITH_ATTRIBUTES)


def literal(
    score: SimilarityScore, instances: Instances, absent: dict[str, np.ndarray]
) -> list[list[float]]:
    """The formula, a cosine at a time."""
    expected, step, learned = [], 0, score.weight.detach()
    for start, target in zip(instances.start, instances.target, strict=True):
        row = [0.0] * DATA.num_items
        for place in range(start, target):
            for m, (modality, matrix) in enumerate(FEATURES.items()):
                dense = matrix if isinstance(matrix, Tensor) else matrix.toarray()
                rows = torch.as_tensor(dense).float()
                weight = float(learned[m, -1]) / (target - start)
                if target - place <= score.steps:
                    weight += float(learned[m, target - place - 1])
                if modality in absent and absent[modality][step]:
                    continue
                for y in range(DATA.num_items):
                    of = rows[DATA.items[place]], rows[y]
                    row[y] += weight * float(torch.cosine_similarity(*of, dim=0))
            step += 1
        expected.append(row)
    return expected


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_alike_features_are_weighed_by_modality_and_step(steps: int, share: float) -> None:
    score = SimilarityScore(FEATURES, steps)
    torch.nn.init.normal_(score.weight)
    absent = MissingConfig(tuple(FEATURES)[1:], share).absent(INSTANCES)
    assert bool(absent) == (share > 0)
    scores = torch.randn(len(INSTANCES), DATA.num_items)
    torch.testing.assert_close(
        score(scores, score.look_up(INSTANCES, absent)) - scores,
        torch.tensor(literal(score, INSTANCES, absent)).float(),
        atol=2e-5,
        rtol=1e-5,
    )


def test_weights_start_from_the_formula() -> None:
    score = SimilarityScore(FEATURES, 3)
    expected = 2 / len(FEATURES) * torch.tensor([1, 1 / 2, 1 / 3, 1])
    torch.testing.assert_close(score.weight.detach(), expected.repeat(len(FEATURES), 1))


def test_what_a_history_lacks_is_taken_from_no_step() -> None:
    model = ZOO.build(SIMILAR, PARTS.train).eval()
    assert model.similarity is not None
    model.missing = MissingConfig(WITH_ATTRIBUTES.modalities, 1.0)
    rows = model.batch(INSTANCES).similar
    assert rows is not None
    assert not model.similarity(torch.zeros(len(INSTANCES), DATA.num_items), rows).any()


def test_weights_are_learned() -> None:
    model = ZOO.build(SIMILAR, PARTS.train)
    assert model.similarity is not None
    cross_entropy(model, model.batch(INSTANCES, training=True)).backward()
    grad = model.similarity.weight.grad
    assert grad is not None
    assert bool((grad != 0).all())


@pytest.mark.parametrize("kind", ["mmsr", "sasrec"])
def test_in_pieces_loss_and_gradient_are_the_same(kind: str) -> None:
    composition = replace(SIMILAR, kind=kind, score=ScoreConfig(similar=2, lags=(1,)))
    model = ZOO.build(composition, PARTS.train).eval()
    batch = model.batch(INSTANCES[:7])
    found = []
    for largest in (7 * DATA.num_items, 2 * DATA.num_items):
        loss = cross_entropy(model, batch, largest=largest)
        (gradient,) = torch.autograd.grad(loss, model.similarity.weight)
        found.append((loss, gradient))
    torch.testing.assert_close(found[0], found[1])


def test_a_saved_model_scores_alike(tmp_path: Path) -> None:
    model = ZOO.build(SIMILAR, PARTS.train).eval()
    torch.nn.init.normal_(model.similarity.weight)
    checkpoint.save(tmp_path / "model.pt", model, WITH_ATTRIBUTES)
    again, _ = checkpoint.load(tmp_path / "model.pt")
    torch.testing.assert_close(again.score(INSTANCES), model.score(INSTANCES))


@pytest.mark.parametrize("kind", ["mmsr", "evidence"])
def test_precisions(kind: str) -> None:
    model = ZOO.build(replace(SIMILAR, kind=kind), PARTS.train).eval()
    batch = model.batch(INSTANCES)
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy(model, batch)
    (half,) = torch.autograd.grad(loss, model.similarity.weight)
    (single,) = torch.autograd.grad(cross_entropy(model, batch), model.similarity.weight)
    torch.testing.assert_close(half, single, rtol=0.05, atol=0.05)
    scores = model.score(INSTANCES)
    double = model.double().score(INSTANCES)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), scores, rtol=1e-4, atol=1e-5)


def test_attributes_count_by_how_few_items_have_them() -> None:
    expected = HELD * np.log(DATA.num_items / HELD.sum(axis=0))
    found = weighed(WITH_ATTRIBUTES.features["attributes"])
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("features", "steps", "message"),
    [({}, 1, "features: expected"), (FEATURES, 0, "steps: expected a positive number, got 0")],
)
def test_what_cannot_be_is_refused(features: dict[str, Tensor], steps: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimilarityScore(features, steps)


def test_a_negative_number_of_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="similar: expected a number of steps, got -1"):
        ScoreConfig(similar=-1)
