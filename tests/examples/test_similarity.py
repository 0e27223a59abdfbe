"""Alike features in the score: against a loop over steps and candidates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor

from examples.mmsr.generate import GenerateConfig, generate
from examples.mmsr.items import ScoreConfig, comparable, reduced
from examples.mmsr.loss import cross_entropy
from examples.mmsr.missing import MissingConfig
from examples.mmsr.model import MMSR, NodesConfig
from examples.mmsr.protocol import Instances, split
from examples.mmsr.similarity import SimilarityScore
from examples.mmsr.zoo import Composition, Zoo

DATA = generate(GenerateConfig(dial=0.5, users=40, items=16, codes=4, width=8)).data
DENSE = reduced(DATA, 5)
LACKING = 3
for name, lacks in zip(DENSE, range(LACKING), strict=False):
    DENSE[name][lacks] = 0  # that item has no such modality
ATTRIBUTES = sparse.random_array((DATA.num_items, 9), density=0.3, rng=np.random.default_rng(0))
ATTRIBUTES = sparse.csr_array(ATTRIBUTES * (np.arange(DATA.num_items) != 5)[:, None])
FEATURES = {**DENSE, "attributes": ATTRIBUTES}
INSTANCES = split(DATA).test
SIMILAR = Composition(
    nodes=NodesConfig(kind="features"), score=ScoreConfig(similar=2), attributes=True
)
HELD = np.arange(DATA.num_items)[:, None] % np.arange(2, 7) == 0
WITH_ATTRIBUTES = replace(
    DATA, features={**DATA.features, "attributes": sparse.csr_array(HELD.astype(np.float32))}
)


def literal(
    score: SimilarityScore, instances: Instances, absent: dict[str, np.ndarray]
) -> list[list[float]]:
    """The formula, a cosine at a time."""
    expected, step, learned = [], 0, score.weight.detach()
    for start, target in zip(instances.start, instances.target, strict=True):
        row = [0.0] * DATA.num_items
        for place in range(start, target):
            for m, (modality, matrix) in enumerate(FEATURES.items()):
                rows = torch.as_tensor(matrix if m < len(DENSE) else matrix.toarray()).float()
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


def test_what_a_history_lacks_is_taken_from_no_step() -> None:
    model = Zoo(WITH_ATTRIBUTES).build(SIMILAR, split(DATA).train).eval()
    assert model.similarity is not None
    model.missing = MissingConfig(WITH_ATTRIBUTES.modalities, 1.0)
    rows = model.batch(INSTANCES).similar
    assert rows is not None
    assert not model.similarity(torch.zeros(len(INSTANCES), DATA.num_items), rows).any()


def test_weights_are_learned() -> None:
    model = Zoo(WITH_ATTRIBUTES).build(SIMILAR, split(DATA).train)
    assert model.similarity is not None
    cross_entropy(model, model.batch(INSTANCES, training=True)).backward()
    grad = model.similarity.weight.grad
    assert grad is not None
    assert bool((grad != 0).all())


@pytest.mark.parametrize("kind", ["mmsr", "sasrec"])
def test_in_pieces_the_loss_is_the_same(kind: str) -> None:
    composition = replace(SIMILAR, kind=kind, score=ScoreConfig(similar=2, lags=(1,)))
    model = Zoo(WITH_ATTRIBUTES).build(composition, split(DATA).train).eval()
    batch = model.batch(INSTANCES[:7])
    whole = cross_entropy(model, batch)
    torch.testing.assert_close(whole, cross_entropy(model, batch, largest=2 * DATA.num_items))


def test_a_recipe_makes_the_same_scores() -> None:
    model = Zoo(WITH_ATTRIBUTES).build(SIMILAR, split(DATA).train).eval()
    assert isinstance(model, MMSR)
    assert model.similarity is not None
    torch.nn.init.normal_(model.similarity.weight)
    again = MMSR.from_recipe(model.recipe()).eval()
    again.load_state_dict(model.state_dict())
    scores: Tensor = model.score(INSTANCES)
    torch.testing.assert_close(again.score(INSTANCES), scores)


def test_attributes_count_by_how_few_items_have_them() -> None:
    found = comparable(WITH_ATTRIBUTES, 5)
    held = HELD.sum(axis=0)
    np.testing.assert_allclose(
        found["attributes"].toarray(), HELD * np.log(DATA.num_items / held), rtol=1e-6
    )
    for modality, rows in reduced(DATA, 5).items():
        torch.testing.assert_close(found[modality], rows)


@pytest.mark.parametrize(
    ("features", "steps", "message"),
    [({}, 1, "features: expected"), (FEATURES, 0, "steps: expected a positive number, got 0")],
)
def test_what_cannot_be_is_refused(features: dict[str, Tensor], steps: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimilarityScore(features, steps)
