from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from examples.mmsr import dial as experiment
from examples.mmsr import gate
from examples.mmsr.generate import GenerateConfig, generate
from examples.mmsr.items import ItemFeatures, reduced
from examples.mmsr.metrics import rank_all, summarise
from examples.mmsr.model import MMSR, ModelConfig, NodesConfig, make_nodes
from examples.mmsr.protocol import Instances, split
from examples.mmsr.recommend import as_instance
from examples.mmsr.train import TrainingConfig

CONFIG = ModelConfig(channels=8, max_length=10)


@pytest.fixture(scope="module")
def test() -> Instances:
    return split(generate(GenerateConfig(users=40, items=36, codes=4, width=16)).data).test


@pytest.fixture(params=[(1, False), (2, True)], ids=["one layer", "two invasive layers"])
def model(request: pytest.FixtureRequest) -> MMSR:
    data = generate(GenerateConfig(users=40, items=36, codes=4, width=16)).data
    layers, invasive = request.param
    config = replace(CONFIG, layers=layers, invasive=invasive)
    return MMSR(36, make_nodes(data, NodesConfig(num_codes=4), 8), config).eval()


@pytest.mark.parametrize("model", [(1, False), (1, True)], indirect=True)
@pytest.mark.parametrize("order", ["homogeneous-first", "heterogeneous-first"])
def test_a_fixed_gate_is_the_layer_of_one_order(model, test, order):
    alone = MMSR(36, model.nodes, replace(model.config, order=order)).eval()
    state = {name: value for name, value in model.state_dict().items() if ".gate." not in name}
    alone.load_state_dict(state)
    found = gate.forced(model, test)
    assert found["gate"] == summarise(rank_all(model.score, test))
    assert found[order] == summarise(rank_all(alone.score, test))
    assert found["homogeneous-first"] != found["heterogeneous-first"]
    assert not isinstance(model.encoder.layers[-1].gate, gate.FixedGate)


def test_only_the_last_of_shared_layers_has_its_gate_fixed(test):
    data = generate(GenerateConfig(users=40, items=36, codes=4, width=16)).data
    config = replace(CONFIG, layers=2, shared_layers=True)
    shared = MMSR(36, make_nodes(data, NodesConfig(num_codes=4), 8), config).eval()
    apart = MMSR(36, shared.nodes, replace(config, shared_layers=False)).eval()
    apart.load_state_dict(shared.state_dict())
    assert gate.forced(shared, test) == gate.forced(apart, test)


def test_weights_are_read_at_the_last_item_of_each_history(model, test):
    found = gate.read(model, test, batch_size=7)
    *before, layer = model.encoder.layers
    ho, he = layer.homogeneous, layer.heterogeneous
    expected, own_hohe, own_heho = [], [], []
    for row in range(len(test)):
        graph = model.prepare(test[row : row + 1])
        x, last = model.embedding(graph), graph.step_node[-1]
        _, weights = model.encoder(x, graph, return_gates=True)
        expected.append(weights[-1][last, 0].item())
        for below in before:
            x = below(x, graph)
        for own, one, two, edges in (
            (own_hohe, ho, he, graph.heterogeneous),
            (own_heho, he, ho, graph.homogeneous),
        ):
            _, attention = two(one(x, graph), graph, return_attention=True)
            own.append(attention[(edges.index == last) & (edges.centre == last)].mean().item())
    assert found == pytest.approx(
        {
            "mean": np.mean(expected),
            "spread": np.std(expected),
            "self, homogeneous-first": np.mean(own_hohe),
            "self, heterogeneous-first": np.mean(own_heho),
        },
        abs=1e-6,
    )


def test_behind_another_readout_they_are_read_at_every_step(model, test):
    soft = MMSR(36, model.nodes, replace(model.config, readout="soft_attention")).eval()
    found = gate.read(soft, test, batch_size=7)
    expected = []
    for row in range(len(test)):
        graph = soft.prepare(test[row : row + 1])
        _, weights = soft.encoder(soft.embedding(graph), graph, return_gates=True)
        expected += weights[-1][graph.step_node.unique(), 0].tolist()
    assert found["mean"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert gate.readable(soft)
    assert not gate.readable(MMSR(36, model.nodes, replace(model.config, readout="recent")))
    assert not gate.readable(MMSR(36, model.nodes, replace(model.config, update="synchronous")))


def test_it_reads_the_layers_that_the_scores_come_from(test):
    data = generate(GenerateConfig(users=40, items=36, codes=4, width=16)).data
    nodes = make_nodes(data, NodesConfig(num_codes=4), 8)
    features = ItemFeatures(reduced(data, 8), 8)
    model = MMSR(36, nodes, CONFIG, features, tied=True).eval()
    graph = model.prepare(test[:9])
    states, _ = gate._last_layer(model, graph)
    torch.testing.assert_close(
        model.readout(model.encoder.layers[-1](states, graph), graph), model.encode(graph)
    )


def test_a_step_without_codes_or_neighbours_attends_to_itself(model):
    for nodes in model.nodes.values():
        nodes.codes[5] = -1
    alone = MMSR(36, model.nodes, model.config).eval()
    found = gate.read(alone, as_instance([5]))
    assert found["self, homogeneous-first"] == pytest.approx(1)
    assert found["self, heterogeneous-first"] == pytest.approx(1)


def test_picture(model, test, tmp_path):
    gate.draw(model, test[:9], tmp_path / "gate.png")
    assert (tmp_path / "gate.png").stat().st_size > 1000


def test_the_experiment_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment, "MODEL", CONFIG)
    monkeypatch.setattr(experiment, "NODES", NodesConfig(num_codes=4))
    monkeypatch.setattr(
        experiment, "TRAINING", TrainingConfig(epochs=1, learning_rate=0.01, batch_size=256)
    )
    small = {"users": 40, "items": 36, "codes": 4, "width": 16}
    monkeypatch.setattr(
        experiment, "GenerateConfig", lambda **given: GenerateConfig(**small, **given)
    )
    fitted = []
    fit = experiment.fit

    def counting(*arguments):
        fitted.append(arguments[-1].name)
        return fit(*arguments)

    monkeypatch.setattr(experiment, "fit", counting)

    def run(dials: list[float]) -> list[str]:
        experiment.dial(str(tmp_path), dials, layers=[1], invasive=[False, True], seeds=[0, 1])
        return capsys.readouterr().out.strip().splitlines()

    first = run([0.0])
    assert len(fitted) == 4
    assert len(first) == 2 + 2
    both = run([0.0, 1.0])
    assert len(fitted) == 8
    assert set(first) < set(both)
    assert run([0.0, 1.0]) == both
    assert len(fitted) == 8
    cells = [cell.strip() for cell in both[2].split("|")[1:-1]]
    assert cells[:3] == ["1", "no", "0"]
    weights = [float(weight) for weight in cells[3].split(",")]
    assert float(cells[4]) == pytest.approx(np.mean(weights), abs=0.011)
