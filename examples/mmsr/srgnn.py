"""SR-GNN on mmgraph's graphs and kernels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import mmgraph
from examples.mmsr.items import ItemFeatures
from examples.mmsr.protocol import Instances
from examples.mmsr.recommender import Recommender
from examples.mmsr.sequential import SequentialConfig
from examples.mmsr.successors import SuccessorScore
from mmgraph import SequenceGraph
from mmgraph.kernels import aggregate
from mmgraph.nn import SoftAttention


class SRGNN(Recommender):
    r"""A gated graph network over the items of a history, with a matrix for each direction.

    .. math::
        m_i = [\bar A_{in} (h W_{in}) ; \bar A_{out} (h W_{out})]_i, \qquad
        h_i' = \mathrm{GRU}(m_i, h_i)

    with the edges of each direction weighted by one over their number at the node, and the soft
    attention readout.

    Source: Wu et al., "Session-based Recommendation with Graph Neural Networks", AAAI 2019, arXiv
    1811.00855.

    Args:
        num_items: the size of the catalogue.
        config: sizes; ``layers`` are steps.
        features: what items' features add to their vectors as candidates, or None.
        successors: what counted successors add to the scores, or None.
    """

    def __init__(
        self,
        num_items: int,
        config: SequentialConfig,
        features: ItemFeatures | None = None,
        successors: SuccessorScore | None = None,
    ) -> None:
        super().__init__()
        self.features, self.successors = features, successors
        self.steps, channels = config.layers, config.channels
        schema = mmgraph.GraphSchema(("item",))
        self.builder = mmgraph.SequenceGraphBuilder(
            schema, {}, num_items=num_items, max_length=config.max_length
        )
        both = schema.relation_id("both")
        self.directions = [(schema.relation_id(name), both) for name in ("previous", "next")]
        self.items = nn.Embedding(num_items, channels)
        nn.init.normal_(self.items.weight, std=channels**-0.5)
        self.project = nn.Linear(channels, 2 * channels)
        self.cell = nn.GRUCell(2 * channels, channels)
        self.readout = SoftAttention(channels)
        self.dropout = nn.Dropout(config.dropout)

    def prepare(self, instances: Instances) -> SequenceGraph:
        return self.builder(instances.histories())

    def encode(self, inputs: SequenceGraph) -> Tensor:
        x = self.dropout(self.items(inputs.node_id))
        edges = inputs.edges
        assert edges.relation is not None
        shares = []
        for a, b in self.directions:
            mine = ((edges.relation == a) | (edges.relation == b)).to(x.dtype)
            count = torch.zeros_like(edges.ptr[1:], dtype=x.dtype).index_add(0, edges.centre, mine)
            shares.append(mine / count.clamp(min=1)[edges.centre])
        weight = torch.stack(shares, 1)
        for _ in range(self.steps):
            projected = self.project(x).unflatten(1, (2, -1))
            x = self.cell(aggregate(projected, edges, weight).flatten(1), x)
        history: Tensor = self.readout(x, inputs)
        return history

    def item_vectors(self) -> Tensor:
        vectors = self.items.weight
        return vectors if self.features is None else self.features.join(vectors)
