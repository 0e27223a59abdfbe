"""Models against their formulas, read out densely, one history or pair of nodes at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from examples.mmsr.generate import GenerateConfig, generate
from examples.mmsr.graphormer import FARTHEST, Graphormer
from examples.mmsr.missing import MissingConfig
from examples.mmsr.model import ModelConfig, NodesConfig
from examples.mmsr.propagation import HGAT, make_propagation
from examples.mmsr.protocol import Instances, split
from examples.mmsr.sequential import DIFSR, GRU4Rec, SASRec, Sequential, SequentialConfig
from examples.mmsr.zoo import Composition, Zoo
from mmgraph import GraphSchema, SequenceGraph

DATA = generate(GenerateConfig(dial=1, users=60, items=36, codes=4, width=16)).data
PARTS = split(DATA)
ZOO = Zoo(DATA)
SMALL = Composition(
    nodes=NodesConfig(num_codes=4),
    model=ModelConfig(channels=8),
    sequential=SequentialConfig(channels=8, layers=2),
)
BATCH = PARTS.fit.prefixes()[13::31]  # of 1 to 13 steps, so that most are padded


def drawn(module: nn.Module) -> None:
    """Every parameter counts: biases, norms and what starts at zero, too."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)


def literal_parts(model: Sequential, instance: Instances) -> list[Tensor]:
    """What features give each step, by modality: nothing where the item lacks it or lost it."""
    absent = model.missing.absent(instance)
    parts = []
    for (modality, rows), projection in zip(
        model.side.rows().items(), model.side.projections, strict=True
    ):
        has = DATA.has(modality)
        part = torch.zeros(len(instance.histories()[0]), 8, dtype=torch.float64)
        for step, item in enumerate(instance.histories()[0]):
            if has[item] and not (modality in absent and absent[modality][step]):
                part[step] = projection.weight @ rows[item]
        parts.append(part)
    return parts


def literal_items(model: Sequential, instance: Instances) -> Tensor:
    return model.items.weight[torch.from_numpy(instance.histories()[0])]


def literal_gru(gru: nn.GRU, x: Tensor) -> Tensor:
    for w, u, b, c in gru.all_weights:
        state = torch.zeros(gru.hidden_size, dtype=x.dtype)
        states = []
        for step in x:
            r, z, n = (w @ step + b).chunk(3)
            old_r, old_z, old_n = (u @ state + c).chunk(3)
            new = torch.tanh(n + torch.sigmoid(r + old_r) * old_n)
            kept = torch.sigmoid(z + old_z)
            state = kept * state + (1 - kept) * new
            states.append(state)
        x = torch.stack(states)
    return x[-1]


def literal_attention(pairs: list[tuple[Tensor, Tensor]], value: Tensor, heads: int) -> Tensor:
    """Per head over the steps so far: the products of queries and keys, scaled, then summed."""
    later = torch.ones(len(value), len(value)).triu(1).bool()
    width = value.shape[1] // heads
    attended = []
    for own in torch.arange(value.shape[1]).split(width):
        scores = sum(query[:, own] @ key[:, own].T / width**0.5 for query, key in pairs)
        weights = scores.masked_fill(later, -torch.inf).softmax(1)
        attended.append(weights @ value[:, own])
    return torch.cat(attended, 1)


def literal_gru4rec(model: GRU4Rec, instance: Instances) -> Tensor:
    streams = [literal_items(model, instance), *literal_parts(model, instance)]
    states = [literal_gru(gru, x) for gru, x in zip(model.grus, streams, strict=True)]
    return model.join(torch.cat(states))


def literal_sasrec(model: SASRec, instance: Instances) -> Tensor:
    x = literal_items(model, instance) + sum(literal_parts(model, instance))
    x = x + model.positions.weight[: len(x)]
    for layer in model.layers:
        attention = layer.self_attn
        both = layer.norm1(x) @ attention.in_proj_weight.T + attention.in_proj_bias
        query, key, value = both.chunk(3, 1)
        x = x + attention.out_proj(literal_attention([(query, key)], value, model.config.heads))
        x = x + layer.linear2(layer.linear1(layer.norm2(x)).relu())
    return model.norm(x[-1])


def literal_dif_sr(model: DIFSR, instance: Instances) -> Tensor:
    x = literal_items(model, instance)
    others = [model.positions.weight[: len(x)], *literal_parts(model, instance)]
    for layer in model.layers:
        normed = layer.norm(x)
        sources = zip(layer.scores, [normed, *others], strict=True)
        pairs = [of(source).chunk(2, 1) for of, source in sources]
        attended = literal_attention(pairs, layer.value(normed), model.config.heads)
        x = x + layer.join(attended)
        norm, first, _, _, second = layer.feed_forward
        x = x + second(first(norm(x)).relu())
    return model.norm(x[-1])


