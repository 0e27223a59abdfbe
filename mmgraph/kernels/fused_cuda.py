"""The fused operations on CUDA: tensors in, tensors out, the loops compiled by Triton.

What these functions take and give is that of the operators in :mod:`mmgraph.kernels.fused_backend`.
Inputs are float32, bfloat16 or float16; sums and attention weights are float32, and results have
their inputs' types. Nothing waits for the device, and sizes alone decide what is allocated and
launched, so that a layer can be captured in a CUDA graph.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import logging
import threading
from typing import Any

import torch
from torch import Tensor

from mmgraph import _checks as check

_log = logging.getLogger("mmgraph")

# The transposed edge set: its ptr, its index (the centres) and where each edge is in the set.
_Transpose = tuple[Tensor, Tensor, Tensor]
# To sum over edges: rows, factors per edge, vectors per relation, and where the sums go.
_ByScore = tuple[Tensor, Tensor, Tensor | None, Tensor]
# The same: rows, factors, second factors, the rows' own ptr, the edges that count, where to.
_ByWeight = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@functools.cache
def unavailable() -> str | None:
    """Why these functions cannot run here; ``None`` where they can."""
    try:
        kernels = _kernels()
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    except Exception as error:  # a broken installation shows itself in many ways
        return f"Triton is broken ({type(error).__name__}: {error})"
    if not kernels.INTERPRETED and not torch.cuda.is_available():
        return "there is no CUDA device"
    return None


def edge_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ptr: Tensor,
    index: Tensor,
    order: Tensor | None,
    t_ptr: Tensor,
    t_index: Tensor,
    t_edge: Tensor,
    t_order: Tensor | None,
    relation: Tensor | None,
    relation_weight: Tensor | None,
    edge_bias: Tensor | None,
    edge_scale: Tensor | None,
    negative_slope: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The centres' rows, the weights, and which scores were above zero (if there is a slope)."""
    _check_types(query, key, value, relation_weight, edge_bias, edge_scale)
    heads, ck, cv = key.shape[-2], key.shape[-1], value.shape[-1]
    centres, edges = ptr.shape[0] - 1, index.shape[0]
    out = value.new_empty(centres, heads, cv)
    alpha = value.new_empty(edges, heads, dtype=torch.float32)
    positive = alpha.new_empty(alpha.shape if negative_slope is not None else 0, dtype=torch.bool)
    block_e, warps = _block(ck, cv)
    _launch(
        "attention_forward",
        (centres * heads,),
        *_contiguous(query, key, value, ptr, index, relation),
        *_contiguous(relation_weight, edge_bias, edge_scale),
        out,
        alpha,
        _signs(positive, negative_slope),
        negative_slope or 0.0,
        heads,
        *(_rows(x) for x in (query, key, value)),
        CK=ck,
        CV=cv,
        QUERY_TYPED=query.dim() == 4,
        KEY_TYPED=key.dim() == 4,
        VALUE_TYPED=value.dim() == 4,
        BLOCK_E=block_e,
        BLOCK_K=_power(ck),
        BLOCK_V=_power(cv),
        num_warps=warps,
    )
    return out, alpha, positive


