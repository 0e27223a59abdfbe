"""The propagation baselines against PyG's, weights copied."""

from __future__ import annotations

import re

import pytest
import torch
from drawn import SCHEMA, draw_graph
from torch import Tensor
from torch.nn import Module
from torch_geometric.nn import GATConv, GatedGraphConv, GCNConv, RGATConv, SAGEConv

import mmgraph
from mmgraph.nn import GAT, GCN, GGNN, RGAT, GraphSAGE

CHANNELS = 6
EDGES = ("all", "homogeneous", "heterogeneous")


@torch.no_grad()
def gcn(ours: GCN) -> Module:
    theirs = GCNConv(CHANNELS, CHANNELS).double()
    theirs.lin.weight.copy_(ours.weight.T)
    theirs.bias.copy_(ours.bias)
    return theirs


@torch.no_grad()
def graph_sage(ours: GraphSAGE) -> Module:
    theirs = SAGEConv(CHANNELS, CHANNELS).double()
    theirs.lin_l.load_state_dict(ours.neighbours.state_dict())
    theirs.lin_r.load_state_dict(ours.root.state_dict())
    return theirs


@torch.no_grad()
def gat(ours: GAT) -> Module:
    slope = ours.negative_slope
    theirs = GATConv(CHANNELS, CHANNELS // ours.heads, ours.heads, negative_slope=slope).double()
    theirs.lin.weight.copy_(ours.weight.T)
    theirs.att_dst.copy_(ours.centre)
    theirs.att_src.copy_(ours.neighbour)
    theirs.bias.copy_(ours.bias)
    return theirs


@torch.no_grad()
def rgat(ours: RGAT) -> Module:
    theirs = RGATConv(
        CHANNELS,
        CHANNELS // ours.heads,
        SCHEMA.num_relations,
        heads=ours.heads,
        negative_slope=ours.negative_slope,
    ).double()
    theirs.weight.copy_(ours.weight)
    theirs.q.copy_(ours.query)
    theirs.k.copy_(ours.key)
    theirs.bias.copy_(ours.bias)
    return theirs


@torch.no_grad()
def ggnn(ours: GGNN) -> Module:
    theirs = GatedGraphConv(CHANNELS, ours.steps).double()
    theirs.weight.copy_(ours.weight)
    theirs.rnn.load_state_dict(ours.cell.state_dict())
    return theirs


CASES = {
    "GCN": (lambda e: GCN(CHANNELS, e), gcn),
    "GraphSAGE": (lambda e: GraphSAGE(CHANNELS, e), graph_sage),
    "GAT": (lambda e: GAT(CHANNELS, 1, e), gat),
    "GAT of two heads": (lambda e: GAT(CHANNELS, 2, e), gat),
    "GAT of a slope": (lambda e: GAT(CHANNELS, 1, e, negative_slope=0.5), gat),
    "RGAT": (lambda e: RGAT(CHANNELS, SCHEMA, 1, e), rgat),
    "RGAT of two heads": (lambda e: RGAT(CHANNELS, SCHEMA, 2, e), rgat),
    "RGAT of a slope": (lambda e: RGAT(CHANNELS, SCHEMA, 1, e, negative_slope=0.5), rgat),
    "GGNN": (lambda e: GGNN(CHANNELS, 1, e), ggnn),
    "GGNN of three steps": (lambda e: GGNN(CHANNELS, 3, e), ggnn),
}


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("name", CASES)
def test_block_equals_pyg(name: str, edges: str) -> None:
    make, copy = CASES[name]
    graph = draw_graph(9)
    block = make(edges).double()
    for parameter in block.parameters():  # biases start at zero, where none would be missed
        torch.nn.init.normal_(parameter)
    chosen = graph.edges if edges == "all" else getattr(graph, edges)
    edge_index = torch.stack([chosen.index, chosen.centre])
    theirs = copy(block)

    def call(x: Tensor) -> Tensor:
        if isinstance(theirs, RGATConv):
            return theirs(x, edge_index, chosen.relation)
        return theirs(x, edge_index)

    x = torch.randn(graph.num_nodes, CHANNELS, dtype=torch.float64, requires_grad=True)
    out, expected = block(x, graph), call(x)
    torch.testing.assert_close(out, expected)
    (gradient,) = torch.autograd.grad(out.square().sum(), x)
    (expected_gradient,) = torch.autograd.grad(expected.square().sum(), x)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("block", [GAT(CHANNELS, dropout=0.5), RGAT(CHANNELS, SCHEMA, dropout=0.5)])
def test_dropout_of_the_weights_acts_in_training_alone(block: GAT | RGAT) -> None:
    graph = draw_graph(9)
    x = torch.randn(graph.num_nodes, CHANNELS)
    assert not torch.equal(block.train()(x, graph), block(x, graph))
    assert torch.equal(block.eval()(x, graph), block(x, graph))


@pytest.mark.parametrize("name", CASES)
def test_nodes_without_edges_are_no_trouble(name: str) -> None:
    graph = mmgraph.SequenceGraph.from_edges(
        SCHEMA,
        torch.zeros(3, dtype=torch.long),
        torch.tensor([[0], [1]]),
        torch.tensor([SCHEMA.relation_id("next")]),
        step_node=torch.tensor([0, 1, 2]),
        add_self=False,
    )
    x = torch.randn(3, CHANNELS, requires_grad=True)
    block = CASES[name][0]("all")
    out = block(x, graph)
    (gradient,) = torch.autograd.grad(out.square().sum(), x)
    assert out.isfinite().all()
    assert gradient.isfinite().all()
    other = torch.cat([torch.randn(2, CHANNELS), x[2:]])  # the last one has no edge at all
    torch.testing.assert_close(block(other, graph)[2], out[2])
    assert (block(other, graph)[1] - out[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_learns(name: str) -> None:
    block = CASES[name][0]("all")
    graph = draw_graph(9)
    block(torch.randn(graph.num_nodes, CHANNELS), graph).square().sum().backward()
    for parameter_name, parameter in block.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: GCN(4, "hetero"),
            ValueError,
            "edges: expected 'all', 'homogeneous' or 'heterogeneous', got 'hetero'",
        ),
        (lambda: GAT(4, 3), ValueError, "heads: expected a divisor of channels 4, got 3"),
        (lambda: GGNN(4, 0), ValueError, "steps: expected at least 1, got 0"),
        (lambda: RGAT(4, "item"), TypeError, "schema: expected a GraphSchema, got str"),
        (
            lambda: RGAT(4, mmgraph.GraphSchema(("item",)))(torch.zeros(1, 4), draw_graph(9)),
            ValueError,
            "graph.schema: expected GraphSchema(('item',))",
        ),
        (
            lambda: GraphSAGE(4)(torch.zeros(1, 4), draw_graph(9)),
            ValueError,
            "x: expected shape [",
        ),
    ],
)
def test_errors_say_what_was_expected(call: object, error: type, message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call()  # type: ignore[operator]
