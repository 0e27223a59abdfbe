"""Graph attention with a matrix per relation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from mmgraph import _checks as check
from mmgraph.graph import SequenceGraph
from mmgraph.kernels import edge_attention
from mmgraph.nn._edges import Edges, check_edges, edge_dropout, select_edges
from mmgraph.nn._init import Factory
from mmgraph.nn._inputs import check_schema, check_states
from mmgraph.nn.gat import additive
from mmgraph.schema import GraphSchema


class RGAT(Module):
    r"""Relational graph attention, as PyG's ``RGATConv`` by default: additive, across relations.

    .. math::
        e_{ij} &= \mathrm{LeakyReLU}(x_i W_{r_{ij}} Q + x_j W_{r_{ij}} K) \\
        x'_i &= \sum_{j \in \mathcal N(i)} \mathrm{softmax}_j(e_{ij})\, x_j W_{r_{ij}} + b

    The softmax runs over all of a centre's edges, whatever their relation. States are projected
    once per relation, ``[R, N, channels]``, and nothing is kept per edge and channel.

    Source: Busbridge et al., "Relational Graph Attention Networks", 2019, arXiv 1904.05811.

    Args:
        channels: size of a node's state.
        schema: gives the relations.
        heads: number of heads, a divisor of ``channels``.
        edges: ``"all"``, ``"homogeneous"`` or ``"heterogeneous"``; ``self`` is in each.
        negative_slope: slope of the LeakyReLU.
        dropout: probability of dropping an edge's weight in training.
        device: of the parameters.
        dtype: of the parameters.

    Attributes:
        weight: ``[R, channels, channels]``, a matrix ``[in, out]`` per relation.
        query, key: ``[channels, heads]``, :math:`Q` and :math:`K`.
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
        schema: GraphSchema,
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
        check.instance("schema", schema, GraphSchema)
        check_edges(edges)
        check.number("negative_slope", negative_slope)
        check.probability("dropout", dropout)
        factory = Factory(device=device, dtype=dtype)
        self.channels, self.schema, self.heads, self.edges = channels, schema, heads, edges
        self.negative_slope, self.dropout = negative_slope, dropout
        self.weight = Parameter(torch.empty(schema.num_relations, channels, channels, **factory))
        self.query = Parameter(torch.empty(channels, heads, **factory))
        self.key = Parameter(torch.empty(channels, heads, **factory))
        self.bias = Parameter(torch.empty(channels, **factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        for matrix in (*self.weight, self.query, self.key):
            torch.nn.init.xavier_uniform_(matrix)
        torch.nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, graph: SequenceGraph) -> Tensor:
        check_schema(graph, self.schema)
        check_states(x, graph, self.channels)
        projected = x @ self.weight
        query, key = additive(projected @ self.query, projected @ self.key)
        value = projected.view(*projected.shape[:2], self.heads, self.channels // self.heads)
        edges = select_edges(graph, self.edges)
        out = edge_attention(
            query,
            key,
            value,
            edges,
            negative_slope=self.negative_slope,
            edge_scale=edge_dropout(self, x, edges),
        )
        return out.flatten(1) + self.bias

    def extra_repr(self) -> str:
        return (
            f"channels={self.channels}, heads={self.heads}, edges={self.edges!r}, "
            f"negative_slope={self.negative_slope}, dropout={self.dropout}"
        )
