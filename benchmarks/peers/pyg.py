"""PyTorch Geometric's layers, on each form of edges that they take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from benchmarks.case import Formulation, Program, leaves
from mmgraph import EdgeSet, SequenceGraph

Layer = Callable[[], Module]
FORMS = ("edge_index", "EdgeIndex", "SparseTensor", "CSR")


def formulations(
    make: Layer,
    x: Tensor,
    edges: EdgeSet,
    forms: tuple[str, ...] = ("edge_index", "EdgeIndex"),
    peak: tuple[int, int] = (0, 0),
    call: Callable[[Module, Tensor, Any], Tensor] = lambda layer, x, edges: layer(x, edges),
) -> list[Formulation]:
    """A layer on each form. PyG runs on torch-scatter and torch-sparse where they are installed."""

    def prepare(form: str) -> Program:
        _version()
        layer, adjacency = make(), _FORMS[form](edges)
        return Program(
            lambda x, *_: call(layer, x, adjacency),
            {**leaves({"x": x}), **dict(layer.named_parameters())},
        )

    return [Formulation("PyG", form, lambda form=form: prepare(form), peak) for form in forms]


def hgt(make: Callable[[Any], Module], x: Tensor, graph: SequenceGraph) -> Callable[[], Program]:
    """HGTConv, which takes a dictionary of nodes by type and one of edges by type and relation."""
    names, relations = graph.schema.modalities, graph.schema.relations
    sizes = graph.type_ptr.diff().tolist()
    neighbour, centre = graph.edge_index
    start = graph.type_ptr
    types = len(names)
    kinds = (
        graph.node_type[neighbour] * graph.schema.num_relations + graph.edge_type
    ) * types + graph.node_type[centre]
    edges: dict[tuple[str, str, str], Tensor] = {}
    for kind in kinds.unique().tolist():
        rest, target = divmod(kind, types)
        source, relation = divmod(rest, graph.schema.num_relations)
        chosen = kinds == kind
        edges[names[source], relations[relation], names[target]] = torch.stack(
            [neighbour[chosen] - start[source], centre[chosen] - start[target]]
        )

    def prepare(dtype: torch.dtype = torch.float32) -> Program:
        _version()
        layer = make((list(names), list(edges))).to(dtype)

        def function(x: Tensor, *_: Tensor) -> Tensor:
            nodes = dict(zip(names, x.split(sizes), strict=True))
            return torch.cat([layer(nodes, edges)[name] for name in names])

        return Program(function, {**leaves({"x": x}, dtype), **dict(layer.named_parameters())})

    return prepare


def _version() -> str:
    import torch_geometric

    version: str = torch_geometric.__version__
    return version


def _edge_index(edges: EdgeSet) -> Tensor:
    return torch.stack([edges.index, edges.centre])


def _sorted_index(edges: EdgeSet) -> Tensor:
    """An index that knows that it is sorted by centre, with its pointers filled in."""
    from torch_geometric import EdgeIndex

    size = (edges.num_neighbours, edges.num_centres)
    index: Tensor = EdgeIndex(_edge_index(edges), sparse_size=size, sort_order="col")
    return index.fill_cache_()


def _sparse_tensor(edges: EdgeSet) -> object:
    from benchmarks.peers.scatter import SparseMatmul

    return SparseMatmul(edges).matrix


def _csr(edges: EdgeSet) -> Tensor:
    size = (edges.num_centres, edges.num_neighbours)
    ones = torch.ones(edges.num_edges)
    return torch.sparse_csr_tensor(edges.ptr, edges.index, ones, size, check_invariants=False)


_FORMS: dict[str, Callable[[EdgeSet], Any]] = dict(
    zip(FORMS, (_edge_index, _sorted_index, _sparse_tensor, _csr), strict=True)
)
