"""Which of a graph's edges a propagation block runs over, and how it drops some."""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Tensor
from torch.nn import functional as F

from mmgraph.graph import EdgeSet, SequenceGraph

Edges = Literal["all", "homogeneous", "heterogeneous"]


def check_edges(edges: str) -> None:
    if edges not in ("all", "homogeneous", "heterogeneous"):
        raise ValueError(f"edges: expected 'all', 'homogeneous' or 'heterogeneous', got {edges!r}")


def select_edges(graph: SequenceGraph, edges: str) -> EdgeSet:
    """The edge set by its name; ``self`` is in each."""
    chosen: EdgeSet = graph.edges if edges == "all" else getattr(graph, edges)
    return chosen


class _Dropping(Protocol):
    training: bool
    dropout: float
    heads: int


def edge_dropout(block: _Dropping, like: Tensor, edges: EdgeSet) -> Tensor | None:
    """A dropout mask ``[E', heads]`` by the block's ``dropout``; none outside of training."""
    if not block.training or block.dropout == 0.0:
        return None
    return F.dropout(like.new_ones(edges.num_edges, block.heads), block.dropout)