def edge_attention_backward(
    grad_out: Tensor,
    grad_alpha: Tensor | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ptr: Tensor,
    index: Tensor,
    order: Tensor | None,
    t_ptr: Tensor,
    t_index: Tensor,
    t_edge: Tensor,
    t_order: Tensor | None,
    relation: Tensor | None,
    relation_weight: Tensor | None,
    edge_bias: Tensor | None,
    edge_scale: Tensor | None,
    negative_slope: float | None,
    alpha: Tensor,
    positive: Tensor,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value, weight, bias and scale, without numbers where not needed."""
    heads, ck, cv = key.shape[-2], key.shape[-1], value.shape[-1]
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    grad_out, ptr, index = grad_out.contiguous(), ptr.contiguous(), index.contiguous()
    grad_alpha, relation, weight, scale = _contiguous(
        grad_alpha, relation, relation_weight, edge_scale
    )
    transpose: _Transpose = (t_ptr.contiguous(), t_index.contiguous(), t_edge.contiguous())
    need_query, need_key, need_value, need_weight, need_bias, need_scale = needs
    grad_query = _like(query) if need_query else None
    grad_key = _like(key) if need_key else None
    grad_value = _like(value) if need_value else None
    grad_bias = _like(edge_bias) if need_bias else None
    grad_scale = _like(scale) if need_scale else None
    grad_weight = grad_score = None

    if need_query or need_key or need_weight or need_bias or need_scale:
        grad_score = torch.empty_like(alpha)
        one_query = query.dim() == 3
        block_e, warps = _block(ck, cv)
        _launch(
            "attention_backward",
            ((ptr.shape[0] - 1) * heads,),
            grad_out,
            grad_alpha,
            key,
            value,
            ptr,
            index,
            relation,
            weight,
            scale,
            alpha,
            _signs(positive, negative_slope),
            grad_score,
            grad_query if one_query else None,
            grad_bias,
            grad_scale,
            negative_slope or 0.0,
            heads,
            _rows(key),
            _rows(value),
            CK=ck,
            CV=cv,
            KEY_TYPED=key.dim() == 4,
            VALUE_TYPED=value.dim() == 4,
            BLOCK_E=block_e,
            BLOCK_K=_power(ck),
            BLOCK_V=_power(cv),
            num_warps=warps,
        )
        if grad_query is not None and not one_query:
            by_relation = (key, grad_score, weight, grad_query)
            _gather_sums(ptr, index, None, relation, by_relation, None)
        if need_weight:
            assert relation is not None
            assert weight is not None
            grad_weight = _relation_gradient(
                query, key, grad_score, index, relation, transpose, weight
            )
    by_score = by_alpha = None
    if grad_key is not None and grad_score is not None:
        by_score = (query, grad_score, weight, grad_key)
    if grad_value is not None:
        by_alpha = (grad_out, alpha, scale, None, None, grad_value)
    if key.shape[:-3] == value.shape[:-3]:  # of as many relations, where they have some
        _gather_sums(*transpose, relation, by_score, by_alpha)
    else:
        _gather_sums(*transpose, relation, by_score, None)
        _gather_sums(*transpose, relation, None, by_alpha)
    gradients = (grad_query, grad_key, grad_value, grad_weight, grad_bias, grad_scale)
    a, b, c, d, e, f = (
        value.new_empty(0) if gradient is None else gradient for gradient in gradients
    )
    return a, b, c, d, e, f


def edge_softmax(scores: Tensor, ptr: Tensor) -> Tensor:
    _check_types(scores)
    alpha = _like(scores)
    heads = scores.shape[1]
    block_e, warps = _block(heads)
    _launch(
        "softmax_forward",
        (ptr.shape[0] - 1,),
        *_contiguous(scores, ptr),
        alpha,
        heads,
        BLOCK_E=block_e,
        BLOCK_H=_power(heads),
        num_warps=warps,
    )
    return alpha


def edge_softmax_backward(grad: Tensor, alpha: Tensor, ptr: Tensor) -> Tensor:
    grad_scores = _like(alpha)
    heads = alpha.shape[1]
    block_e, warps = _block(heads)
    _launch(
        "softmax_backward",
        (ptr.shape[0] - 1,),
        *_contiguous(grad, alpha, ptr),
        grad_scores,
        heads,
        BLOCK_E=block_e,
        BLOCK_H=_power(heads),
        num_warps=warps,
    )
    return grad_scores


def aggregate(
    value: Tensor,
    ptr: Tensor,
    index: Tensor,
    order: Tensor | None,
    t_ptr: Tensor,
    t_index: Tensor,
    t_edge: Tensor,
    t_order: Tensor | None,
    relation: Tensor | None,
    weight: Tensor | None,
    reduce: str,
) -> tuple[Tensor, Tensor]:
    """The centres' rows, and for a maximum the edge that gave each of their numbers."""
    _check_types(value, weight)
    heads, channels = value.shape[-2:]
    shape = (ptr.shape[0] - 1, heads, channels)
    out = value.new_empty(shape)
    if reduce != "max":
        rows = (value, weight, None, None, None, out)
        _gather_sums(ptr, index, None, relation, None, rows, reduce == "mean")
        return out, value.new_empty(0, dtype=torch.int32)
    chosen = value.new_empty(shape, dtype=torch.int32)
    block_e, warps = _block(channels)
    _launch(
        "maxima",
        (shape[0] * heads,),
        *_contiguous(value, weight, ptr, index, relation),
        out,
        chosen,
        heads,
        _rows(value),
        C=channels,
        TYPED=value.dim() == 4,
        BLOCK_E=block_e,
        BLOCK_C=_power(channels),
        num_warps=warps,
    )
    return out, chosen


def aggregate_backward(
    grad: Tensor,
    value: Tensor,
    ptr: Tensor,
    index: Tensor,
    order: Tensor | None,
    t_ptr: Tensor,
    t_index: Tensor,
    t_edge: Tensor,
    t_order: Tensor | None,
    relation: Tensor | None,
    weight: Tensor | None,
    reduce: str,
    chosen: Tensor,
    needs: list[bool],
) -> tuple[Tensor, Tensor]:
    """Gradients of value and weight, without numbers where not needed."""
    heads, channels = value.shape[-2:]
    edges = chosen if reduce == "max" else None
    grad_value, grad_weight = value.new_empty(0), value.new_empty(0)
    if needs[0]:
        grad_value = _like(value)
        degree = ptr if reduce == "mean" else None
        rows = (grad, weight, None, degree, edges, grad_value)
        _gather_sums(t_ptr, t_index, t_edge, relation, None, rows)
    if needs[1]:
        assert weight is not None
        grad_weight = _like(weight)
        block_e, warps = _block(channels)
        _launch(
            "edge_products",
            ((ptr.shape[0] - 1) * heads,),
            *_contiguous(grad, value, ptr, index, relation, edges),
            grad_weight,
            heads,
            _rows(value),
            C=channels,
            TYPED=value.dim() == 4,
            MEAN=reduce == "mean",
            BLOCK_E=block_e,
            BLOCK_C=_power(channels),
            num_warps=warps,
        )
    return grad_value, grad_weight


def segment_matmul(x: Tensor, ptr: Tensor, weight: Tensor) -> Tensor:
    """The products of each segment's rows, one after another into one output.

    ``ptr`` is on the CPU: each product's size is known without waiting for the device, so that
    cuBLAS, which is hard to beat on a handful of tall matrices, takes them as they are.
    """
    out = x.new_empty(x.shape[0], weight.shape[2])
    for segment, rows in enumerate(_segments(ptr, x.shape[0])):
        torch.mm(x[rows], weight[segment], out=out[rows])
    return out


def segment_matmul_backward(
    grad: Tensor, x: Tensor, ptr: Tensor, weight: Tensor, needs: list[bool]
) -> tuple[Tensor, Tensor]:
    """Gradients of x and weight, without numbers where not needed."""
    grad_x = _like(x) if needs[0] else x.new_empty(0)
    grad_weight = _like(weight) if needs[1] else weight.new_empty(0)
    for segment, rows in enumerate(_segments(ptr, x.shape[0])):
        if needs[0]:
            torch.mm(grad[rows], weight[segment].T, out=grad_x[rows])
        if needs[1]:
            torch.mm(x[rows].T, grad[rows], out=grad_weight[segment])
    return grad_x, grad_weight


def _check_types(*tensors: Tensor | None) -> None:
    for tensor in tensors:
        if tensor is not None and tensor.dtype not in DTYPES:
            raise TypeError(
                "the fused backend on CUDA: expected float32, bfloat16 or float16, got "
                f"{tensor.dtype}; mmgraph.use_backend('torch') takes any floating-point type"
            )


def _segments(ptr: Tensor, rows: int) -> list[slice]:
    bounds = check.segment_bounds("ptr", ptr, rows)
    return [slice(begin, end) for begin, end in itertools.pairwise(bounds)]


def _relation_gradient(
    query: Tensor,
    key: Tensor,
    grad_score: Tensor,
    index: Tensor,
    relation: Tensor,
    transpose: _Transpose,
    weight: Tensor,
) -> Tensor:
    """Sums over parts of the edges, then over the parts: both in an order that sizes decide."""
    relations, heads, channels = weight.shape
    edges = index.shape[0]
    block_e, warps = _block(channels)
    blocks = -(-edges // block_e)
    span = block_e * -(-blocks // _PARTS)
    parts = -(-edges // span) if edges else 0
    partial = weight.new_empty(parts, relations, heads, channels, dtype=torch.float32)
    _launch(
        "relation_partials",
        (parts, heads, relations),
        query,
        key,
        grad_score,
        index,
        relation,
        *transpose[1:],
        partial,
        edges,
        span,
        heads,
        _rows(query),
        _rows(key),
        C=channels,
        QUERY_TYPED=query.dim() == 4,
        KEY_TYPED=key.dim() == 4,
        BLOCK_E=block_e,
        BLOCK_C=_power(channels),
        num_warps=warps,
    )
    return partial.sum(0).to(weight.dtype)


def _gather_sums(
    ptr: Tensor,
    index: Tensor,
    edge: Tensor | None,
    relation: Tensor | None,
    a: _ByScore | None,
    b: _ByWeight | None,
    mean: bool = False,
) -> None:
    """One or two sums of gathered rows over each row's edges: see the kernel of this name."""
    out = a[-1] if a is not None else b[-1] if b is not None else None
    if out is None:
        return
    heads, ca, cb = out.shape[-2], 0, 0
    rows_a = rows_b = None
    if a is not None:
        rows_a, ca = a[0], a[-1].shape[-1]
    if b is not None:
        rows_b, cb = b[0], b[-1].shape[-1]
    block_e, warps = _block(ca, cb)
    _launch(
        "gather_sums",
        ((ptr.shape[0] - 1) * heads, out.shape[0] if out.dim() == 4 else 1),
        *_contiguous(ptr, index, edge, relation, *(a or (None,) * 4), *(b or (None,) * 6)),
        heads,
        _rows(rows_a),
        _rows(rows_b),
        CA=ca,
        CB=cb,
        A_TYPED=rows_a is not None and rows_a.dim() == 4,
        B_TYPED=rows_b is not None and rows_b.dim() == 4,
        OUT_TYPED=out.dim() == 4,
        MEAN=mean,
        BLOCK_E=block_e,
        BLOCK_A=_power(ca),
        BLOCK_B=_power(cb),
        num_warps=warps,
    )


# Parts of the edges whose relation gradients are summed apart: enough to fill a large device.
_PARTS = 256
# Numbers in a tile, and at most those of one warp: 32 for each of its threads, by loads of 16 bytes
# that are under way together. Most rows have few edges; one warp does not wait at barriers.
_TILE = 1024


def _block(*channels: int) -> tuple[int, int]:
    """How many edges a block has, and how many warps run a program."""
    widest = _power(max(channels))
    return max(1, min(16, _TILE // widest)), max(1, min(8, widest // _TILE))


def _power(size: int) -> int:
    """The next power of two."""
    return 1 << max(size - 1, 0).bit_length()


def _rows(x: Tensor | None) -> int:
    """How many rows lie between one relation's and the next one's."""
    return x.shape[1] * x.shape[2] if x is not None and x.dim() == 4 else 0


def _like(x: Tensor | None) -> Tensor:
    assert x is not None
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _signs(positive: Tensor, negative_slope: float | None) -> Tensor | None:
    return None if negative_slope is None else positive.view(torch.uint8)


def _contiguous(*tensors: Tensor | None) -> tuple[Any, ...]:
    return tuple(None if tensor is None else tensor.contiguous() for tensor in tensors)


@functools.cache
def _kernels() -> Any:
    return importlib.import_module("mmgraph.kernels._triton")


_launched: set[str] = set()


def _launch(name: str, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    if 0 in grid:
        return
    kernel = getattr(_kernels(), name)
    device = next(x.device for x in arguments if isinstance(x, Tensor))
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        if name in _launched:
            kernel[grid](*arguments, **constants, num_stages=1)
            return
        # Compiled code is cached on disk, so that only the clock tells whether there is a wait.
        notice = threading.Timer(1.0, _log.warning, ("compiling %s for this device, once", name))
        notice.daemon = True
        notice.start()
        try:
            kernel[grid](*arguments, **constants, num_stages=1)
        finally:
            notice.cancel()
        _launched.add(name)