SEQUENTIAL = {
    "gru4rec_late": literal_gru4rec,
    "sasrec_early": literal_sasrec,
    "dif_sr": literal_dif_sr,
}


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("kind", SEQUENTIAL)
def test_a_history_that_features_enter_scores_by_the_formula(kind, share):
    items = BATCH.histories()[0]
    assert not any(DATA.has(modality)[items].all() for modality in DATA.modalities)
    missing = MissingConfig(DATA.modalities, share)
    model = ZOO.build(replace(SMALL, kind=kind, missing=missing), PARTS.fit).eval().double()
    drawn(model)
    states = [SEQUENTIAL[kind](model, BATCH[i : i + 1]) for i in range(len(BATCH))]
    expected = torch.stack(states) @ model.items.weight.T
    torch.testing.assert_close(model.score(BATCH), expected)


def dense_relations(graph: SequenceGraph) -> Tensor:
    """The relation of each centre's edge to each neighbour, -1 where there is none."""
    relation = torch.full((graph.num_nodes, graph.num_nodes), -1)
    for (neighbour, centre), r in zip(graph.edge_index.T, graph.edge_type, strict=True):
        relation[centre, neighbour] = r
    return relation


def literal_distances(near: Tensor) -> Tensor:
    """Edges on the shortest way between any two nodes (Floyd and Warshall)."""
    distance = torch.full(near.shape, torch.inf)
    distance[near] = 1
    distance.fill_diagonal_(0)
    for via in range(len(near)):
        distance = torch.minimum(distance, distance[:, [via]] + distance[[via]])
    return distance


def literal_graphormer(layer: Graphormer, x: Tensor, graph: SequenceGraph) -> Tensor:
    relation = dense_relations(graph)
    near = relation >= 0
    distance = literal_distances(near).clamp(max=FARTHEST).long()
    x = x + layer.degree.weight[near.sum(1).clamp(max=layer.degrees - 1)]
    query, key, value = layer.project(layer.norm(x)).chunk(3, 1)
    elsewhere = graph.batch[:, None] != graph.batch
    width = x.shape[1] // layer.heads
    attended = []
    for head, own in enumerate(torch.arange(x.shape[1]).split(width)):
        scores = query[:, own] @ key[:, own].T / width**0.5 + layer.distance[distance, head]
        scores = scores + layer.relation[relation, head].where(near, 0)
        attended.append(scores.masked_fill(elsewhere, -torch.inf).softmax(1) @ value[:, own])
    x = x + layer.join(torch.cat(attended, 1))
    norm, first, _, second = layer.feed_forward
    return x + second(F.gelu(first(norm(x))))


def literal_hgat(layer: HGAT, x: Tensor, graph: SequenceGraph) -> Tensor:
    relation = dense_relations(graph)
    projected = [row @ layer.weight[t] for row, t in zip(x, graph.node_type, strict=True)]
    value = torch.stack(projected).unflatten(1, (layer.heads, -1))
    out = torch.zeros_like(value)
    for i in range(len(x)):
        neighbours = (relation[i] >= 0).nonzero()[:, 0].tolist()
        r = relation[i, neighbours]
        for head in range(layer.heads):
            a, b = layer.centre[r, 0, head], layer.neighbour[r, 0, head]
            theirs = value[neighbours, head]
            scores = a @ value[i, head] + (b * theirs).sum(1)
            out[i, head] = F.leaky_relu(scores, 0.2).softmax(0) @ theirs
    return out.flatten(1)


LAYERS = {"graphormer": literal_graphormer, "hgat": literal_hgat}


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])  # without modalities nodes are far apart
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_updates_every_node_by_the_formula(name, share):
    missing = MissingConfig(DATA.modalities, share)
    model = ZOO.build(replace(SMALL, missing=missing), PARTS.fit)
    graph = model.prepare(BATCH)
    layer = make_propagation(name, 8, graph.schema, heads=2, dropout=0.4).eval().double()
    drawn(layer)
    x = torch.randn(graph.num_nodes, 8, dtype=torch.float64)
    torch.testing.assert_close(layer(x, graph), LAYERS[name](layer, x, graph))


def test_graphormer_takes_the_unconnected_as_far_and_large_degrees_as_the_largest():
    schema = GraphSchema(("item",))
    ends = torch.tensor([[0, 1], [1, 2], [1, 3], [5, 6]]).T
    edges = torch.cat([ends, ends.flip(0)], 1)
    relations = ["next"] * 4 + ["previous"] * 4
    graph = SequenceGraph.from_edges(
        schema,
        torch.zeros(8, dtype=torch.int64),
        edges,
        torch.tensor([schema.relation_id(relation) for relation in relations]),
        batch=torch.tensor([0, 0, 0, 0, 0, 1, 1, 1]),  # nodes 4 and 7 are alone
    )
    layer = Graphormer(8, schema, heads=2, dropout=0.4, degrees=3).eval().double()
    drawn(layer)
    x = torch.randn(8, 8, dtype=torch.float64)
    torch.testing.assert_close(layer(x, graph), literal_graphormer(layer, x, graph))
