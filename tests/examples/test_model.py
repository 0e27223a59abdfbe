from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from examples.mmsr.data import Dataset
from examples.mmsr.generate import GenerateConfig, Generated, generate
from examples.mmsr.graphormer import Graphormer
from examples.mmsr.metrics import rank_all
from examples.mmsr.model import MMSR, ModelConfig, NodesConfig, make_nodes
from examples.mmsr.propagation import HGAT, PROPAGATION, make_propagation
from examples.mmsr.protocol import Instances, split
from mmgraph import GraphSchema
from mmgraph.nn import (
    GAT,
    GCN,
    GGNN,
    RGAT,
    GraphSAGE,
    HeterogeneousAttention,
    HomogeneousAttention,
)

SMALL = ModelConfig(channels=8, max_length=12)
ATTENTIVE = [name for name in PROPAGATION if name not in ("gcn", "graphsage", "ggnn")]


@pytest.fixture(scope="module")
def generated() -> Generated:
    return generate(GenerateConfig(users=40, items=64, codes=6, width=16, missing=0.2))


@pytest.fixture(scope="module")
def data(generated: Generated) -> Dataset:
    return generated.data


@pytest.fixture(scope="module")
def instances(data: Dataset) -> Instances:
    return split(data).train.prefixes()


CODES = NodesConfig(num_codes=6)


def make(data: Dataset, config: ModelConfig, nodes: NodesConfig = CODES) -> MMSR:
    return MMSR(data.num_items, make_nodes(data, nodes, config.channels), config)


def gradients(model: MMSR, instances: Instances) -> dict[str, torch.Tensor]:
    loss = F.cross_entropy(model(model.batch(instances)), torch.from_numpy(instances.targets))
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def untouched(grads: dict[str, torch.Tensor], model: MMSR) -> set[str]:
    """The parameters, and the slices per type or relation, that get no gradient."""
    types, relations = model.schema.modalities, model.schema.relations
    names = {"query": types, "key": types, "value": types, "relation": relations}
    lacking = set()
    for name, grad in grads.items():
        if grad is None or not grad.any():
            lacking.add(name)
            continue
        last = name.rpartition(".")[2]
        rows = types if name == "embedding.type_embedding" else names.get(last, ())
        for row, label in zip(grad, rows, strict=False):
            if not row.any():
                lacking.add(f"{name}[{label}]")
    return lacking


# Behind the last readout, a node of another modality never asks in the last layer: its own query
# could only change its own state, which nobody reads.
UNREAD = {"heterogeneous.query[image]", "heterogeneous.query[text]"}


@pytest.mark.parametrize("invasive", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_gradients_of_the_default_model(data, instances, layers, invasive):
    config = replace(ModelConfig(), layers=layers, invasive=invasive, channels=16)
    model = make(data, config)
    lacking = untouched(gradients(model, instances), model)
    assert lacking == {f"encoder.layers.{layers - 1}.{name}" for name in UNREAD}


def as_id(changes: dict) -> str:
    return "-".join(f"{k}={v}" for k, v in changes.items())


@pytest.mark.parametrize(
    "changes",
    [
        {"update": "synchronous"},
        {"update": "released"},
        {"order": "homogeneous-first"},
        {"order": "heterogeneous-first"},
        {"layers": 2, "shared_layers": True},
        {"heads": 2, "residual": True, "norm": True},
        {"use_type": False, "use_position": False},
        {"readout": "mean"},
        {"readout": "max"},
        {"readout": "recent", "recent": 2},
        {"readout": "soft_attention"},
    ],
    ids=as_id,
)
def test_every_composition_trains(data, instances, changes):
    config = replace(SMALL, **changes)
    model = make(data, config)
    grads = gradients(model, instances)
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
    # A softmax over two scores does not see what is added to both.
    unseen = {"encoder.layers.0.gate.mlp.2.bias"} if config.update == "released" else set()
    assert {name for name, grad in grads.items() if not grad.any()} <= unseen
    again = MMSR.from_recipe(model.recipe())
    assert again.config == model.config
    again.load_state_dict(model.state_dict())
    few = instances[:7]
    torch.testing.assert_close(again.eval().score(few), model.eval().score(few))


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": 2},
        {"heads": 2},
        {"order": "homogeneous-first"},
        {"order": "heterogeneous-first"},
        {"invasive": True},
        {"residual": True},
        {"norm": True},
        {"use_type": False},
        {"use_position": False},
        {"max_length": 2},
        {"recent": 2},
        *({"readout": name} for name in ("mean", "max", "recent", "soft_attention")),
        *({"update": name} for name in ("synchronous", "released", *PROPAGATION)),
    ],
    ids=as_id,
)
def test_each_option_makes_another_model(data, instances, changes):
    def scores(config: ModelConfig) -> torch.Tensor:
        model = make(data, config).eval()
        torch.manual_seed(0)  # an option that is passed over leaves the same model
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        return model.score(instances[-40:])

    base = replace(SMALL, readout="recent") if "recent" in changes else SMALL
    assert not torch.allclose(scores(replace(base, **changes)), scores(base))


