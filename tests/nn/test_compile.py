"""Layers under torch.compile: one graph, the same numbers, and few recompilations."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from drawn import NUM_CODES, NUM_ITEMS, SCHEMA, draw_codes
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn import Module

import mmgraph
from mmgraph import SequenceGraph, nn

CHANNELS = 4
TABLES = {"item": NUM_ITEMS, "image": NUM_CODES, "text": NUM_CODES}
LAYERS: dict[str, Callable[[], Module]] = {
    "AsynchronousUpdate": lambda: nn.AsynchronousUpdate.from_channels(CHANNELS, SCHEMA, heads=2),
    "SynchronousUpdate": lambda: nn.SynchronousUpdate.from_channels(CHANNELS, SCHEMA),
    "HomogeneousAttention": lambda: nn.HomogeneousAttention(CHANNELS, SCHEMA),
    "HeterogeneousAttention": lambda: nn.HeterogeneousAttention(CHANNELS, SCHEMA),
    "GCN": lambda: nn.GCN(CHANNELS),
    "GraphSAGE": lambda: nn.GraphSAGE(CHANNELS),
    "GAT": lambda: nn.GAT(CHANNELS, heads=2),
    "RGAT": lambda: nn.RGAT(CHANNELS, SCHEMA),
    "GGNN": lambda: nn.GGNN(CHANNELS),
    "NodeEmbedding": lambda: Embedded(),
    "Last": nn.Last,
    "Mean": nn.Mean,
    "Max": nn.Max,
    "Recent": lambda: nn.Recent(2),
    "SoftAttention": lambda: nn.SoftAttention(CHANNELS),
}


class Embedded(Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.NodeEmbedding(SCHEMA, TABLES, CHANNELS, max_length=8)

    def forward(self, x: Tensor, graph: SequenceGraph) -> Tensor:
        embedded: Tensor = self.embedding(graph)
        return embedded + x


class Recommender(Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = Embedded()
        update = nn.AsynchronousUpdate.from_channels(CHANNELS, SCHEMA)
        self.encoder = nn.GraphEncoder([update], dropout=0.0)
        self.readout = nn.Last()

    def forward(self, x: Tensor, graph: SequenceGraph) -> Tensor:
        states = self.readout(self.encoder(self.embedding(x, graph), graph), graph)
        scores: Tensor = states @ self.embedding.embedding.table("item").T
        return scores


def draw_batches(count: int) -> Iterator[SequenceGraph]:
    """Batches of a stream: what it is mostly made of, and every now and then a rare one.

    Sizes of 0 and 1 are always compiled in: each kind of batch with other such sizes of nodes,
    steps and graphs has a graph of its own.
    """
    rng = np.random.default_rng(0)
    builder = mmgraph.SequenceGraphBuilder(SCHEMA, codes=draw_codes(0), max_length=8)
    rare = [
        builder([[3]], present={"image": [False], "text": [False]}),  # one node, one edge
        builder([[3, 5, 3]]),  # one graph
        builder([[3]]),  # one step
        builder([[]]),  # no node, no edge
        builder([[], []]),
    ]
    for number in range(count):
        if number % 8 == 7 and number // 8 < len(rare):
            yield rare[number // 8]
            continue
        lengths = [2, *rng.integers(9, size=rng.integers(1, 6)).tolist()]
        histories = [rng.integers(NUM_ITEMS, size=length).tolist() for length in lengths]
        present = {
            modality: (rng.random(sum(lengths)) < rng.choice([0.0, 0.8, 1.0])).tolist()
            for modality in SCHEMA.modalities[1:]
        }
        yield builder(histories, present=present)


def assert_equal_to_eager(layer: Module, compiled: Callable[..., Tensor], graph: object) -> None:
    assert isinstance(graph, SequenceGraph)
    x = torch.randn(graph.num_nodes, CHANNELS)
    results = []
    for run in (layer, compiled):
        leaf = x.clone().requires_grad_()
        out = run(leaf, graph)
        generator = torch.Generator().manual_seed(0)
        total = (out * torch.randn(out.shape, generator=generator)).sum()
        results.append([out.detach()])
        if total.requires_grad:  # zeros for empty histories need no gradient
            leaves = [leaf, *layer.parameters()]
            results[-1] += torch.autograd.grad(
                total, leaves, allow_unused=True, materialize_grads=True
            )
    for eager, got in zip(*results, strict=True):
        torch.testing.assert_close(got, eager)


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize(("backend", "batches"), [("auto", 64), ("torch", 40)])
@pytest.mark.parametrize("name", LAYERS)
def test_each_layer_takes_a_stream_of_batches(name: str, backend: str, batches: int) -> None:
    layer = LAYERS[name]()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    with mmgraph.use_backend(backend):
        for graph in draw_batches(batches):
            assert_equal_to_eager(layer, compiled, graph)
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] <= torch._dynamo.config.recompile_limit


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_an_update_of_another_type_compiles(dtype: torch.dtype) -> None:
    layer = nn.AsynchronousUpdate.from_channels(CHANNELS, SCHEMA, dtype=dtype)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    (graph,) = draw_batches(1)
    x = torch.randn(graph.num_nodes, CHANNELS, dtype=dtype)
    torch.testing.assert_close(compiled(x, graph), layer(x, graph))


@pytest.mark.slow
def test_a_recommender_takes_200_batches() -> None:
    layer = Recommender()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for graph in draw_batches(200):
        assert_equal_to_eager(layer, compiled, graph)
    assert counters["stats"]["unique_graphs"] <= torch._dynamo.config.recompile_limit


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_inductor_compiles_each_layer(name: str) -> None:
    layer = LAYERS[name]()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True)
    for graph in draw_batches(4):
        assert_equal_to_eager(layer, compiled, graph)
    assert counters["stats"]["unique_graphs"] == 1
