"""A pass of message passing by every peer, and the operations that it is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.case import Case, Formulation, Program, leaves, measure
from benchmarks.peers import ours
from benchmarks.peers.compiled import compiled
from benchmarks.peers.plain import EAGER, IndexAdd, Steps, attention
from benchmarks.peers.scatter import SCATTER
from benchmarks.row import Row, Settings
from benchmarks.workloads import WORKLOADS, Workload, small
from mmgraph import EdgeSet, kernels

NAMES = tuple(WORKLOADS)
HETEROGENEOUS, HOMOGENEOUS = "heterogeneous pass", "homogeneous pass"


def run(settings: Settings) -> Iterator[Row]:
    for case in cases(settings):
        yield from measure("kernels", case, settings)


def cases(settings: Settings) -> Iterator[Case]:
    for name in settings.chosen(NAMES):
        workload = WORKLOADS[name]
        chosen = small(workload) if settings.smoke else workload
        yield attention_pass(chosen, settings, HETEROGENEOUS)
        if workload.name != "large":
            yield attention_pass(chosen, settings, HOMOGENEOUS)
        if workload.name == "paper":
            yield softmax(chosen, settings)
            yield weighted_sum(chosen, settings)
            yield plain_sum(chosen, settings)
            yield maximum(chosen, settings)
            yield typed_products(chosen)


def attention_pass(workload: Workload, settings: Settings, name: str) -> Case:
    """Both kinds of attention, projected states to aggregated ones, slope 0.1."""
    graph, channels = workload.graph(), workload.channels
    relations = name == HOMOGENEOUS
    edges = graph.homogeneous if relations else graph.heterogeneous
    generator = torch.Generator().manual_seed(workload.seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    scale = channels**-0.25  # scores of variance 1
    inputs = {
        "query": scale * draw(graph.num_nodes, channels),
        "key": scale * draw(graph.num_nodes, channels),
        "value": draw(graph.num_nodes, channels),
    }
    if relations:
        inputs["relation_weight"] = draw(edges.num_relations, channels)

    def our_pass(
        edges: EdgeSet,
    ) -> Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]:
        def function(
            query: Tensor, key: Tensor, value: Tensor, relation_weight: Tensor | None = None
        ) -> Tensor:
            return kernels.edge_attention(
                query.unsqueeze(1),
                key.unsqueeze(1),
                value.unsqueeze(1),
                edges,
                relation_weight=None if relation_weight is None else relation_weight.unsqueeze(1),
                negative_slope=0.1,
            ).squeeze(1)

        return function

    def plain(steps: Steps) -> Callable[..., Tensor]:
        return lambda q, k, v, w=None: attention(steps, edges, q, k, v, w)

    case = _case(workload, name, edges, inputs, our_pass, plain, settings)
    return _checked_in_part(case, workload, inputs, relations, our_pass, settings)


def softmax(workload: Workload, settings: Settings) -> Case:
    edges = workload.graph().heterogeneous
    return _case(
        workload,
        "edge_softmax",
        edges,
        {"scores": torch.randn(edges.num_edges)},
        lambda edges: lambda s: kernels.edge_softmax(s.unsqueeze(1), edges).squeeze(1),
        lambda steps: steps.softmax,
        settings,
    )


def weighted_sum(workload: Workload, settings: Settings) -> Case:
    graph = workload.graph()
    edges = graph.heterogeneous
    return _case(
        workload,
        "aggregate, weighted sum",
        edges,
        {
            "value": torch.randn(graph.num_nodes, workload.channels),
            "weight": torch.rand(edges.num_edges),
        },
        lambda edges: lambda x, w: kernels.aggregate(x.unsqueeze(1), edges, w).squeeze(1),
        lambda steps: steps.sum,
        settings,
    )


def plain_sum(workload: Workload, settings: Settings) -> Case:
    graph = workload.graph()
    return _case(
        workload,
        "aggregate, sum over all edges",
        graph.edges,
        {"value": torch.randn(graph.num_nodes, workload.channels)},
        lambda edges: lambda x: kernels.aggregate(x.unsqueeze(1), edges).squeeze(1),
        lambda steps: steps.sum,
        settings,
    )


def maximum(workload: Workload, settings: Settings) -> Case:
    graph = workload.graph()
    return _case(
        workload,
        "aggregate, maximum over all edges",
        graph.edges,
        {"value": torch.randn(graph.num_nodes, workload.channels)},
        lambda edges: lambda x: kernels.aggregate(x.unsqueeze(1), edges, reduce="max").squeeze(1),
        lambda steps: steps.max,
        settings,
    )


def typed_products(workload: Workload) -> Case:
    """A projection by each node's type, beside one product of the same size."""
    graph, channels = workload.graph(), workload.channels
    ptr = graph.type_ptr
    sizes = ptr.diff().tolist()
    inputs = {
        "x": torch.randn(graph.num_nodes, channels),
        "weight": torch.randn(len(sizes), channels, channels) / channels**0.5,
    }

    def by_type(x: Tensor, weight: Tensor) -> Tensor:
        return torch.cat([part @ w for part, w in zip(x.split(sizes), weight, strict=True)])

    return Case(
        workload.name,
        "segment_matmul",
        [
            *ours.formulations(
                lambda: Program(lambda x, w: kernels.segment_matmul(x, ptr, w), leaves(inputs)),
                dict.fromkeys(ours.BACKENDS, (0, 0)),
            ),
            Formulation("PyTorch", "a product per type", lambda: Program(by_type, leaves(inputs))),
        ],
        lambda: Program(by_type, leaves(inputs, torch.float64)),
        edges=graph.num_edges,
    )


