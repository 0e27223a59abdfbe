"""Message passing over an EdgeSet in plain PyTorch, as one writes it without mmgraph.

Each class is one way to do the same four steps, from which `attention` is composed. States are
``[N, C]``, scores and weights ``[E]``; whatever depends on the graph alone is made beforehand.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from mmgraph import EdgeSet


class Steps(Protocol):
    """The steps of a pass."""

    def __init__(self, edges: EdgeSet) -> None: ...

    @classmethod
    def peak(cls, edges: EdgeSet, channels: int) -> tuple[int, int]:
        """Predicted bytes at the peak of a pass, forward and forward + backward."""

    def centre_rows(self, x: Tensor) -> Tensor:
        """``x`` at each edge's centre."""

    def softmax(self, scores: Tensor) -> Tensor:
        """Over each centre's edges."""

    def sum(self, value: Tensor, weight: Tensor | None = None) -> Tensor:
        """The neighbours' rows, weighted, summed by centre."""

    def max(self, value: Tensor) -> Tensor:
        """The largest of the neighbours' rows by centre."""


def attention(
    steps: Steps,
    edges: EdgeSet,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    relation_weight: Tensor | None = None,
    negative_slope: float = 0.1,
) -> Tensor:
    """MMSR's attention: Eq. 13, and with relation weights Eq. 12."""
    if relation_weight is None:
        centre = steps.centre_rows(query)
    else:
        # Weighing each centre by each relation first saves a product per edge and channel.
        weighted = (query.unsqueeze(1) * relation_weight).flatten(0, 1)
        row = edges.centre * relation_weight.shape[0] + edges.relation
        centre = weighted.index_select(0, row)
    scores = (centre * key.index_select(0, edges.index)).sum(-1)
    return steps.sum(value, steps.softmax(F.leaky_relu(scores, negative_slope)))


class IndexAdd:
    """index_select, scatter_reduce and index_add."""

    rows: ClassVar[tuple[int, int]] = (3, 6)  # tensors [E, C] alive at the peaks

    def __init__(self, edges: EdgeSet) -> None:
        self.edges, self.num_centres = edges, edges.num_centres

    @classmethod
    def peak(cls, edges: EdgeSet, channels: int) -> tuple[int, int]:
        forward, both = (4 * rows * edges.num_edges * channels for rows in cls.rows)
        return forward, both

    def centre_rows(self, x: Tensor) -> Tensor:
        return x.index_select(0, self.edges.centre)

    def softmax(self, scores: Tensor) -> Tensor:
        centre = self.edges.centre
        zeros = scores.new_zeros(self.num_centres)
        highest = zeros.scatter_reduce(0, centre, scores.detach(), "amax", include_self=False)
        exponential = (scores - highest.index_select(0, centre)).exp()
        total = zeros.index_add(0, centre, exponential)
        return exponential / total.index_select(0, centre)

    def sum(self, value: Tensor, weight: Tensor | None = None) -> Tensor:
        messages = value.index_select(0, self.edges.index)
        if weight is not None:
            messages = messages * weight.unsqueeze(-1)
        zeros = value.new_zeros(self.num_centres, value.shape[1])
        return zeros.index_add(0, self.edges.centre, messages)

    def max(self, value: Tensor) -> Tensor:
        messages = value.index_select(0, self.edges.index)
        centre = self.edges.centre.unsqueeze(1).expand_as(messages)
        zeros = value.new_zeros(self.num_centres, value.shape[1])
        return zeros.scatter_reduce(0, centre, messages, "amax", include_self=False)


class SegmentReduce(IndexAdd):
    """torch.segment_reduce over the sorted edges, repeat_interleave for the centres' rows."""

    def __init__(self, edges: EdgeSet) -> None:
        super().__init__(edges)
        self.degree = edges.ptr.diff()

    def centre_rows(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(self.degree, 0, output_size=self.edges.num_edges)

    def softmax(self, scores: Tensor) -> Tensor:
        highest = self._reduce(scores.detach(), "max")
        exponential = (scores - self.centre_rows(highest)).exp()
        return exponential / self.centre_rows(self._reduce(exponential, "sum"))

    def sum(self, value: Tensor, weight: Tensor | None = None) -> Tensor:
        messages = value.index_select(0, self.edges.index)
        if weight is not None:
            messages = messages * weight.unsqueeze(-1)
        return self._reduce(messages, "sum")

    def max(self, value: Tensor) -> Tensor:
        return self._reduce(value.index_select(0, self.edges.index), "max")

    def _reduce(self, data: Tensor, reduce: str) -> Tensor:
        initial = 0.0 if reduce == "sum" else None
        return torch.segment_reduce(data, reduce, offsets=self.edges.ptr, initial=initial)


class SparseProduct(IndexAdd):
    """index_select and scatter_reduce for the scores, the product of a CSR matrix for the sum."""

    rows = (3, 5)

    @classmethod
    def peak(cls, edges: EdgeSet, channels: int) -> tuple[int, int]:
        # The matrix's own gradient passes through a dense one.
        forward, both = super().peak(edges, channels)
        return forward, both + 4 * edges.num_centres * edges.num_neighbours

    def sum(self, value: Tensor, weight: Tensor | None = None) -> Tensor:
        return self._product(value, weight, "sum")

    def max(self, value: Tensor) -> Tensor:
        return self._product(value, None, "amax")

    def _product(self, value: Tensor, weight: Tensor | None, reduce: str) -> Tensor:
        edges = self.edges
        if weight is None:
            weight = value.new_ones(edges.num_edges)
        shape = (edges.num_centres, value.shape[0])
        matrix = torch.sparse_csr_tensor(
            edges.ptr, edges.index, weight, shape, check_invariants=False
        )
        return torch.sparse.mm(matrix, value, reduce)


EAGER: dict[str, type[Steps]] = {
    "index_add": IndexAdd,
    "segment_reduce": SegmentReduce,
    "CSR product": SparseProduct,
}
