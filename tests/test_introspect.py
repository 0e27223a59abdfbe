"""reached_nodes against gradients, and against products of dense matrices."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmgraph import GraphSchema, SequenceGraph
from mmgraph.builder import SequenceGraphBuilder
from mmgraph.introspect import reached_nodes
from mmgraph.nn import AsynchronousUpdate, Last, Max

SCHEMA = GraphSchema(("item", "image", "text"))
CODES = {
    "image": torch.tensor([[0, 1], [1, -1], [-1, -1], [2, 0], [3, -1], [-1, -1]]),
    "text": torch.tensor([[0], [1], [0], [-1], [2], [-1]]),
}
BUILDER = SequenceGraphBuilder(SCHEMA, CODES)
HISTORIES = st.lists(st.lists(st.integers(0, 5), max_size=7), min_size=1, max_size=4)


def by_gradient(graph, num_layers, readout, invasive):
    """The nodes of each layer's output that have a gradient from the readout."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(graph.num_nodes, 4, dtype=torch.float64, generator=generator)
    outputs = [x.requires_grad_()]
    for seed in range(num_layers):
        torch.manual_seed(seed)
        layer = AsynchronousUpdate.from_channels(4, SCHEMA, invasive=invasive, dtype=torch.float64)
        with torch.no_grad():  # scores of size one: no gradient is too small to be seen
            for parameter in layer.parameters():
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
        outputs.append(layer(outputs[-1], graph))
    loss = readout(outputs[-1], graph)
    weights = torch.randn(loss.shape, dtype=torch.float64, generator=generator)
    gradients = torch.autograd.grad((loss * weights).sum(), outputs[1:])
    return [gradient.abs().amax(1) > 0 for gradient in gradients]


@settings(max_examples=25, deadline=None)
@given(HISTORIES, st.booleans())
@example([[5, 5, 3, 5, 4, 5], [3]], False)  # some gradients here are far below 1e-12
def test_they_are_the_nodes_with_a_gradient(histories, invasive):
    graph = BUILDER(histories)
    if not graph.num_nodes:
        return
    found = reached_nodes(graph, 3)
    assert [m.tolist() for m in found] == [
        m.tolist() for m in by_gradient(graph, 3, Last(), invasive)
    ]


def test_with_a_readout_over_all_steps():
    graph = BUILDER([[0, 1, 2, 3], [4, 5]])
    found = reached_nodes(graph, 2, "steps")
    assert found[1].tolist() == (graph.node_type == 0).tolist()
    maximum = by_gradient(graph, 2, Max(), invasive=False)
    # Max takes each channel from one step, so it may leave some out, and reads no other.
    for layer in range(2):
        assert not bool((maximum[layer] & ~found[layer]).any())


@settings(max_examples=25, deadline=None)
@given(HISTORIES, st.integers(1, 4), st.data())
def test_they_follow_dense_matrices(histories, num_layers, data):
    graph = BUILDER(histories)
    size = graph.num_nodes
    mask = torch.tensor(
        data.draw(st.lists(st.booleans(), min_size=size, max_size=size)), dtype=torch.bool
    )
    dense = []
    for edges in (graph.homogeneous, graph.heterogeneous):
        matrix = torch.zeros(size, size)
        matrix[edges.centre, edges.index] = 1.0
        dense.append(matrix)
    ho, he = dense
    expected = [mask]
    for _ in range(num_layers - 1):
        row = expected[0].float()
        expected.insert(0, (row @ (ho + he + ho @ he + he @ ho)) > 0)
    found = reached_nodes(graph, num_layers, mask)
    assert [m.tolist() for m in found] == [m.tolist() for m in expected]


def test_last_is_one_item_per_history():
    graph = BUILDER([[0, 1, 2], [], [3], [4, 5, 4]])
    (mask,) = reached_nodes(graph, 1)
    assert mask.dtype == torch.bool
    nodes = mask.nonzero().squeeze(1)
    assert graph.node_type[nodes].tolist() == [0, 0, 0]
    assert graph.node_id[nodes].tolist() == [2, 3, 4]
    assert graph.batch[nodes].tolist() == [0, 2, 3]


def test_one_long_chain_is_reached_from_its_end():
    """Without other modalities a layer reads one step further back, and no more."""
    graph = SequenceGraphBuilder(GraphSchema(("item",)), {})([[0, 1, 2, 3, 4]])
    found = [mask.nonzero().squeeze(1).tolist() for mask in reached_nodes(graph, 3)]
    assert found == [[2, 3, 4], [3, 4], [4]]


def test_without_self_edges_a_node_still_scores_its_neighbours():
    graph = SequenceGraph.from_edges(
        SCHEMA,
        torch.tensor([0, 0, 0, 1, 1]),
        torch.tensor([[1, 2, 3, 4, 1, 2, 3, 4], [0, 0, 0, 0, 1, 2, 3, 4]]),
        torch.tensor(
            [SCHEMA.relation_id(r) for r in (*["next"] * 2, *["item>image"] * 2)] + [0] * 4
        ),
        step_node=torch.tensor([1, 2, 0]),
        add_self=False,
    )
    found = reached_nodes(graph, 2)
    assert found[1].tolist() == [True, False, False, False, False]
    assert found[0].tolist() == [True] * 5
    assert by_gradient(graph, 2, Last(), invasive=False)[0].tolist() == [True] * 5


@pytest.mark.parametrize("histories", [[], [[]], [[], []]])
def test_empty_batches(histories):
    assert [mask.shape for mask in reached_nodes(BUILDER(histories), 2)] == [(0,), (0,)]


def test_wrong_arguments():
    graph = BUILDER([[0, 1]])
    with pytest.raises(TypeError, match="graph: expected a SequenceGraph, got list"):
        reached_nodes([[0, 1]], 1)
    with pytest.raises(ValueError, match="num_layers: expected at least 1, got 0"):
        reached_nodes(graph, 0)
    with pytest.raises(ValueError, match="nodes: expected 'last', 'steps' or a boolean mask, got"):
        reached_nodes(graph, 1, "mean")
    with pytest.raises(TypeError, match=r"nodes: expected a boolean mask, got torch\.int64"):
        reached_nodes(graph, 1, torch.zeros(graph.num_nodes, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"nodes: expected shape \[6\].*got \[3\]"):
        reached_nodes(graph, 1, torch.zeros(3, dtype=torch.bool))


def test_a_mask_that_is_no_tensor_is_named() -> None:
    graph = SequenceGraphBuilder(GraphSchema(("item",)))([[0, 1]])
    with pytest.raises(
        TypeError, match="nodes: expected 'last', 'steps' or a boolean mask, got nd"
    ):
        reached_nodes(graph, 1, graph.node_type.numpy() == 0)  # type: ignore[arg-type]