def _case(
    workload: Workload,
    name: str,
    edges: EdgeSet,
    inputs: dict[str, Tensor],
    our: Callable[[EdgeSet], Callable[..., Tensor]],
    plain: Callable[[Steps], Callable[..., Tensor]],
    settings: Settings,
) -> Case:
    """Our backends, then each peer's ways, then the plainest of them compiled."""

    own = 4 * sum(tensor.numel() for tensor in inputs.values())
    width = inputs["value"].shape[1] if "value" in inputs else 1

    def peak(steps: type[Steps]) -> tuple[int, int]:
        forward, both = steps.peak(edges, width)
        return own + forward, 3 * own + both

    def of(peer: str, variant: str, steps: type[Steps]) -> Formulation:
        def prepare() -> Program:
            return Program(plain(steps(edges)), leaves(inputs))

        return Formulation(peer, variant, prepare, peak(steps))

    eager = [of("PyTorch", variant, steps) for variant, steps in EAGER.items()]
    return Case(
        workload.name,
        name,
        [
            *ours.formulations(
                lambda: Program(our(edges), leaves(inputs)),
                {"fused": (2 * own, 4 * own), "scatter": peak(IndexAdd), "torch": peak(IndexAdd)},
            ),
            *(of("torch-scatter", variant, steps) for variant, steps in SCATTER.items()),
            *eager,
            *compiled(eager[0], settings, name == HETEROGENEOUS and workload.name == "paper"),
        ],
        lambda: Program(our(edges), leaves(inputs, torch.float64)),
        edges=edges.num_edges,
    )


def _checked_in_part(
    case: Case,
    workload: Workload,
    inputs: dict[str, Tensor],
    relations: bool,
    our: Callable[[EdgeSet], Callable[..., Tensor]],
    settings: Settings,
) -> Case:
    """Where the reference does not fit, its first histories tell what is right for their nodes."""
    if 6 * 8 * case.edges * workload.channels < settings.memory:
        return case
    graphs = 256
    histories = workload.histories()[:graphs]
    part = workload.builder()(histories)
    edges = part.homogeneous if relations else part.heterogeneous
    rows = (workload.graph().batch < graphs).nonzero().squeeze(1)

    def reference() -> Program:
        chosen = {
            name: tensor if name == "relation_weight" else tensor[rows]
            for name, tensor in inputs.items()
        }
        return Program(our(edges), leaves(chosen, torch.float64))

    case.rows, case.reference = rows, reference
    return case
