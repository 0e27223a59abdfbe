"""What every layer asks of its input."""

from __future__ import annotations

from torch import Tensor

from mmgraph import _checks as check
from mmgraph.graph import SequenceGraph


def check_states(x: Tensor, graph: SequenceGraph, channels: int | None = None) -> None:
    """A row per node of a graph, of so many channels where they are given, on its device."""
    check.instance("graph", graph, SequenceGraph)
    check.shape("x", x, (graph.num_nodes, channels), "nodes, channels")
    check.same_device("x", x, graph.device, "the graph")


def check_schema(graph: SequenceGraph, schema: object) -> None:
    """The graph has the schema that a layer was made for."""
    check.instance("graph", graph, SequenceGraph)
    if graph.schema != schema:
        raise ValueError(f"graph.schema: expected {schema}, got {graph.schema}")
