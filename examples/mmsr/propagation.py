"""Every layer that may stand in place of MMSR's own: ``layer(x, graph) -> x``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from examples.mmsr.graphormer import Graphormer
from mmgraph import GraphSchema, SequenceGraph
from mmgraph.kernels import edge_attention, segment_matmul
from mmgraph.nn import (
    GAT,
    GCN,
    GGNN,
    RGAT,
    GraphSAGE,
    HeterogeneousAttention,
    HomogeneousAttention,
)


class HGAT(nn.Module):
    r"""Graph attention for typed graphs: a matrix per node type, additive scores per relation.

    .. math::
        e_{ij} = \mathrm{LeakyReLU}\big(a_r \cdot W_{t_i} h_i + b_r \cdot W_{t_j} h_j\big), \qquad
        h_i' = \sum_j \mathrm{softmax}_j(e_{ij}) W_{t_j} h_j

    Source: the matrices per type of Wang et al., "Heterogeneous Graph Attention Network", WWW
    2019, arXiv 1903.07293, with the relation inside the score as in Lv et al., "Are we really
    making much progress?", KDD 2021, arXiv 2112.14936.

    Args:
        channels: size of a node's state.
        schema: node types and relations.
        heads: of the attention.
        dropout: of the attention weights.
    """

    def __init__(self, channels: int, schema: GraphSchema, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.weight = nn.Parameter(torch.empty(schema.num_types, channels, channels))
        size = (schema.num_relations, 1, heads, channels // heads)
        self.centre = nn.Parameter(torch.empty(size))
        self.neighbour = nn.Parameter(torch.empty(size))
        for parameter in (self.weight, self.centre, self.neighbour):
            nn.init.xavier_uniform_(parameter)

    def forward(self, x: Tensor, graph: SequenceGraph) -> Tensor:
        value = segment_matmul(x, graph.type_ptr, self.weight).view(len(x), self.heads, -1)
        a, b = ((value * vectors).sum(-1) for vectors in (self.centre, self.neighbour))
        ones = torch.ones_like(a)
        scale = None
        if self.training and self.dropout:
            scale = F.dropout(value.new_ones(graph.edges.num_edges, self.heads), self.dropout)
        # (a, 1) . (1, b) = a + b
        return edge_attention(
            torch.stack([a, ones], -1),
            torch.stack([ones, b], -1),
            value,
            graph.edges,
            negative_slope=0.2,
            edge_scale=scale,
        ).flatten(1)


def make_propagation(
    name: str, channels: int, schema: GraphSchema, heads: int, dropout: float
) -> nn.Module:
    """A layer by its name.

    Args:
        name: one of :data:`PROPAGATION`.
        channels: of the states.
        schema: of the graphs.
        heads: of a layer that has them.
        dropout: on the attention of a layer that has it.
    """
    return PROPAGATION[name](channels, schema, heads, dropout)


PROPAGATION: dict[str, Callable[[int, GraphSchema, int, float], nn.Module]] = {
    "homogeneous": lambda c, s, h, p: HomogeneousAttention(c, s, h, dropout=p),
    "heterogeneous": lambda c, s, h, p: HeterogeneousAttention(c, s, h, dropout=p),
    "gcn": lambda c, s, h, p: GCN(c),
    "graphsage": lambda c, s, h, p: GraphSAGE(c),
    "gat": lambda c, s, h, p: GAT(c, h, dropout=p),
    "rgat": lambda c, s, h, p: RGAT(c, s, h, dropout=p),
    "ggnn": lambda c, s, h, p: GGNN(c),
    "hgat": HGAT,
    "graphormer": Graphormer,
}
