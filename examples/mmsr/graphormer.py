"""Graphormer's layer over the graphs of histories: attention between all pairs of nodes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmgraph import EdgeSet, GraphSchema, SequenceGraph
from mmgraph.kernels import edge_attention

FARTHEST = 4
"""Nodes that are at least so many edges apart count as equally far, as do unconnected ones."""


class Graphormer(nn.Module):
    r"""A Transformer layer whose attention sees how two nodes stand in the graph.

    .. math::
        e_{ij} = \frac{(W_Q h_i) \cdot (W_K h_j)}{\sqrt d} + b_{dist(i, j)} + c_{r(i, j)}

    over all pairs of nodes of a history, with learned biases for their distance and, where an edge
    joins them, for its relation; nodes carry an embedding of their degree, ``self`` included, which
    every layer adds anew. Norms come first.

    Source: Ying et al., "Do Transformers Really Perform Badly for Graph Representation?", NeurIPS
    2021, arXiv 2106.05234.

    Args:
        channels: size of a node's state.
        schema: for the relations.
        heads: of the attention.
        dropout: of the attention weights.
        degrees: larger degrees count as the largest.
    """

    def __init__(
        self, channels: int, schema: GraphSchema, heads: int, dropout: float, degrees: int = 64
    ) -> None:
        super().__init__()
        self.heads, self.dropout, self.degrees = heads, dropout, degrees
        self.degree = nn.Embedding(degrees, channels)
        nn.init.normal_(self.degree.weight, std=0.02)
        self.distance = nn.Parameter(torch.zeros(FARTHEST + 1, heads))
        self.relation = nn.Parameter(torch.zeros(schema.num_relations, heads))
        self.norm = nn.LayerNorm(channels)
        self.project = nn.Linear(channels, 3 * channels)
        self.join = nn.Linear(channels, channels)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, channels),
            nn.GELU(),
            nn.Linear(channels, channels),
        )

    def forward(self, x: Tensor, graph: SequenceGraph) -> Tensor:
        pairs, distance, relation = all_pairs(graph)
        x = x + self.degree(graph.edges.ptr.diff().clamp(max=self.degrees - 1))
        shape = (-1, self.heads, x.shape[1] // self.heads)
        query, key, value = (part.reshape(shape) for part in self.project(self.norm(x)).chunk(3, 1))
        bias = F.embedding(distance, self.distance)
        joined = relation >= 0
        bias = bias + F.embedding(relation.clamp(min=0), self.relation) * joined.unsqueeze(1)
        scale = None
        if self.training and self.dropout:
            scale = F.dropout(torch.ones_like(bias), self.dropout)
        attended = edge_attention(
            query / shape[2] ** 0.5, key, value, pairs, edge_bias=bias, edge_scale=scale
        )
        x = x + self.join(attended.flatten(1))
        out: Tensor = x + self.feed_forward(x)
        return out


def all_pairs(graph: SequenceGraph) -> tuple[EdgeSet, Tensor, Tensor]:
    """All pairs of nodes of each history.

    Returns:
        The pairs, and for each how far apart its ends are, at most :data:`FARTHEST`, and the
        relation of the edge between them, -1 where there is none.
    """
    counts = torch.bincount(graph.batch, minlength=graph.num_graphs)
    widest = int(counts.max()) if graph.num_nodes else 0
    order = torch.argsort(graph.batch, stable=True)
    start = counts.cumsum(0) - counts
    place = torch.empty_like(order)
    place[order] = torch.arange(graph.num_nodes, device=order.device) - start[graph.batch[order]]

    def pairwise(fill: int) -> Tensor:
        size = (graph.num_graphs, widest, widest)
        return torch.full(size, fill, device=order.device)

    index, centre = graph.edge_index
    at = graph.batch[centre], place[centre], place[index]
    relation = pairwise(-1).index_put(at, graph.edge_type)
    step = (relation >= 0).float()
    distance = pairwise(FARTHEST)
    reached = step
    distance[reached > 0] = 1
    for hops in range(2, FARTHEST):
        reached = reached @ step
        distance[(reached > 0) & (distance == FARTHEST)] = hops
    distance.diagonal(dim1=1, dim2=2).zero_()

    node = torch.full((graph.num_graphs, widest), -1, device=order.device)
    node[graph.batch, place] = torch.arange(graph.num_nodes, device=order.device)
    inside = (node.unsqueeze(2) >= 0) & (node.unsqueeze(1) >= 0)
    graphs, first, second = inside.nonzero(as_tuple=True)
    ends = torch.stack([node[graphs, second], node[graphs, first]])
    pairs = EdgeSet.from_edge_index(ends, graph.num_nodes)
    chosen = pairs.edge_id
    return pairs, distance[inside][chosen], relation[inside][chosen]
