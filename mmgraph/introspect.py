"""Which nodes' states reach a readout."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from mmgraph import _checks as check
from mmgraph.graph import EdgeSet, SequenceGraph

ReadNodes = Literal["last", "steps"]


def reached_nodes(
    graph: SequenceGraph, num_layers: int, nodes: ReadNodes | Tensor = "last"
) -> list[Tensor]:
    r"""The nodes whose output of each layer has a part in what the readout reads.

    The others' states, attention and gates in that layer get no gradient: what is learned says
    nothing about them. In the last layer the reached nodes :math:`R_L` are those that the readout
    reads, one item node a history behind ``Last``. Below, a layer of dual attention runs
    two passes over different edge sets, so it reads two hops of its input:

    .. math::
        R_{l-1} = R_l \cup \mathrm{ho}(R_l) \cup \mathrm{he}(R_l)
                  \cup \mathrm{ho}(\mathrm{he}(R_l)) \cup \mathrm{he}(\mathrm{ho}(R_l)),

    with :math:`\mathrm{ho}(R)` the homogeneous neighbours of the nodes in :math:`R` and
    :math:`\mathrm{he}(R)` the heterogeneous ones; a node's own state scores its neighbours even
    where it has no ``self`` edge.

    Args:
        graph: the graph that the layers ran on.
        num_layers: the number of layers.
        nodes: what the readout reads: ``"last"``, each history's last item node (``Last``);
            ``"steps"``, every step's item node (``Mean``, ``Max``, ``SoftAttention``); or a
            boolean mask ``[N]`` of nodes, as ``Recent`` needs.

    Returns:
        One boolean mask ``[N]`` per layer, the first layer's first.

    Raises:
        TypeError: if an argument is of another kind.
        ValueError: if ``num_layers`` is not positive, ``nodes`` is another word, or the mask has
            another shape.
    """
    return masks_of_reached(graph, num_layers, nodes, "nodes")


def masks_of_reached(
    graph: SequenceGraph, num_layers: int, nodes: ReadNodes | Tensor, argument: str
) -> list[Tensor]:
    """The same, for a function that calls ``nodes`` otherwise."""
    check.instance("graph", graph, SequenceGraph)
    check.positive("num_layers", num_layers)
    reached = [_read(graph, nodes, argument)]
    homogeneous, heterogeneous = graph.homogeneous, graph.heterogeneous
    for _ in range(num_layers - 1):
        ho = _neighbours(homogeneous, reached[-1])
        he = _neighbours(heterogeneous, reached[-1])
        reached.append(
            reached[-1] | ho | he | _neighbours(homogeneous, he) | _neighbours(heterogeneous, ho)
        )
    return reached[::-1]


def _read(graph: SequenceGraph, nodes: ReadNodes | Tensor, argument: str) -> Tensor:
    if isinstance(nodes, Tensor):
        check.shape(argument, nodes, (graph.num_nodes,), "one entry per node")
        if nodes.dtype != torch.bool:
            raise TypeError(f"{argument}: expected a boolean mask, got {nodes.dtype}")
        return nodes.to(graph.device)
    expected = f"{argument}: expected 'last', 'steps' or a boolean mask"
    if not isinstance(nodes, str):
        raise TypeError(f"{expected}, got {type(nodes).__name__}")
    if nodes not in get_args(ReadNodes):
        raise ValueError(f"{expected}, got {nodes!r}")
    read = torch.zeros(graph.num_nodes, dtype=torch.bool, device=graph.device)
    if nodes == "steps":
        read[graph.step_node] = True
        return read
    first, end = graph.step_ptr[:-1], graph.step_ptr[1:]
    read[graph.step_node[end[end > first] - 1]] = True
    return read


def _neighbours(edges: EdgeSet, centres: Tensor) -> Tensor:
    found = torch.zeros_like(centres)
    found[edges.index[centres[edges.centre]]] = True
    return found
