"""Whole layers: ours, PyG's, MMSR's dense layout, and the matrix products that none avoids."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from benchmarks.case import Case, Formulation, Program, leaves, measure
from benchmarks.peers import mmsr, ours, pyg
from benchmarks.peers.compiled import compiled
from benchmarks.peers.plain import EAGER, Steps
from benchmarks.peers.scatter import SCATTER
from benchmarks.row import Row, Settings
from benchmarks.workloads import WORKLOADS, Workload, small
from mmgraph import EdgeSet, SequenceGraph, kernels, nn

NAMES = ("paper", "released", "long", "wide")


def run(settings: Settings) -> Iterator[Row]:
    for case in cases(settings):
        yield from measure("propagation", case, settings)


def cases(settings: Settings) -> Iterator[Case]:
    for name in settings.chosen(NAMES):
        workload = WORKLOADS[name]
        chosen = small(workload) if settings.smoke else workload
        yield layer(chosen, settings)
        if workload.name == "paper":
            yield products(chosen)
            yield gat(chosen, settings)
            yield ggnn(chosen, settings)
            yield ggnn_aggregation(chosen, settings)
            yield rgat(chosen, settings)
            yield transformer(chosen, settings)
            yield hgt(chosen)


def layer(workload: Workload, settings: Settings) -> Case:
    """Dual attention, both orders, the gate."""
    graph, channels, x = _setting(workload)
    block = nn.AsynchronousUpdate.from_channels(channels, graph.schema)
    names = [name for name, _ in block.named_parameters()]
    nodes = 4 * x.numel()
    per_edge = 4 * (graph.homogeneous.num_edges + graph.heterogeneous.num_edges) * channels
    pairs = 4 * int(torch.bincount(graph.batch).max()) ** 2 * graph.num_graphs

    def of(
        peer: str, variant: str, passes: Callable[[], mmsr.Passes], peak: tuple[int, int]
    ) -> Formulation:
        def prepare() -> Program:
            inputs = leaves({"x": x, **dict(block.named_parameters())})
            return Program(mmsr.layer(graph, passes(), names), inputs)

        return Formulation(peer, variant, prepare, (12 * nodes + peak[0], 30 * nodes + peak[1]))

    def sparse(peer: str, ways: dict[str, type[Steps]]) -> list[Formulation]:
        found: list[Formulation] = []
        for variant, steps in ways.items():
            inside = steps.peak(graph.homogeneous, channels)
            between = steps.peak(graph.heterogeneous, channels)
            # All four passes keep what their backward passes need.
            peak = max(inside[0], between[0]), 2 * (inside[1] + between[1])
            found.append(of(peer, variant, partial(mmsr.SparsePasses, graph, steps), peak))
        return found

    def dense(variant: str, scores: str, peak: tuple[int, int]) -> Formulation:
        passes = partial(mmsr.DensePasses, graph, scores)
        return of("MMSR's dense layout", variant, passes, peak)

    tall = pairs * channels
    eager = sparse("PyTorch", EAGER)
    peaks = {
        "fused": (12 * nodes, 30 * nodes),
        "scatter": (12 * nodes + 2 * per_edge, 30 * nodes + 12 * per_edge),
        "torch": (12 * nodes + 2 * per_edge, 30 * nodes + 12 * per_edge),
    }
    return _case(
        workload,
        "layer",
        block,
        peaks,
        [
            *sparse("torch-scatter", SCATTER),
            *eager,
            *compiled(eager[0], settings),
            dense("as released", "repeated", (3 * tall + 12 * pairs, 10 * tall + 24 * pairs)),
            dense("products stored", "stored", (tall + 12 * pairs, 5 * tall + 24 * pairs)),
            dense("scores by bmm", "bmm", (24 * pairs, 48 * pairs)),
        ],
    )


def products(workload: Workload) -> Case:
    """The layer's matrix products and nothing else: each on a leaf of its own.

    V x, Q x, K x, Q s, K s and V s' by type, and the gate's 2D -> D, which counts as two.
    """
    graph, channels, x = _setting(workload)
    parts = x.split(graph.type_ptr.diff().tolist())
    inputs: dict[str, Tensor] = {}
    for product in ("V x", "Q x", "K x", "Q s", "K s", "V s'"):
        for t, part in enumerate(parts):
            inputs[f"{product}, state {t}"] = part
            inputs[f"{product}, matrix {t}"] = torch.randn(channels, channels) / channels**0.5
    inputs["gate, states"] = torch.cat([x, x], 1)
    inputs["gate, matrix"] = torch.randn(2 * channels, channels) / channels**0.5

    def function(*leaves: Tensor) -> list[Tensor]:
        return [a @ b for a, b in zip(leaves[::2], leaves[1::2], strict=True)]

    return Case(
        workload.name,
        "the layer's eight matrix products",
        [Formulation("PyTorch", "", lambda: Program(function, leaves(inputs)))],
        lambda: Program(function, leaves(inputs, torch.float64)),
        edges=graph.num_edges,
    )


def gat(workload: Workload, settings: Settings) -> Case:
    graph, channels, x = _setting(workload)
    block = nn.GAT(channels)

    def theirs() -> Module:
        from torch_geometric.nn import GATConv

        conv = GATConv(channels, channels, add_self_loops=False)  # the graph has them already
        with torch.no_grad():
            conv.lin.weight.copy_(block.weight.T)
            conv.att_dst.copy_(block.centre)
            conv.att_src.copy_(block.neighbour)
        return conv

    peak = _peak(graph.edges, channels, (2, 4))
    peers = pyg.formulations(
        theirs, x, graph.edges, ("edge_index", "EdgeIndex", "SparseTensor"), peak
    )
    return _case(workload, "GAT", block, _peaks(graph, channels), peers, settings)


def ggnn(workload: Workload, settings: Settings) -> Case:
    """One step of a gated graph network."""
    graph, channels, x = _setting(workload)
    block = nn.GGNN(channels)

    def theirs() -> Module:
        from torch_geometric.nn import GatedGraphConv

        conv = GatedGraphConv(channels, 1)
        with torch.no_grad():
            conv.weight.copy_(block.weight)
            conv.rnn.load_state_dict(block.cell.state_dict())
        return conv

    peers = pyg.formulations(
        theirs, x, graph.edges, pyg.FORMS, _peak(graph.edges, channels, (1, 2))
    )
    return _case(workload, "GGNN", block, _peaks(graph, channels), peers, settings)


def ggnn_aggregation(workload: Workload, settings: Settings) -> Case:
    """What a step of a gated graph network sums from neighbours."""
    graph, channels, x = _setting(workload)

    class Sum(Module):
        def forward(self, x: Tensor, graph: SequenceGraph) -> Tensor:
            return kernels.aggregate(x.unsqueeze(1), graph.edges).squeeze(1)

    def theirs() -> Module:
        from torch_geometric.nn import SimpleConv

        return SimpleConv(aggr="sum")  # GatedGraphConv's messages, without its weights

    peers = pyg.formulations(
        theirs, x, graph.edges, pyg.FORMS, _peak(graph.edges, channels, (1, 2))
    )
    peaks = _peaks(graph, channels)
    return _case(workload, "GGNN's aggregation", Sum(), peaks, peers, settings)


def rgat(workload: Workload, settings: Settings) -> Case:
    graph, channels, x = _setting(workload)
    edges = graph.edges
    relations = graph.schema.num_relations
    block = nn.RGAT(channels, graph.schema)

    def theirs() -> Module:
        from torch_geometric.nn import RGATConv

        conv = RGATConv(channels, channels, relations)
        with torch.no_grad():
            conv.weight.copy_(block.weight)
            conv.q.copy_(block.query)
            conv.k.copy_(block.key)
        return conv

    # A matrix per edge, of which the backward pass holds three at once.
    peak = _peak(edges, channels**2, (1, 3))
    peers = pyg.formulations(
        theirs,
        x,
        edges,
        ("edge_index",),
        peak,
        call=lambda conv, x, index: conv(x, index, edges.relation),
    )
    return _case(workload, "RGAT", block, _peaks(graph, channels), peers, settings)


def transformer(workload: Workload, settings: Settings) -> Case:
    """TransformerConv, and the same composed of our attention."""
    graph, channels, x = _setting(workload)
    lin = ("lin_query", "lin_key", "lin_value", "lin_skip")

    class Ours(Module):
        """Parameters under the names that TransformerConv gives them."""

        def __init__(self) -> None:
            super().__init__()
            for name in lin:
                setattr(self, name, torch.nn.Linear(channels, channels))

        def forward(self, x: Tensor, graph: SequenceGraph) -> Tensor:
            query, key, value, skip = (getattr(self, name)(x) for name in lin)
            query = query / math.sqrt(channels)
            heads = (state.unsqueeze(1) for state in (query, key, value))
            return kernels.edge_attention(*heads, graph.edges).squeeze(1) + skip

    block = Ours()

    def theirs() -> Module:
        from torch_geometric.nn import TransformerConv

        conv = TransformerConv(channels, channels)
        conv.load_state_dict(block.state_dict())
        return conv

    peak = _peak(graph.edges, channels, (4, 8))
    peers = pyg.formulations(theirs, x, graph.edges, ("edge_index", "EdgeIndex"), peak)
    return _case(workload, "TransformerConv", block, _peaks(graph, channels), peers, settings)


def hgt(workload: Workload) -> Case:
    """HGTConv, for its own sake: mmgraph has no layer that computes the same."""
    graph, channels, x = _setting(workload)
    weights: dict[str, Tensor] = {}

    def make(metadata: Any) -> Module:
        from torch_geometric.nn import HGTConv

        conv = HGTConv(channels, channels, metadata)
        weights.update(weights or copy.deepcopy(conv.state_dict()))
        conv.load_state_dict(weights)
        return conv

    prepare = pyg.hgt(make, x, graph)
    return Case(
        workload.name,
        "HGTConv",
        [Formulation("PyG", "edge_index", prepare, _peak(graph.edges, channels, (6, 12)))],
        lambda: prepare(torch.float64),
        edges=graph.num_edges,
    )


def _setting(workload: Workload) -> tuple[SequenceGraph, int, Tensor]:
    """Graph, channels, and states as a model's embedding draws them."""
    graph = workload.graph()
    torch.manual_seed(workload.seed)
    return graph, workload.channels, torch.randn(graph.num_nodes, workload.channels)


