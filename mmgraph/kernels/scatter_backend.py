"""torch-scatter's operations, and torch-sparse's for weighted sums: one tensor per edge and step.

Both packages are built for the CPU or CUDA they were installed for. What they have no operation for
is PyTorch's own. A centre's neighbours are sorted, so sums of numbers go segment by segment; sums
of rows do not, as scattering them is faster. Second derivatives do not exist here.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import torch
from torch import Tensor

from mmgraph.graph import EdgeSet
from mmgraph.kernels import torch_backend


@functools.cache
def unavailable() -> str | None:
    """Why these functions cannot run here; ``None`` where they can."""
    try:
        _packages()
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed"
    except Exception as error:  # built for another PyTorch, it fails in many ways
        return f"torch-scatter or torch-sparse is broken ({type(error).__name__}: {error})"
    return None


def edge_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    edges: EdgeSet,
    relation_weight: Tensor | None,
    negative_slope: float | None,
    edge_bias: Tensor | None,
    edge_scale: Tensor | None,
) -> tuple[Tensor, Tensor]:
    query, key, value = map(_once, (query, key, value))
    relation_weight, edge_bias, edge_scale = (
        None if tensor is None else _once(tensor)
        for tensor in (relation_weight, edge_bias, edge_scale)
    )
    if relation_weight is not None and query.dim() == 3:
        relations, nodes = relation_weight.shape[0], query.shape[0]
        if relations * nodes < edges.num_edges:  # fewer products than one for each edge
            query, relation_weight = query * relation_weight.unsqueeze(1), None
    scores = torch_backend.edge_scores(query, key, edges, relation_weight, negative_slope, _product)
    if edge_bias is not None:
        scores = scores + edge_bias
    alpha = _softmax(scores, edges)
    weight = alpha if edge_scale is None else alpha * edge_scale
    return _sum(value, edges, weight), alpha


def edge_softmax(scores: Tensor, edges: EdgeSet) -> Tensor:
    return _softmax(_once(scores), edges)


def aggregate(value: Tensor, edges: EdgeSet, weight: Tensor | None, reduce: str) -> Tensor:
    value = _once(value)
    weight = None if weight is None else _once(weight)
    if reduce == "max":
        return _max(value, edges, weight)
    total = _sum(value, edges, weight)
    if reduce == "mean":
        total = total / edges.ptr.diff().clamp(min=1).view(-1, 1, 1)
    return total


def segment_matmul(x: Tensor, ptr: Tensor, weight: Tensor) -> Tensor:
    return torch_backend.segment_matmul(_once(x), ptr, _once(weight))


def _product(a: Tensor, b: Tensor) -> Tensor:
    """The product of rows gathered for it alone: in place where no gradient needs them."""
    kept = torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)
    return a * b if kept or a.dtype != b.dtype else a.mul_(b)


def _softmax(scores: Tensor, edges: EdgeSet) -> Tensor:
    if scores.numel() == 0:  # torch-scatter divides by sizes
        return torch_backend.edge_softmax(scores, edges)
    scatter, _ = _packages()
    highest = scatter.segment_csr(scores.detach(), edges.ptr, reduce="max")
    exponential = (scores - highest.index_select(0, edges.centre)).exp()
    total = scatter.segment_csr(exponential, edges.ptr, reduce="sum")
    alpha: Tensor = exponential / total.index_select(0, edges.centre)
    return alpha


def _sum(value: Tensor, edges: EdgeSet, weight: Tensor | None) -> Tensor:
    scatter, spmm = _packages()
    transpose = edges.transpose
    if value.numel() == 0 or edges.num_edges == 0:  # both packages divide by sizes
        return torch_backend.aggregate(value, edges, weight, "sum")
    if value.dim() == 4 or transpose is None:  # torch-sparse has no rows per relation
        messages = torch_backend.rows_at(value, edges.index, edges)
        if weight is not None:
            messages = messages * weight.unsqueeze(-1)
        total: Tensor = scatter.scatter_add(messages, edges.centre, 0, dim_size=edges.num_centres)
        return total

    def product(factors: Tensor, rows: Tensor) -> Tensor:
        back = transpose.ptr, transpose.edge_id
        out: Tensor = spmm(edges.centre, edges.ptr, edges.index, factors, *back, rows.contiguous())
        return out

    if weight is None:
        there = edges.index, edges.centre, edges.num_centres
        added: Tensor = _PlainSum.apply(value.flatten(1), *there, transpose.ptr, transpose.index)
        return added.view(-1, *value.shape[1:])
    heads = zip(weight.unbind(1), value.unbind(1), strict=True)
    sums = [product(factors.contiguous(), rows) for factors, rows in heads]
    return sums[0].unsqueeze(1) if len(sums) == 1 else torch.stack(sums, 1)  # one needs no copy


def _max(value: Tensor, edges: EdgeSet, weight: Tensor | None) -> Tensor:
    given = [value] if weight is None else [value, weight]
    # A sum is finite only where all numbers are. NaN is not larger than any number: both packages
    # pass it over, and torch-sparse minus infinity too.
    finite = all(bool(tensor.detach().sum().isfinite()) for tensor in given)
    if not finite or value.numel() == 0 or edges.num_edges == 0:
        return torch_backend.aggregate(value, edges, weight, "max")
    if value.dim() == 3 and weight is None:
        rows: Tensor = _SparseMax.apply(value.flatten(1), edges.ptr, edges.index)
        return rows.view(-1, *value.shape[1:])
    scatter, _ = _packages()
    messages = torch_backend.rows_at(value, edges.index, edges)
    if weight is not None:
        messages = messages * weight.unsqueeze(-1)
    largest: Tensor = scatter.scatter_max(messages, edges.centre, 0, dim_size=edges.num_centres)[0]
    return largest


class _PlainSum(torch.autograd.Function):
    """Scattered rows forward, torch-sparse's product over the transposed edges backward."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        index: Tensor,
        centre: Tensor,
        num_centres: int,
        t_ptr: Tensor,
        t_index: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(t_ptr, t_index)
        scatter, _ = _packages()
        messages = rows.index_select(0, index)
        total: Tensor = scatter.scatter_add(messages, centre, 0, dim_size=num_centres)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        _, spmm = _packages()
        # Detached: torch-sparse asks for more where it is to be derived, which `_Once` refuses.
        rows = grad.detach().contiguous()
        return spmm(None, *ctx.saved_tensors, None, None, None, rows), *[None] * 5