def test_a_propagation_is_what_its_name_says():
    classes = {
        "homogeneous": HomogeneousAttention,
        "heterogeneous": HeterogeneousAttention,
        "gcn": GCN,
        "graphsage": GraphSAGE,
        "gat": GAT,
        "rgat": RGAT,
        "ggnn": GGNN,
        "hgat": HGAT,
        "graphormer": Graphormer,
    }
    assert classes.keys() == PROPAGATION.keys()
    for name, kind in classes.items():
        layer = make_propagation(name, 8, GraphSchema(("item", "image")), 2, 0.3)
        assert type(layer) is kind
        if name in ATTENTIVE:
            assert (layer.heads, layer.dropout) == (2, 0.3)


@pytest.mark.parametrize("update", ["asynchronous", "synchronous", "released", *ATTENTIVE])
def test_attention_dropout_acts_in_training_alone(data, instances, update):
    model = make(data, replace(SMALL, update=update, dropout=0.0))
    graph = model.prepare(instances[-40:])
    assert not torch.equal(model.train().encode(graph), model.encode(graph))
    assert torch.equal(model.eval().encode(graph), model.encode(graph))


def test_shared_layers_are_one(data):
    def count(model: MMSR) -> int:
        return sum(parameter.numel() for parameter in model.encoder.parameters())

    one = make(data, SMALL)
    assert count(make(data, replace(SMALL, layers=3, shared_layers=True))) == count(one)
    assert count(make(data, replace(SMALL, layers=3))) == 3 * count(one)


def test_items_are_scored_by_their_own_embeddings(data, instances):
    model = make(data, SMALL).eval()
    few = instances[:5]
    graph = model.prepare(few)
    expected = model.encode(graph) @ model.embedding.table("item").T
    torch.testing.assert_close(model.score(few), expected)
    assert model.score(few).shape == (5, data.num_items)


def test_a_history_scores_the_same_alone(data, instances):
    model = make(data, SMALL).eval()
    together = model.score(instances[:20])
    for row in (0, 7, 19):
        alone = model.score(instances[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], atol=1e-6, rtol=1e-5)
    np.testing.assert_array_equal(
        rank_all(model.score, instances[:20], batch_size=3),
        rank_all(model.score, instances[:20], batch_size=20),
    )


def test_only_the_last_steps_count(data, instances):
    model = make(data, replace(SMALL, max_length=4)).eval()
    long = instances[instances.target - instances.start > 6][:3]
    short = Instances(long.items, long.user, long.target - 4, long.target)
    torch.testing.assert_close(model.score(long), model.score(short))


class TestNodes:
    def test_codes_follow_the_features_and_what_is_missing(self, generated):
        data = generated.data
        nodes = make_nodes(data, NodesConfig(num_codes=6, k=2), channels=8)
        assert list(nodes) == ["image", "text"]
        for modality, found in nodes.items():
            assert found.codes.shape == (data.num_items, 2)
            missing = (found.codes == -1).all(1).numpy()
            np.testing.assert_array_equal(missing, ~data.has(modality))
            assert found.size == 6
            assert found.centres.shape == (6, 8)
            # the nearest code is the planted one, under another name
            nearest, planted = found.codes[~missing, 0].numpy(), generated.code[modality][~missing]
            assert len(set(zip(nearest, planted, strict=True))) == 6

    def test_centres_follow_the_metric(self, data):
        cosine, euclidean = (
            make_nodes(data, NodesConfig(num_codes=6, metric=metric), 8)["image"].centres
            for metric in ("cosine", "euclidean")
        )
        torch.testing.assert_close(cosine.norm(dim=1), torch.ones(6))
        assert not torch.allclose(euclidean.norm(dim=1), torch.ones(6))

    def test_without_centres(self, data):
        nodes = make_nodes(data, NodesConfig(num_codes=6, from_centres=False), channels=8)
        assert nodes["image"].centres is None
        assert nodes["image"].source() == 6

    def test_features_as_nodes(self, data, instances):
        model = make(data, SMALL, NodesConfig(kind="features"))
        assert model.nodes["image"].codes[:, 0].unique().numel() > 40
        lacking = [name for name, grad in gradients(model, instances).items() if not grad.any()]
        assert lacking == []
        again = MMSR.from_recipe(model.recipe())
        again.load_state_dict(model.state_dict())
        torch.testing.assert_close(
            again.eval().score(instances[:4]), model.eval().score(instances[:4])
        )

    def test_without_any_modality(self, data, instances):
        bare = replace(data, features={})
        model = make(bare, SMALL)
        assert model.schema.modalities == ("item",)
        assert model.score(instances[:3]).isfinite().all()
