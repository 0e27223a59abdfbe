"""MMSR's layer written from the paper's formulas, on whatever makes its passes.

It computes what mmgraph's `AsynchronousUpdate` does, gate and all, so that both can be compared.
The passes are those of plain PyTorch or torch-scatter over edges, or the dense layout of the
authors' code: every history padded to the largest one's nodes, homogeneous scores from the products
of all pairs, ``[batch, nodes, nodes, channels]``. What depends on the graph alone is made
beforehand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.peers.plain import Steps, attention
from mmgraph import SequenceGraph


class Passes(Protocol):
    """Both kinds of attention, over states that are projected already."""

    def homogeneous(self, state: Tensor, relation: Tensor, values: Tensor) -> Tensor:
        """Scored by one vector per relation, ``[R, D]`` (Eq. 12)."""

    def heterogeneous(self, query: Tensor, key: Tensor, values: Tensor) -> Tensor:
        """Scored by queries and keys (Eq. 13)."""


class SparsePasses:
    """Over the edges, by one way of message passing."""

    def __init__(self, graph: SequenceGraph, steps: type[Steps]) -> None:
        self.inside, self.between = graph.homogeneous, graph.heterogeneous
        self.inside_steps, self.between_steps = steps(self.inside), steps(self.between)

    def homogeneous(self, state: Tensor, relation: Tensor, values: Tensor) -> Tensor:
        return attention(self.inside_steps, self.inside, state, state, values, relation)

    def heterogeneous(self, query: Tensor, key: Tensor, values: Tensor) -> Tensor:
        return attention(self.between_steps, self.between, query, key, values)


class DensePasses:
    """Over all pairs of a history's nodes, padded, as the authors' code lays them out.

    Its heterogeneous scores are batched matrix products; how the homogeneous ones are made is
    ``scores``: ``"repeated"`` is the authors' way, both ends repeated over all pairs, multiplied,
    and reduced once per relation; ``"stored"`` stores the products alone and reduces them once;
    ``"bmm"`` weighs one end by each relation, so that nothing is stored per pair and channel.
    """

    def __init__(self, graph: SequenceGraph, scores: str) -> None:
        self.scores = getattr(self, f"_{scores}")
        order = torch.argsort(graph.batch, stable=True)
        count = torch.bincount(graph.batch, minlength=graph.num_graphs)
        self.graphs, self.nodes = graph.num_graphs, int(count.max())
        start = torch.cumsum(count, 0) - count
        position = torch.empty_like(order)
        position[order] = torch.arange(graph.num_nodes) - start[graph.batch[order]]
        self.slot = graph.batch * self.nodes + position

        def pairs(index: Tensor, centre: Tensor, fill: Tensor) -> Tensor:
            dense = torch.full((self.graphs, self.nodes, self.nodes), -1)
            dense[graph.batch[centre], position[centre], position[index]] = fill
            return dense

        ho, he = graph.homogeneous, graph.heterogeneous
        self.relation = pairs(ho.index, ho.centre, ho.relation)
        self.inside = self.relation >= 0
        self.between = pairs(he.index, he.centre, he.relation) >= 0

    def homogeneous(self, state: Tensor, relation: Tensor, values: Tensor) -> Tensor:
        return self._attend(self.scores(self._pad(state), relation), self.inside, values)

    def heterogeneous(self, query: Tensor, key: Tensor, values: Tensor) -> Tensor:
        return self._attend(self._pad(query) @ self._pad(key).mT, self.between, values)

    def _repeated(self, x: Tensor, relation: Tensor) -> Tensor:
        shape = (self.graphs, self.nodes, self.nodes, x.shape[-1])
        centres = x.unsqueeze(2).expand(shape).contiguous()
        neighbours = x.unsqueeze(1).expand(shape).contiguous()
        products = centres * neighbours
        scores = torch.zeros_like(self.relation, dtype=x.dtype)
        for kind, vector in enumerate(relation.unbind()):
            scores = torch.where(self.relation == kind, products @ vector, scores)
        return scores

    def _stored(self, x: Tensor, relation: Tensor) -> Tensor:
        return self._by_relation((x.unsqueeze(2) * x.unsqueeze(1)) @ relation.T)

    def _bmm(self, x: Tensor, relation: Tensor) -> Tensor:
        weighted = x.unsqueeze(1) * relation.unsqueeze(1)
        return self._by_relation((weighted @ x.unsqueeze(1).mT).permute(0, 2, 3, 1))

    def _by_relation(self, scores: Tensor) -> Tensor:
        return scores.gather(-1, self.relation.clamp(min=0).unsqueeze(-1)).squeeze(-1)

    def _attend(self, scores: Tensor, mask: Tensor, values: Tensor) -> Tensor:
        weights = F.leaky_relu(scores, 0.1).masked_fill(~mask, -9e15).softmax(-1)
        padded = weights.masked_fill(~mask, 0) @ self._pad(values)
        return padded.flatten(0, 1).index_select(0, self.slot)

    def _pad(self, x: Tensor) -> Tensor:
        padded = x.new_zeros(self.graphs * self.nodes, x.shape[1])
        return padded.index_copy(0, self.slot, x).view(self.graphs, self.nodes, -1)


def layer(graph: SequenceGraph, passes: Passes, names: list[str]) -> Callable[..., Tensor]:
    """The layer as a function of its input and of the parameters that `names` tells apart.

    Args:
        graph: for the sizes of its types.
        passes: both attentions.
        names: of the parameters, as AsynchronousUpdate calls them.
    """
    sizes = graph.type_ptr.diff().tolist()

    def project(x: Tensor, weight: Tensor) -> Tensor:
        return torch.cat([a @ w for a, w in zip(x.split(sizes), weight.unbind(), strict=True)])

    def function(x: Tensor, *parameters: Tensor) -> Tensor:
        p = dict(zip(names, parameters, strict=True))
        value, relation = p["homogeneous.value"], p["homogeneous.relation"].squeeze(1)
        query, key = p["heterogeneous.query"], p["heterogeneous.key"]
        values = project(x, value)
        state = passes.homogeneous(values, relation, values)
        late = passes.heterogeneous(project(state, query), project(state, key), values)
        state = passes.heterogeneous(project(x, query), project(x, key), values)
        early = passes.homogeneous(project(state, value), relation, values)
        both = torch.cat([late, early], 1)
        hidden = F.linear(both, p["gate.mlp.0.weight"], p["gate.mlp.0.bias"]).relu()
        gate = F.linear(hidden, p["gate.mlp.2.weight"], p["gate.mlp.2.bias"]).softmax(1)
        return gate[:, :1] * late + gate[:, 1:] * early

    return function
