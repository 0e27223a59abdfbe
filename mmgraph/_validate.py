"""What `SequenceGraph.validate` checks: what is free by rule, what follows by equality."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from mmgraph import _checks as check
from mmgraph.graph import EdgeSet, SequenceGraph, _check_relations, _check_steps
from mmgraph.schema import GraphSchema


def validate_graph(graph: SequenceGraph) -> None:
    """Raise a ValueError or TypeError that names the first field that is not as documented."""
    check.instance("schema", graph.schema, GraphSchema)
    check.positive("num_graphs", graph.num_graphs, least=0)
    _check_tensors("", graph, graph.node_id.device)
    _check_nodes(graph)
    _check_edges(graph)
    _check_occurrences(graph)

    # Everything else follows from the nodes, edges, steps and occurrences.
    expected = SequenceGraph._assemble(
        schema=graph.schema,
        num_graphs=graph.num_graphs,
        node_id=graph.node_id,
        node_type=graph.node_type,
        batch=graph.batch,
        edge_index=graph.edge_index,
        edge_type=graph.edge_type,
        edge_attr=graph.edge_attr,
        step_ptr=graph.step_ptr,
        step_node=graph.step_node,
        occurrence_node=graph.occurrence_node,
        occurrence_position=graph.occurrence_position,
    )
    _check_equal("", graph, expected)


def _check_tensors(prefix: str, owner: SequenceGraph | EdgeSet, device: torch.device) -> None:
    """Every tensor holds int64 and lives where it should."""
    for field in fields(owner):
        name, value = prefix + field.name, getattr(owner, field.name)
        if isinstance(value, EdgeSet):
            _check_tensors(f"{name}.", value, device)
        elif isinstance(value, Tensor):
            wanted = torch.device("cpu") if name == "type_ptr" else device
            if value.device != wanted:
                raise ValueError(f"{name}: expected it on {wanted}, got it on {value.device}")
            if value.dtype != torch.int64 and name != "edge_attr":
                raise TypeError(f"{name}: expected torch.int64, got {value.dtype}")


def _check_nodes(graph: SequenceGraph) -> None:
    check.shape("node_type", graph.node_type, (None,))
    for name in ("node_id", "batch"):
        check.shape(name, getattr(graph, name), (graph.num_nodes,), "one for each node")
    check.index_range("node_id", graph.node_id, None)
    check.index_range("node_type", graph.node_type, graph.schema.num_types)
    check.index_range("batch", graph.batch, graph.num_graphs)
    check.non_decreasing("node_type", graph.node_type, "nodes must be ordered by type")
    check.non_decreasing(
        "batch",
        graph.node_type * max(graph.num_graphs, 1) + graph.batch,
        "nodes of one type must be ordered by graph",
    )


def _check_edges(graph: SequenceGraph) -> None:
    check.shape("edge_index", graph.edge_index, (2, None))
    num_edges = graph.edge_index.shape[1]
    check.shape("edge_type", graph.edge_type, (num_edges,), "one for each edge")
    index, centre = graph.edge_index
    check.index_range("edge_index[0]", index, graph.num_nodes)
    check.index_range("edge_index[1]", centre, graph.num_nodes)
    check.index_range("edge_type", graph.edge_type, graph.schema.num_relations)
    check.non_decreasing("edge_index[1]", centre, "edges must be ordered by centre")
    check.non_decreasing(
        "edge_index[0]",
        centre * max(graph.num_nodes, 1) + index,
        "edges of one centre must be ordered by neighbour",
    )
    _check_relations(graph.schema, graph.node_type, graph.batch, graph.edge_index, graph.edge_type)
    if graph.edge_attr is not None:
        check.rows("edge_attr", graph.edge_attr, num_edges, "one row for each edge")


def _check_occurrences(graph: SequenceGraph) -> None:
    items = int((graph.node_type == 0).sum())
    bounds = torch.tensor([0, items], device="cpu")
    _check_steps(graph.step_node, graph.step_ptr, graph.batch, graph.num_graphs, bounds)
    node, position = graph.occurrence_node, graph.occurrence_position
    check.shape("occurrence_node", node, (None,))
    check.shape("occurrence_position", position, tuple(node.shape), "one for each occurrence")
    check.index_range("occurrence_node", node, graph.num_nodes)
    check.index_range("occurrence_position", position, None)
    check.non_decreasing("occurrence_node", node, "occurrences must be ordered by node")
    if node.numel():
        check.non_decreasing(
            "occurrence_position",
            node * (position.max() + 1) + position,
            "occurrences of one node must be ordered by position",
        )


def _check_equal(prefix: str, got: Any, expected: Any) -> None:
    for field in fields(got):
        name = prefix + field.name
        mine, wanted = getattr(got, field.name), getattr(expected, field.name)
        if type(mine) is not type(wanted):
            raise ValueError(
                f"{name}: expected {_kind(wanted)}, got {_kind(mine)}",
            )
        if isinstance(wanted, EdgeSet):
            _check_equal(f"{name}.", mine, wanted)
        elif not isinstance(wanted, Tensor):
            if mine != wanted:
                raise ValueError(f"{name}: expected {wanted}, got {mine}")
        elif mine is not wanted:
            check.shape(name, mine, tuple(wanted.shape))
            _first_difference(name, mine, wanted)


def _kind(value: Any) -> str:
    name = type(value).__name__
    return "None" if value is None else f"an {name}" if name[0] in "AEIOU" else f"a {name}"


def _first_difference(name: str, mine: Tensor, wanted: Tensor) -> None:
    check.first_bad(
        mine != wanted, lambda i: f"{name}[{i}]: expected {int(wanted[i])}, got {int(mine[i])}"
    )
