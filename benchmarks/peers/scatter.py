"""Message passing over an EdgeSet by torch-scatter and torch-sparse."""

from __future__ import annotations

from torch import Tensor

from benchmarks.peers.plain import IndexAdd, Steps
from mmgraph import EdgeSet


class ScatterIndex(IndexAdd):
    """torch-scatter's ops over an index that need not be sorted: scatter."""

    def __init__(self, edges: EdgeSet) -> None:
        import torch_scatter

        super().__init__(edges)
        self.ops = torch_scatter

    def softmax(self, scores: Tensor) -> Tensor:
        softmax: Tensor = self.ops.scatter_softmax(
            scores, self.edges.centre, 0, dim_size=self.num_centres
        )
        return softmax

    def sum(self, value: Tensor, weight: Tensor | None = None) -> Tensor:
        messages = value.index_select(0, self.edges.index)
        if weight is not None:
            messages = messages * weight.unsqueeze(-1)
        total: Tensor = self.ops.scatter_add(
            messages, self.edges.centre, 0, dim_size=self.num_centres
        )
        return total

    def max(self, value: Tensor) -> Tensor:
        messages = value.index_select(0, self.edges.index)
        largest: Tensor = self.ops.scatter_max(
            messages, self.edges.centre, 0, dim_size=self.num_centres
        )[0]
        return largest


class ScatterSegment(ScatterIndex):
    """torch-scatter's ops over sorted edges: segment_csr and gather_csr."""

    def centre_rows(self, x: Tensor) -> Tensor:
        rows: Tensor = self.ops.gather_csr(x, self.edges.ptr)
        return rows

    def softmax(self, scores: Tensor) -> Tensor:
        ptr = self.edges.ptr
        highest = self.ops.segment_csr(scores.detach(), ptr, reduce="max")
        exponential = (scores - self.ops.gather_csr(highest, ptr)).exp()
        total = self.ops.segment_csr(exponential, ptr, reduce="sum")
        softmax: Tensor = exponential / self.ops.gather_csr(total, ptr)
        return softmax

    def sum(self, value: Tensor, weight: Tensor | None = None) -> Tensor:
        messages = value.index_select(0, self.edges.index)
        if weight is not None:
            messages = messages * weight.unsqueeze(-1)
        total: Tensor = self.ops.segment_csr(messages, self.edges.ptr, reduce="sum")
        return total

    def max(self, value: Tensor) -> Tensor:
        messages = value.index_select(0, self.edges.index)
        largest: Tensor = self.ops.segment_csr(messages, self.edges.ptr, reduce="max")
        return largest


class SparseMatmul(ScatterSegment):
    """index_select for the rows, segments for the softmax, torch-sparse's matmul for the sum."""

    rows = (3, 5)

    def __init__(self, edges: EdgeSet) -> None:
        super().__init__(edges)
        import torch_sparse

        self.matmul = torch_sparse.matmul
        self.matrix = torch_sparse.SparseTensor(
            row=edges.centre,
            rowptr=edges.ptr,
            col=edges.index,
            sparse_sizes=(edges.num_centres, edges.num_neighbours),
            is_sorted=True,
            trust_data=True,
        )
        # What the gradients need of the graph is made once, as a user of SparseTensor does.
        self.matrix.storage.csr2csc()
        self.matrix.storage.colptr()

    def centre_rows(self, x: Tensor) -> Tensor:
        return x.index_select(0, self.edges.centre)

    def sum(self, value: Tensor, weight: Tensor | None = None) -> Tensor:
        matrix = self.matrix if weight is None else self.matrix.set_value(weight, layout="coo")
        total: Tensor = self.matmul(matrix, value, reduce="sum")
        return total

    def max(self, value: Tensor) -> Tensor:
        largest: Tensor = self.matmul(self.matrix, value, reduce="max")
        return largest


SCATTER: dict[str, type[Steps]] = {
    "index": ScatterIndex,
    "segment": ScatterSegment,
    "segment softmax, torch-sparse sum": SparseMatmul,
}
