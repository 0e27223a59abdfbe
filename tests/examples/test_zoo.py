"""Every recommender: it trains, and a history scores the same in any company."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import nn
from torch.nn import functional as F

from examples.mmsr.data import Dataset
from examples.mmsr.generate import GenerateConfig, generate
from examples.mmsr.items import ItemFeatures, ScoreConfig
from examples.mmsr.loss import cross_entropy
from examples.mmsr.missing import MissingConfig
from examples.mmsr.model import MMSR, ModelConfig, NodesConfig
from examples.mmsr.protocol import Instances, split
from examples.mmsr.sequential import GRU4Rec, SASRec, Sequential, SequentialConfig
from examples.mmsr.srgnn import SRGNN
from examples.mmsr.zoo import SIDED, Composition, Zoo

DATA = generate(GenerateConfig(dial=1, users=60, items=36, codes=4, width=16)).data
PARTS = split(DATA)
ZOO = Zoo(DATA)
KINDS = ("mmsr", "gru4rec", "gru4rec_late", "sasrec", "sasrec_early", "srgnn", "dif_sr")
SMALL = Composition(
    nodes=NodesConfig(num_codes=4),
    model=ModelConfig(channels=8),
    sequential=SequentialConfig(channels=8, layers=2),
)
SCORE = ScoreConfig(features=True, components=6, lags=(1, -1))
EVIDENCE = ScoreConfig(components=6, lags=(1, -1), similar=2)


@pytest.mark.parametrize(
    ("kind", "score"),
    [
        *(pytest.param(kind, ScoreConfig(), id=f"{kind}-plain") for kind in KINDS),
        *(pytest.param(kind, replace(SCORE, similar=2), id=f"{kind}-additions") for kind in KINDS),
        pytest.param("evidence", EVIDENCE, id="evidence"),
    ],
)
def test_each_kind_trains(kind, score):
    torch.manual_seed(0)
    model = ZOO.build(replace(SMALL, kind=kind, score=score), PARTS.fit)
    instances = PARTS.fit.prefixes()
    batch = model.batch(instances, training=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    losses = []
    for _ in range(25):
        loss = cross_entropy(model, batch) / len(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    scores = model.score(PARTS.test)
    assert scores.shape == (len(PARTS.test), DATA.num_items)
    for row in (0, 5, len(PARTS.test) - 1):
        alone = model.score(PARTS.test[row : row + 1])
        torch.testing.assert_close(alone[0], scores[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_dropout_acts_in_training_alone(kind):
    still = replace(SMALL.model, attention_dropout=0.0)
    model = ZOO.build(replace(SMALL, kind=kind, model=still), PARTS.fit).eval()
    inputs = model.prepare(PARTS.test)
    expected = model.encode(inputs)
    found = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert found
    for dropout in found:
        dropout.train()
        assert not torch.equal(model.encode(inputs), expected)
        dropout.eval()
    assert torch.equal(model.encode(inputs), expected)


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_only_the_last_steps_count(kind, share):
    sizes = replace(SMALL.sequential, max_length=4)
    blocks = replace(SMALL.model, max_length=4)
    cut = replace(SMALL, kind=kind, sequential=sizes, model=blocks)
    missing = MissingConfig(DATA.modalities, share)  # the steps that are kept lose what they lost
    model = ZOO.build(replace(cut, missing=missing), PARTS.fit).eval()
    long = PARTS.test[PARTS.test.target - PARTS.test.start > 6]
    short = Instances(long.items, long.user, long.target - 4, long.target)
    torch.testing.assert_close(model.score(long), model.score(short))


@pytest.mark.parametrize("kind", SIDED)
def test_what_is_dropped_from_a_history_is_not_read(kind):
    model = Zoo(DATA).build(replace(SMALL, kind=kind), PARTS.fit).eval()
    before = model.score(PARTS.test)
    model.missing = MissingConfig(DATA.modalities, 1.0)
    without = model.score(PARTS.test)
    assert not torch.allclose(before, without)
    for rows in model.side.rows().values():
        rows.zero_()
    torch.testing.assert_close(model.score(PARTS.test), without)


TIED = replace(SCORE, lags=(), tied=True)


def test_tied_features_are_in_the_first_states_of_items():
    zoo = Zoo(DATA)
    own = replace(SMALL, nodes=NodesConfig(kind="features"), score=TIED)
    model = zoo.build(own, PARTS.fit).eval()
    assert isinstance(model, MMSR)
    graph = model.prepare(PARTS.test[:9])
    x = model.embedding(graph)
    items = int(graph.type_ptr[1])
    expected = x.clone()
    expected[:items] += model.features()[graph.node_id[:items]]
    states = model.encoder(expected, graph)
    torch.testing.assert_close(model.encode(graph), model.readout(states, graph))


def test_a_modality_that_an_item_lost_at_every_step_is_in_no_first_state():
    items = np.array([0, 1, 0, 2])  # of item 0, both steps may lose it
    model = Zoo(DATA).build(replace(SMALL, score=TIED), PARTS.fit).eval()
    instances = Instances(items, np.array([0]), np.array([0]), np.array([3]))

    class Lost:
        def __init__(self, steps: list[bool]) -> None:
            self.steps = np.array(steps)

        def absent(self, _: Instances) -> dict[str, np.ndarray]:
            return {"image": self.steps}

    def added(steps: list[bool]) -> torch.Tensor:
        model.missing = Lost(steps)
        graph = model.prepare(instances)
        x = model.embedding(graph)
        return (model.first_states(graph) - x)[: int(graph.type_ptr[1])]

    whole = model.features(torch.tensor([0, 1]))
    image, text = model.features.parts(torch.tensor([0, 1]))
    torch.testing.assert_close(added([False, False, False]), whole)
    torch.testing.assert_close(added([True, False, False]), whole)
    torch.testing.assert_close(added([True, False, True])[0], text[0])
    torch.testing.assert_close(added([False, True, False])[1], text[1])
    torch.testing.assert_close(added([True, True, True]), text)
    assert image.any()


@pytest.mark.parametrize("kind", SIDED)
def test_tied_features_enter_histories_by_the_candidates_projection(kind):
    model = ZOO.build(replace(SMALL, kind=kind, score=TIED), PARTS.fit)
    assert model.side is model.features
    before = model.eval().encode(model.prepare(PARTS.test[:5]))
    with torch.no_grad():
        for part in model.features.projections:
            part.weight.mul_(2)
    assert not torch.allclose(model.encode(model.prepare(PARTS.test[:5])), before)


def test_tied_features_must_be_there_and_enter():
    with pytest.raises(ValueError, match="tied: expected features beside it, got none"):
        ScoreConfig(tied=True)
    with pytest.raises(ValueError, match=r"expected a model .* beside tied, got 'sasrec'"):
        ZOO.build(replace(SMALL, kind="sasrec", score=TIED), PARTS.fit)
    with pytest.raises(ValueError, match=r"got 'mmsr' with modalities=False"):
        ZOO.build(replace(SMALL, modalities=False, score=TIED), PARTS.fit)
    with pytest.raises(ValueError, match="to be tied, got None"):
        MMSR(36, {}, SMALL.model, tied=True)
    features = ItemFeatures({"image": torch.randn(36, 3)}, 8)
    with pytest.raises(ValueError, match=r"modalities among \[\] to be tied, got \['image'\]"):
        MMSR(36, {}, SMALL.model, features, tied=True)


def test_a_tied_model_is_made_again_by_its_recipe():
    model = ZOO.build(replace(SMALL, score=TIED), PARTS.fit).eval()
    again = MMSR.from_recipe(model.recipe())
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again.eval().score(PARTS.test), model.score(PARTS.test))


def literal_inputs(model: Sequential, row: int) -> torch.Tensor:
    instance = PARTS.test[row : row + 1]
    return model.items.weight[torch.from_numpy(instance.histories()[0])]


def test_gru4rec_is_a_gru_at_the_last_step():
    model = ZOO.build(replace(SMALL, kind="gru4rec"), PARTS.fit).eval()
    assert isinstance(model, GRU4Rec)
    for row in (0, 9):
        state = model.grus[0](literal_inputs(model, row))[0][-1]
        expected = state @ model.items.weight.T
        torch.testing.assert_close(model.score(PARTS.test[row : row + 1])[0], expected)


def test_sasrec_sees_the_whole_history_in_order():
    model = ZOO.build(replace(SMALL, kind="sasrec"), PARTS.fit).eval()
    assert isinstance(model, SASRec)
    x = literal_inputs(model, 3)
    x = x + model.positions.weight[: len(x)]
    for layer in model.layers:  # of the last step, the causal and the full attention are one
        x = layer(x.unsqueeze(0), nn.Transformer.generate_square_subsequent_mask(len(x)))[0]
    expected = model.norm(x[-1]) @ model.items.weight.T
    torch.testing.assert_close(model.score(PARTS.test[3:4])[0], expected)


def test_srgnn_against_its_formula():
    items = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 7])
    model = SRGNN(10, SequentialConfig(channels=6)).eval()
    instances = Instances(items, np.array([0]), np.array([0]), np.array([9]))
    history = items[:9].tolist()
    nodes = list(dict.fromkeys(history))
    steps = {(nodes.index(a), nodes.index(b)) for a, b in pairwise(history)}
    x = model.items.weight[nodes]
    incoming, outgoing = model.project(x).chunk(2, 1)

    def mean(neighbours: list[int], rows: torch.Tensor) -> torch.Tensor:
        return rows[neighbours].mean(0) if neighbours else torch.zeros(6)

    messages = torch.stack(
        [
            torch.cat(
                [
                    mean([a for a, b in sorted(steps) if b == i], incoming),
                    mean([b for a, b in sorted(steps) if a == i], outgoing),
                ]
            )
            for i in range(len(nodes))
        ]
    )
    graph = model.prepare(instances)
    assert graph.node_id.tolist() == nodes
    expected = model.readout(model.cell(messages, x), graph) @ model.items.weight.T
    torch.testing.assert_close(model.score(instances), expected, rtol=1e-4, atol=1e-5)


def test_layers_of_srgnn_are_steps():
    one = SRGNN(36, SequentialConfig(channels=8)).eval()
    two = SRGNN(36, SequentialConfig(channels=8, layers=2)).eval()
    two.load_state_dict(one.state_dict())
    assert not torch.allclose(two.score(PARTS.test), one.score(PARTS.test))


def test_no_modalities_to_fuse():
    bare = Zoo(Dataset("bare", DATA.items, DATA.offsets, DATA.num_items))
    for composition in (
        Composition(kind="dif_sr"),
        Composition(score=ScoreConfig(features=True)),
        Composition(score=ScoreConfig(similar=1)),
    ):
        with pytest.raises(ValueError, match="composition: expected modalities"):
            bare.build(composition, PARTS.fit)


@pytest.mark.parametrize("score", [ScoreConfig(), SCORE])
def test_evidence_without_any_or_with_features_is_refused(score):
    with pytest.raises(ValueError, match="composition: expected lags or similar, and no features"):
        ZOO.build(Composition(kind="evidence", score=score), PARTS.fit)


def test_attributes_are_a_modality_when_they_are_asked_for_or_alone():
    attributes = sparse.csr_array(
        np.arange(12) == np.arange(DATA.num_items)[:, None] % 12, dtype=np.float32
    )
    both = replace(DATA, features={**DATA.features, "attributes": attributes})
    alone = replace(DATA, features={"attributes": attributes})
    for data, asked, modalities in (
        (both, False, DATA.modalities),
        (both, True, (*DATA.modalities, "attributes")),
        (alone, False, ("attributes",)),
    ):
        model = Zoo(data).build(replace(SMALL, score=SCORE, attributes=asked), PARTS.fit)
        assert isinstance(model, MMSR)
        assert tuple(model.nodes) == modalities == model.features.modalities


def test_a_catalogue_in_pieces_has_the_same_loss_and_gradients():
    torch.manual_seed(0)
    model = ZOO.build(replace(SMALL, score=SCORE), PARTS.fit).eval().double()
    batch = model.batch(PARTS.fit.prefixes()[:50], training=True)

    def run(largest: int) -> list[torch.Tensor]:
        loss = cross_entropy(model, batch, label_smoothing=0.1, largest=largest)
        return [loss, *torch.autograd.grad(loss, list(model.parameters()))]

    expected = run(10**9)
    direct = F.cross_entropy(model(batch), batch.targets, reduction="sum", label_smoothing=0.1)
    torch.testing.assert_close(expected[0], direct)
    for largest in (1, 7 * DATA.num_items, 49 * DATA.num_items):
        for found, wanted in zip(run(largest), expected, strict=True):
            torch.testing.assert_close(found, wanted)
