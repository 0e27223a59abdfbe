"""Graph attention with additive scores."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from mmgraph import _checks as check
from mmgraph.graph import SequenceGraph
from mmgraph.kernels import edge_attention
from mmgraph.nn._edges import Edges, check_edges, edge_dropout, select_edges
from mmgraph.nn._init import Factory
from mmgraph.nn._inputs import check_states


class GAT(Module):
    r"""Graph attention, as PyG's ``GATConv`` with heads side by side.

    .. math::
        e_{ij} &= \mathrm{LeakyReLU}(a_1 \cdot W x_i + a_2 \cdot W x_j) \\
        x'_i &= \Big\Vert_h \sum_{j \in \mathcal N(i)} \mathrm{softmax}_j(e_{ij})\, W x_j + b

    Source: Veličković et al., "Graph Attention Networks", ICLR 2018, arXiv 1710.10903.

    Args:
        channels: size of a node's state.
        heads: number of heads, a divisor of ``channels``.
        edges: ``"all"``, ``"homogeneous"`` or ``"heterogeneous"``; ``self`` is in each.
        negative_slope: slope of the LeakyReLU.
        dropout: probability of dropping an edge's weight in training.
        device: of the parameters.
        dtype: of the parameters.

    Attributes:
        weight: ``[channels, channels]``, ``[in, out]``: ``x @ weight``.
        centre: ``[heads, channels / heads]``, :math:`a_1`.
        neighbour: ``[heads, channels / heads]``, :math:`a_2`.
        bias: ``[channels]``.

    Shape:
        ``x`` ``[N, channels]`` to ``[N, channels]``.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if ``edges`` is unknown or a size does not fit.
    """

    def __init__(
        self,
        channels: int,
        heads: int = 1,
        edges: Edges = "all",
        *,
        negative_slope: float = 0.2,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check.heads(channels, heads)
        check_edges(edges)
        check.number("negative_slope", negative_slope)
        check.probability("dropout", dropout)
        factory = Factory(device=device, dtype=dtype)
        self.channels, self.heads, self.edges = channels, heads, edges
        self.negative_slope, self.dropout = negative_slope, dropout
        self.weight = Parameter(torch.empty(channels, channels, **factory))
        self.centre = Parameter(torch.empty(heads, channels // heads, **factory))
        self.neighbour = Parameter(torch.empty(heads, channels // heads, **factory))
        self.bias = Parameter(torch.empty(channels, **factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        for parameter in (self.weight, self.centre, self.neighbour):
            torch.nn.init.xavier_uniform_(parameter)
        torch.nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, graph: SequenceGraph) -> Tensor:
        check_states(x, graph, self.channels)
        value = (x @ self.weight).view(-1, self.heads, self.channels // self.heads)
        query, key = additive((value * self.centre).sum(-1), (value * self.neighbour).sum(-1))
        edges = select_edges(graph, self.edges)
        out = edge_attention(
            query,
            key,
            value,
            edges,
            negative_slope=self.negative_slope,
            edge_scale=edge_dropout(self, value, edges),
        )
        return out.flatten(1) + self.bias

    def extra_repr(self) -> str:
        return (
            f"channels={self.channels}, heads={self.heads}, edges={self.edges!r}, "
            f"negative_slope={self.negative_slope}, dropout={self.dropout}"
        )


def additive(centre: Tensor, neighbour: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys whose products are sums: ``(a_i, 1) . (1, b_j) = a_i + b_j``."""
    ones = torch.ones_like(centre)
    return torch.stack([centre, ones], -1), torch.stack([ones, neighbour], -1)
