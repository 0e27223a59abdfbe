"""Plain PyTorch: the reference. Any device, any float type, derivatives of any order."""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from mmgraph import _checks as check
from mmgraph.graph import EdgeSet


def edge_softmax(scores: Tensor, edges: EdgeSet) -> Tensor:
    centre = edges.centre.unsqueeze(1).expand_as(scores)
    # A softmax does not depend on the number subtracted, so that needs no gradient.
    highest = scores.detach().new_zeros(edges.num_centres, scores.shape[1])
    highest = highest.scatter_reduce(0, centre, scores.detach(), "amax", include_self=False)
    exponential = (scores - highest.index_select(0, edges.centre)).exp()
    total = _sum_by_centre(exponential, edges)
    return exponential / total.index_select(0, edges.centre)


def edge_scores(
    query: Tensor,
    key: Tensor,
    edges: EdgeSet,
    relation_weight: Tensor | None,
    negative_slope: float | None,
    product: Callable[[Tensor, Tensor], Tensor] = torch.mul,
) -> Tensor:
    """The scores before the bias, [E', H]; ``product`` may overwrite what it is given."""
    products = product(rows_at(query, edges.centre, edges), rows_at(key, edges.index, edges))
    if relation_weight is not None:
        assert edges.relation is not None
        products = products * relation_weight.index_select(0, edges.relation)
    scores = products.sum(-1)
    return scores if negative_slope is None else F.leaky_relu(scores, negative_slope)


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
    scores = edge_scores(query, key, edges, relation_weight, negative_slope)
    if edge_bias is not None:
        scores = scores + edge_bias
    alpha = edge_softmax(scores, edges)
    weight = alpha if edge_scale is None else alpha * edge_scale
    return aggregate(value, edges, weight, "sum"), alpha


def aggregate(value: Tensor, edges: EdgeSet, weight: Tensor | None, reduce: str) -> Tensor:
    messages = rows_at(value, edges.index, edges)
    if weight is not None:
        messages = messages * weight.unsqueeze(-1)
    if reduce == "max":
        return _max_by_centre(messages, edges)
    total = _sum_by_centre(messages, edges)
    if reduce == "mean":
        total = total / edges.ptr.diff().clamp(min=1).view(-1, 1, 1)
    return total


def segment_matmul(x: Tensor, ptr: Tensor, weight: Tensor) -> Tensor:
    if torch.compiler.is_compiling() and len(weight):
        return _segment_matmul_of_all_rows(x, ptr, weight)
    segments = pairwise(check.segment_bounds("ptr", ptr, x.shape[0]))
    parts = [x[a:b] @ w for (a, b), w in zip(segments, weight.unbind(), strict=True)]
    return torch.cat(parts) if parts else x @ weight.sum(0)  # no segments, and so no rows


def _segment_matmul_of_all_rows(x: Tensor, ptr: Tensor, weight: Tensor) -> Tensor:
    """The same without reading the offsets, which torch.compile cannot: products of all rows.

    A row is zeros where it is another segment's, and so is its product: what is not finite stays
    in its segment, derivatives included.
    """
    segment = segment_of_row(ptr, x.shape[0]).to(x.device).unsqueeze(1)
    parts = []
    for number, matrix in enumerate(weight.unbind()):
        own = segment == number
        parts.append(torch.where(own, torch.where(own, x, 0) @ matrix, 0))
    return functools.reduce(torch.add, parts)


@torch.library.custom_op("mmgraph::segment_of_row", mutates_args=())
def segment_of_row(ptr: Tensor, num_rows: int) -> Tensor:
    """Each row's segment, ``[num_rows]``: an operator, which reads and checks the offsets."""
    check.segment_bounds("ptr", ptr, num_rows)
    return torch.repeat_interleave(ptr.long().diff())


@segment_of_row.register_fake
def _(ptr: Tensor, num_rows: int) -> Tensor:
    return ptr.new_empty(num_rows, dtype=torch.int64)


def rows_at(rows: Tensor, node: Tensor, edges: EdgeSet) -> Tensor:
    """A row per edge: the node's, or the node's for the edge's relation."""
    if rows.dim() == 3:
        return rows.index_select(0, node)
    assert edges.relation is not None
    return rows.flatten(0, 1).index_select(0, edges.relation * rows.shape[1] + node)


def _sum_by_centre(messages: Tensor, edges: EdgeSet) -> Tensor:
    zeros = messages.new_zeros(edges.num_centres, *messages.shape[1:])
    return zeros.index_add(0, edges.centre, messages)


def _max_by_centre(messages: Tensor, edges: EdgeSet) -> Tensor:
    """Maxima by the edge that gives each: of equal ones the first gets the gradient."""
    num_edges = messages.shape[0]
    centre = edges.centre.view(-1, 1, 1).expand_as(messages)
    highest = messages.detach().new_zeros(edges.num_centres, *messages.shape[1:])
    highest = highest.scatter_reduce(0, centre, messages.detach(), "amax", include_self=False)
    attains = (messages == highest.index_select(0, edges.centre)) | messages.isnan()
    position = torch.arange(num_edges, device=messages.device).view(-1, 1, 1)
    first = torch.full(highest.shape, num_edges, device=messages.device)
    first = first.scatter_reduce(0, centre, position.where(attains, num_edges), "amin")
    # Centres without neighbours read the row of zeros after the last edge.
    padded = torch.cat([messages, messages.new_zeros(1, *messages.shape[1:])])
    return padded.gather(0, first)