def _peaks(graph: SequenceGraph, channels: int) -> dict[str, tuple[int, int]]:
    per_edge = _peak(graph.edges, channels, (3, 6))
    return {"fused": (0, 0), "scatter": per_edge, "torch": per_edge}


def _peak(edges: EdgeSet, channels: int, rows: tuple[int, int]) -> tuple[int, int]:
    """Bytes of so many tensors of a row per edge."""
    one = 4 * edges.num_edges * channels
    return rows[0] * one, rows[1] * one


def _case(
    workload: Workload,
    name: str,
    block: Module,
    peaks: dict[str, tuple[int, int]],
    peers: list[Formulation],
    settings: Settings | None = None,
) -> Case:
    """Our block on every backend, its plain PyTorch compiled where settings are given, peers."""
    graph, _, x = _setting(workload)

    def program(dtype: torch.dtype = torch.float32) -> Program:
        own = copy.deepcopy(block).to(dtype)
        inputs = {**leaves({"x": x}, dtype), **dict(own.named_parameters())}
        return Program(lambda x, *_: own(x, graph), inputs)

    our = ours.formulations(program, peaks)
    if settings is not None:
        plain = replace(our[-1], peer="PyTorch", variant="mmgraph's torch backend")
        peers = [*compiled(plain, settings), *peers]
    return Case(
        workload.name, name, [*our, *peers], lambda: program(torch.float64), edges=graph.num_edges
    )