class _SparseMax(torch.autograd.Function):
    """torch-sparse's maximum, whose own backward writes into the gradient that it is given."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, ptr: Tensor, index: Tensor) -> Tensor:
        out, edge = torch.ops.torch_sparse.spmm_max(ptr, index, None, rows.contiguous())
        ctx.save_for_backward(index, edge)
        ctx.neighbours = rows.shape[0]
        largest: Tensor = out
        return largest

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        index, edge = ctx.saved_tensors
        empty = edge == index.shape[0]
        chosen = index[edge.masked_fill(empty, 0)]
        zeros = grad.new_zeros(ctx.neighbours, grad.shape[1])
        return zeros.scatter_add_(0, chosen, grad.masked_fill(empty, 0)), None, None


class _Once(torch.autograd.Function):
    """The same tensor, whose gradient has no gradient of its own."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.save_for_backward(tensor)
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        final: Tensor = _Final.apply(grad, *ctx.saved_tensors)
        return final


class _Final(torch.autograd.Function):
    """A gradient, of which PyTorch knows by the tensor that it may be derived once more."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, tensor: Tensor) -> Tensor:
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        raise NotImplementedError(
            "the scatter backend has no second derivatives; mmgraph.use_backend('torch') has them"
        )


def _once(tensor: Tensor) -> Tensor:
    if not (tensor.requires_grad and torch.is_grad_enabled()):
        return tensor
    once: Tensor = _Once.apply(tensor)
    return once


@functools.cache
def _packages() -> tuple[Any, Any]:
    """torch-scatter, and torch-sparse's product of a sparse matrix with a dense one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are written in TorchScript, which is deprecated
        import torch_scatter
        import torch_sparse  # noqa: F401  # it registers its operations
    return torch_scatter, torch.ops.torch_sparse.spmm_sum
