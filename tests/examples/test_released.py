"""The released layer's composition against values that the authors' code gave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import mmgraph
from examples.mmsr.released import ReleasedUpdate

GOLDEN = Path(__file__).parent.parent / "golden"
SCHEMA = mmgraph.GraphSchema(("item", "image", "text"))
FIRST_ID = {"item": 0, "image": 100, "text": 120}


@pytest.fixture(params=["plain", "repeats", "missing"])
def golden(request: pytest.FixtureRequest) -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / f"released_{request.param}.npz") as arrays:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.fixture
def graph(golden: dict[str, torch.Tensor]) -> mmgraph.SequenceGraph:
    codes = {}
    for modality in ("image", "text"):
        ids = golden[f"{modality}_codes"].long()
        codes[modality] = torch.where(ids < 0, -1, ids - FIRST_ID[modality])
    builder = mmgraph.SequenceGraphBuilder(SCHEMA)
    return builder([golden["items"].tolist()], codes=codes)


@pytest.fixture
def order(golden: dict[str, torch.Tensor], graph: mmgraph.SequenceGraph) -> torch.Tensor:
    """The golden row of each of our nodes."""
    ids = graph.node_id + torch.tensor(list(FIRST_ID.values()))[graph.node_type]
    row = {node: at for at, node in enumerate(golden["node_id"].tolist())}
    assert sorted(row) == sorted(ids.tolist())
    return torch.tensor([row[node] for node in ids.tolist()])


@pytest.fixture
def layer(golden: dict[str, torch.Tensor]) -> ReleasedUpdate:
    layer = ReleasedUpdate(golden["hidden"].shape[1], SCHEMA).eval()
    with torch.no_grad():
        layer.homogeneous.value.copy_(golden["type_projection"])
        layer.homogeneous.relation.copy_(golden["relation_vector"][:, None])
        for linear, number in ((layer.gate.mlp[0], 1), (layer.gate.mlp[2], 2)):
            linear.weight.copy_(golden[f"gate_weight_{number}"])
            linear.bias.copy_(golden[f"gate_bias_{number}"])
    return layer


def test_graph(golden, graph, order):
    adjacency = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.long)
    neighbour, centre = graph.edge_index
    adjacency[centre, neighbour] = graph.edge_type + 1
    assert torch.equal(adjacency, golden["adjacency"].long()[order][:, order])


def test_passes(golden, graph, order, layer):
    hidden = golden["hidden"][order]
    projected = layer.homogeneous.project_values(hidden, graph)
    ho, ho_weights = layer.homogeneous.attend(projected, projected, graph, return_attention=True)
    he, he_weights = layer.heterogeneous.attend(
        (projected, projected), projected, graph, return_attention=True
    )
    for name, out, weights, edges in (
        ("homogeneous", ho, ho_weights, graph.homogeneous),
        ("heterogeneous", he, he_weights, graph.heterogeneous),
    ):
        torch.testing.assert_close(out, golden[name][order], atol=1e-5, rtol=0)
        dense = torch.zeros(graph.num_nodes, graph.num_nodes)
        dense[edges.centre, edges.index] = weights[:, 0]
        wanted = golden[f"{name}_weights"][order][:, order]
        torch.testing.assert_close(dense, wanted, atol=1e-5, rtol=0)


def test_layer(golden, graph, order, layer):
    out, gate = layer(golden["hidden"][order], graph, return_gate=True)
    torch.testing.assert_close(gate, golden["gate"][order], atol=1e-5, rtol=0)
    torch.testing.assert_close(out, golden["output"][order], atol=1e-5, rtol=0)
    candidates = golden["homogeneous_first"][order], golden["heterogeneous_first"][order]
    mixed = gate[:, :1] * candidates[0] + gate[:, 1:] * candidates[1]
    torch.testing.assert_close(out, mixed, atol=1e-5, rtol=0)
