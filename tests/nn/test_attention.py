"""The two attentions against their equations, edge by edge."""

from __future__ import annotations

import math
import re

import pytest
import torch
from drawn import SCHEMA, draw_graph
from torch import Tensor
from torch.autograd import gradcheck

import mmgraph
from mmgraph.nn import HeterogeneousAttention, HomogeneousAttention

CHANNELS = 6


def literal(
    attention: HomogeneousAttention | HeterogeneousAttention,
    s: Tensor,
    v: Tensor,
    graph: mmgraph.SequenceGraph,
) -> tuple[Tensor, Tensor]:
    """MMSR's Eq. 12 to 14 over `graph.edge_index`, with no edge set."""
    types, heads = graph.node_type.tolist(), attention.heads
    homogeneous = isinstance(attention, HomogeneousAttention)
    split = (heads, CHANNELS // heads)
    out = torch.zeros(graph.num_nodes, *split, dtype=s.dtype)
    weights = []
    for i in range(graph.num_nodes):
        row = [
            (j, r)
            for j, c, r in zip(*graph.edge_index.tolist(), graph.edge_type.tolist(), strict=True)
            if c == i and (r == 0 or (types[i] == types[j]) == homogeneous)
        ]
        scores = []
        for j, r in row:
            if homogeneous:
                a = (s[i] @ attention.value[types[i]]).view(split)
                b = (s[j] @ attention.value[types[j]]).view(split)
                score = (attention.relation[r] * a * b).sum(-1)
            else:
                q = (s[i] @ attention.query[types[i]]).view(split)
                k = (s[j] @ attention.key[types[j]]).view(split)
                score = (q * k).sum(-1)
            scores.append(torch.where(score > 0, score, attention.negative_slope * score))
        alpha = torch.stack(scores).softmax(0)
        weights.append(alpha)
        for (j, _), weight in zip(row, alpha, strict=True):
            out[i] += weight.unsqueeze(1) * (v[j] @ attention.value[types[j]]).view(split)
    return out.flatten(1), torch.cat(weights)


@pytest.mark.parametrize("kind", [HomogeneousAttention, HeterogeneousAttention])
@pytest.mark.parametrize(("heads", "slope"), [(1, {}), (2, {}), (2, {"negative_slope": 0.4})])
def test_attention_is_its_equations(kind: type, heads: int, slope: dict[str, float]) -> None:
    graph = draw_graph(4, count=3)
    attention = kind(CHANNELS, SCHEMA, heads, dtype=torch.float64, **slope)
    assert attention.negative_slope == slope.get("negative_slope", 0.1)
    s, v = torch.randn(2, graph.num_nodes, CHANNELS, dtype=torch.float64)
    out, weights = attention(s, v, graph, return_attention=True)
    torch.testing.assert_close((out, weights), literal(attention, s, v, graph))
    steps = attention.attend(
        attention.project_scores(s, graph), attention.project_values(v, graph), graph
    )
    assert torch.equal(out, steps)


class Normalised(HomogeneousAttention):
    def project_scores(self, score_state: Tensor, graph: mmgraph.SequenceGraph) -> Tensor:
        return torch.nn.functional.normalize(super().project_scores(score_state, graph), dim=-1)


class Doubled(HomogeneousAttention):
    def project_values(self, value_state: Tensor, graph: mmgraph.SequenceGraph) -> Tensor:
        return 2 * super().project_values(value_state, graph)

    def project_scores(self, score_state: Tensor, graph: mmgraph.SequenceGraph) -> Tensor:
        return super().project_values(score_state, graph)


class NormalisesScores:
    def project_scores(self, score_state: Tensor, graph: mmgraph.SequenceGraph) -> Tensor:
        return torch.nn.functional.normalize(super().project_scores(score_state, graph), dim=-1)


class Mixed(NormalisesScores, HomogeneousAttention):
    pass


@pytest.mark.parametrize("kind", [Normalised, Doubled, Mixed])
def test_steps_that_a_subclass_changes_are_taken(kind: type) -> None:
    graph = draw_graph(5)
    x = torch.randn(graph.num_nodes, CHANNELS)
    homogeneous, heterogeneous = kind(CHANNELS, SCHEMA), HeterogeneousAttention(CHANNELS, SCHEMA)
    apart = homogeneous.attend(
        homogeneous.project_scores(x, graph), homogeneous.project_values(x, graph), graph
    )
    torch.testing.assert_close(homogeneous(x, x, graph), apart)
    plain = HomogeneousAttention(CHANNELS, SCHEMA)
    plain.load_state_dict(homogeneous.state_dict())
    assert (plain(x, x, graph) - apart).abs().max() > 1e-3
    update = mmgraph.nn.AsynchronousUpdate(homogeneous, heterogeneous, order="heterogeneous-first")
    called = mmgraph.nn.AsynchronousUpdate(
        lambda *inputs: homogeneous(*inputs),
        lambda *inputs: heterogeneous(*inputs),
        order="heterogeneous-first",
    )
    torch.testing.assert_close(update(x, graph), called(x, graph))
    update.invasive = called.invasive = True
    torch.testing.assert_close(update(x, graph), called(x, graph))


@pytest.mark.parametrize("kind", [HomogeneousAttention, HeterogeneousAttention])
def test_gradients(kind: type) -> None:
    graph = draw_graph(5, count=1)
    attention = kind(4, SCHEMA, 2, dtype=torch.float64)
    s, v = torch.randn(2, graph.num_nodes, 4, dtype=torch.float64)
    parameters = dict(attention.named_parameters())

    def call(s: Tensor, v: Tensor, *values: Tensor) -> Tensor:
        replaced = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(attention, replaced, (s, v, graph))

    inputs = (s.requires_grad_(), v.requires_grad_(), *parameters.values())
    assert gradcheck(call, inputs)


def test_value_is_shared_and_drawn_once() -> None:
    heterogeneous = HeterogeneousAttention(CHANNELS, SCHEMA)
    before = heterogeneous.value.clone()
    homogeneous = HomogeneousAttention(CHANNELS, SCHEMA, value=heterogeneous.value)
    assert homogeneous.value is heterogeneous.value
    homogeneous.reset_parameters()
    assert torch.equal(before, heterogeneous.value)
    bound = 1 / math.sqrt(CHANNELS)
    for parameter in (*homogeneous.parameters(), *heterogeneous.parameters()):
        assert parameter.abs().max() <= bound
        assert parameter.std() > 0.4 * bound


@pytest.mark.parametrize("kind", [HomogeneousAttention, HeterogeneousAttention])
def test_dropout_acts_in_training_only_and_keeps_the_mean(kind: type) -> None:
    graph = draw_graph(6, count=4)
    attention = kind(CHANNELS, SCHEMA, dropout=0.5)
    x = torch.randn(graph.num_nodes, CHANNELS)
    attention.eval()
    expected = attention(x, x, graph)
    assert torch.equal(expected, attention(x, x, graph))
    attention.train()
    outs = torch.stack([attention(x, x, graph) for _ in range(2000)])
    assert not torch.equal(outs[0], outs[1])
    torch.testing.assert_close(outs.mean(0), expected, atol=0.1, rtol=0.0)


def test_appended_relations_have_their_own_vector() -> None:
    schema = mmgraph.GraphSchema(("item", "image"), relations=("also-bought",))
    graph = mmgraph.SequenceGraph.from_edges(
        schema,
        torch.tensor([0, 0, 1]),
        torch.tensor([[1, 2], [0, 0]]),
        torch.tensor([schema.relation_id("also-bought"), schema.relation_id("item>image")]),
        step_node=torch.tensor([0, 1]),
    )
    attention = HomogeneousAttention(2, schema)
    assert attention.relation.shape == (5, 1, 2)
    x = torch.randn(3, 2)
    attention(x, x, graph).square().sum().backward()
    used = attention.relation.grad.flatten(1).abs().sum(1) > 0
    assert used.tolist() == [True, False, False, False, True]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: HomogeneousAttention(6, SCHEMA, 4), ValueError, "heads: expected a divisor of"),
        (lambda: HomogeneousAttention(0, SCHEMA), ValueError, "channels: expected at least 1"),
        (lambda: HomogeneousAttention(6, ("item",)), TypeError, "schema: expected a GraphSchema"),
        (
            lambda: HomogeneousAttention(6, SCHEMA, dropout=1.0),
            ValueError,
            "dropout: expected a probability in [0, 1), got 1.0",
        ),
        (
            lambda: HomogeneousAttention(6, SCHEMA, value=torch.nn.Parameter(torch.zeros(2, 6, 6))),
            ValueError,
            "value: expected shape [3, 6, 6] (types, in, out), got [2, 6, 6]",
        ),
        (
            lambda: HeterogeneousAttention(6, SCHEMA, value=torch.zeros(3, 6, 6)),
            TypeError,
            "value: expected a Parameter, got Tensor",
        ),
        (
            lambda: HomogeneousAttention(6, SCHEMA, dropout="0.4"),
            TypeError,
            "dropout: expected a probability, got str '0.4'",
        ),
        (
            lambda: HomogeneousAttention(6, SCHEMA).attend(X, X, GRAPH, return_attention=1),
            TypeError,
            "return_attention: expected a bool, got int 1",
        ),
        (
            lambda: HeterogeneousAttention(6, SCHEMA).attend((X, X), X, GRAPH, 1),
            TypeError,
            "return_attention: expected a bool, got int 1",
        ),
        (
            lambda: HomogeneousAttention(6, SCHEMA)(torch.zeros(1, 6), torch.zeros(1, 6), GRAPH),
            ValueError,
            "x: expected shape [",
        ),
        (
            lambda: HomogeneousAttention(6, SCHEMA)(X, X, GRAPH, return_attention=1),
            TypeError,
            "return_attention: expected a bool, got int 1",
        ),
        (
            lambda: HomogeneousAttention(6, SCHEMA)(X, X),
            TypeError,
            "graph: expected a SequenceGraph, got Tensor",
        ),
        (
            lambda: HomogeneousAttention(6, mmgraph.GraphSchema(("item",)))(X, X, GRAPH),
            ValueError,
            "graph.schema: expected GraphSchema(('item',)), got GraphSchema(('item', 'image', ",
        ),
    ],
)
def test_errors_say_what_was_expected(call: object, error: type, message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call()  # type: ignore[operator]


@pytest.mark.parametrize("kind", [HomogeneousAttention, HeterogeneousAttention])
def test_an_attention_is_a_block(kind: type) -> None:
    attention = kind(6, SCHEMA)
    x = torch.randn(GRAPH.num_nodes, 6)
    expected, weights = attention(x, x, GRAPH, return_attention=True)
    assert torch.equal(attention(x, GRAPH), expected)
    assert torch.equal(attention(x, graph=GRAPH), expected)
    assert torch.equal(attention(x, GRAPH, return_attention=True)[1], weights)
    assert torch.equal(mmgraph.nn.GraphEncoder([attention])(x, GRAPH), expected)


GRAPH = draw_graph(7, count=2)
X = torch.zeros(GRAPH.num_nodes, 6)


def test_each_relation_has_its_row_where_ids_have_gaps() -> None:
    schema = mmgraph.GraphSchema(("item", "image", "text"), relations=("bought", "seen"))
    attention = HomogeneousAttention(4, schema)
    rows = attention._by_relation_id()
    assert rows.shape[0] == schema.num_relations
    assert torch.equal(rows[list(schema.homogeneous_relations)], attention.relation)
    with pytest.raises(TypeError, match="negative_slope: expected a number, got str 'a'"):
        HomogeneousAttention(4, schema, negative_slope="a")  # type: ignore[arg-type]
