"""The fused operations on the CPU: tensors in, tensors out, the loops compiled by Numba.

What these functions take and give is that of the operators in :mod:`mmgraph.kernels.fused_backend`.
"""

from __future__ import annotations

import ctypes
import functools
import pathlib
import struct
import threading
from array import array
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from mmgraph import _checks as check
from mmgraph._numba import callback
from mmgraph.kernels import _cpu_kernels as kernels
from mmgraph.kernels import _simd


def unavailable() -> str | None:
    """Why these functions cannot run here; ``None`` where they can."""
    config: Any = numba.config
    return "NUMBA_DISABLE_JIT is set" if config.DISABLE_JIT else None


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
    _check_types(
        value,
        query=query,
        key=key,
        relation_weight=relation_weight,
        edge_bias=edge_bias,
        edge_scale=edge_scale,
    )
    heads, key_channels, value_channels = key.shape[-2], key.shape[-1], value.shape[-1]
    ptr, index, order, relation = _integers(ptr=ptr, index=index, order=order, relation=relation)
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    weight, bias, scale = map(_contiguous, (relation_weight, edge_bias, edge_scale))
    out = value.new_empty(ptr.shape[0] - 1, heads, value_channels)
    alpha = value.new_empty(index.shape[0], heads)
    positive = alpha.new_empty(alpha.shape if negative_slope is not None else 0, dtype=torch.bool)
    relational = _relational(weight, query, key, value)
    kernel = _kernel(
        kernels.forward_kernel, value.dtype, (key_channels, value_channels), relational, heads == 1
    )
    arguments = (
        *_addresses(query, key, value, ptr, index, relation, weight, bias, scale, out, alpha),
        positive.data_ptr() if negative_slope is not None else 0,
        _bits(negative_slope),
        heads,
        key_channels,
        value_channels,
        *map(_relation_stride, (query, key, value)),
    )
    _gather(kernel, ptr, arguments, index, order, key, value)
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
    heads, key_channels, value_channels = key.shape[-2], key.shape[-1], value.shape[-1]
    ptr, index, order, relation = _integers(ptr=ptr, index=index, order=order, relation=relation)
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    grad_out = grad_out.contiguous()
    weight, scale, grad_alpha = map(_contiguous, (relation_weight, edge_scale, grad_alpha))
    need_query, need_key, need_value, need_weight, need_bias, need_scale = needs
    nothing = value.new_empty(0)
    grad_query = grad_key = grad_value = grad_weight = grad_bias = grad_scale = nothing
    transpose = t_ptr, t_index, t_order, t_edge, relation

    if need_query or need_key or need_weight or need_bias or need_scale:
        relational = _relational(weight, query, key, value)
        grad_query = torch.zeros_like(query) if query.dim() == 4 else torch.empty_like(query)
        grad_score = torch.empty_like(alpha)
        grad_bias = torch.empty_like(alpha) if need_bias else nothing
        grad_scale = torch.empty_like(alpha) if need_scale else nothing
        # The weights' gradient is summed over parts of the edges, whose number depends on sizes
        # alone, and then over the parts: so its bits do not depend on the number of threads.
        parts = None
        if weight is not None:
            parts = min(64, 1 + index.shape[0] // 8192, 1 + 2**22 // max(weight.numel(), 1))
            grad_weight = weight.new_zeros(parts, *weight.shape)
        kernel = _kernel(
            kernels.backward_kernel,
            value.dtype,
            (key_channels, value_channels),
            relational,
            heads == 1,
        )
        arguments = (
            *_addresses(query, key, value, ptr, index, relation, weight, scale, alpha),
            positive.data_ptr() if negative_slope is not None else 0,
            *_addresses(grad_out, grad_alpha, grad_score),
            *_addresses(grad_bias if need_bias else None, grad_scale if need_scale else None),
            *_addresses(grad_query),
            grad_weight.data_ptr(),
            0 if weight is None else weight.numel() * weight.element_size(),
            _bits(negative_slope),
            heads,
            key_channels,
            value_channels,
            *map(_relation_stride, (query, key, value)),
        )
        _gather(kernel, ptr, arguments, index, order, key, value, parts=parts)
        if weight is not None:
            grad_weight = grad_weight.sum(0)
        if need_key:
            grad_key = _sum(query, *transpose, grad_score, weight, like=key)
    if need_value:
        share = alpha if scale is None else alpha * scale
        grad_value = _sum(grad_out, *transpose, share, None, like=value)
    gradients = (grad_query, grad_key, grad_value, grad_weight, grad_bias, grad_scale)
    a, b, c, d, e, f = (
        gradient if needed else value.new_empty(0)  # no two of them the same tensor
        for gradient, needed in zip(gradients, needs, strict=True)
    )
    return a, b, c, d, e, f


def edge_softmax(scores: Tensor, ptr: Tensor) -> Tensor:
    _check_types(scores)
    (ptr,) = _integers(ptr=ptr)
    scores = scores.contiguous()
    alpha = torch.empty_like(scores)
    heads = scores.shape[1]
    kernel = _kernel(kernels.softmax_kernel, scores.dtype, (), None, heads == 1)
    _run(kernel, ptr, (*_addresses(scores, ptr, alpha), heads), 16 * scores.numel())
    return alpha


def edge_softmax_backward(grad: Tensor, alpha: Tensor, ptr: Tensor) -> Tensor:
    (ptr,) = _integers(ptr=ptr)
    grad = grad.contiguous()
    grad_scores = torch.empty_like(alpha)
    heads = alpha.shape[1]
    kernel = _kernel(kernels.softmax_backward_kernel, alpha.dtype, (), None, heads == 1)
    _run(kernel, ptr, (*_addresses(grad, alpha, ptr, grad_scores), heads), 4 * alpha.numel())
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
    _check_types(value, weight=weight)
    ptr, index, order, relation = _integers(ptr=ptr, index=index, order=order, relation=relation)
    value, weight = value.contiguous(), _contiguous(weight)
    shape = (ptr.shape[0] - 1, *value.shape[-2:])
    integer = torch.int32 if value.dtype == torch.float32 else torch.int64
    if reduce != "max":
        out = value.new_empty(shape)
        _sum_into(
            out, value, ptr, index, order, None, relation, weight, None, None, reduce == "mean"
        )
        return out, value.new_empty(0, dtype=integer)
    out, chosen = value.new_empty(shape), value.new_empty(shape, dtype=integer)
    heads, channels = shape[1:]
    kernel = _kernel(kernels.max_kernel, value.dtype, (channels,), value.dim() == 4, heads == 1)
    arguments = (
        *_addresses(value, ptr, index, relation, weight, out, chosen),
        heads,
        channels,
        _relation_stride(value),
    )
    _gather(kernel, ptr, arguments, index, order, value)
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
    ptr, index, order, relation = _integers(ptr=ptr, index=index, order=order, relation=relation)
    grad, value, weight = grad.contiguous(), value.contiguous(), _contiguous(weight)
    if reduce == "mean":
        grad = grad / ptr.diff().clamp(min=1).view(-1, 1, 1)
    edges = chosen if reduce == "max" else None
    grad_value, grad_weight = value.new_empty(0), value.new_empty(0)
    if needs[0]:
        transpose = t_ptr, t_index, t_order, t_edge, relation
        grad_value = _sum(grad, *transpose, weight, None, like=value, chosen=edges)
    if needs[1]:
        heads, channels = value.shape[-2:]
        grad_weight = value.new_empty(index.shape[0], heads)
        kernel = _kernel(
            kernels.product_kernel, value.dtype, (channels,), value.dim() == 4, heads == 1
        )
        arguments = (
            *_addresses(grad, value, ptr, index, relation, edges, grad_weight),
            heads,
            channels,
            _relation_stride(value),
        )
        _gather(kernel, ptr, arguments, index, order, value)
    return grad_value, grad_weight


def segment_matmul(x: Tensor, ptr: Tensor, weight: Tensor) -> Tensor:
    _check_same_type(x, weight=weight)
    segments = pairwise(check.segment_bounds("ptr", ptr, x.shape[0]))
    out = x.new_empty(x.shape[0], weight.shape[2])
    for (a, b), w in zip(segments, weight.unbind(), strict=True):
        torch.mm(x[a:b], w, out=out[a:b])
    return out


def segment_matmul_backward(
    grad: Tensor, x: Tensor, ptr: Tensor, weight: Tensor, needs: list[bool]
) -> tuple[Tensor, Tensor]:
    """Gradients of x and weight, without numbers where not needed."""
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    grad_weight = torch.empty_like(weight, memory_format=torch.contiguous_format)
    for t, (a, b) in enumerate(pairwise(ptr.tolist())):
        if needs[0]:
            torch.mm(grad[a:b], weight[t].T, out=grad_x[a:b])
        if needs[1]:
            torch.mm(x[a:b].T, grad[a:b], out=grad_weight[t])
    return grad_x if needs[0] else x.new_empty(0), grad_weight if needs[1] else x.new_empty(0)


def _sum(
    rows: Tensor,
    ptr: Tensor,
    index: Tensor,
    order: Tensor | None,
    edge: Tensor,
    relation: Tensor | None,
    share: Tensor | None,
    weight: Tensor | None,
    *,
    like: Tensor,
    chosen: Tensor | None = None,
) -> Tensor:
    """The gradient of `like`, whose rows are summed over the transposed edge set."""
    ptr, index, order, edge = _integers(t_ptr=ptr, t_index=index, t_order=order, t_edge=edge)
    out = torch.zeros_like(like) if like.dim() == 4 else torch.empty_like(like)
    _sum_into(out, rows, ptr, index, order, edge, relation, share, weight, chosen, False)
    return out


def _sum_into(
    out: Tensor,
    rows: Tensor,
    ptr: Tensor,
    index: Tensor,
    order: Tensor | None,
    edge: Tensor | None,
    relation: Tensor | None,
    share: Tensor | None,
    weight: Tensor | None,
    chosen: Tensor | None,
    mean: bool,
) -> None:
    heads, channels = rows.shape[-2:]
    relational = _relational(weight, rows, out)
    if share is None and not relational and chosen is None:  # then heads are but channels
        heads, channels = 1, heads * channels
    kernel = _kernel(kernels.sum_kernel, rows.dtype, (channels,), relational, heads == 1)
    arguments = (
        *_addresses(rows, ptr, index, edge, relation, share, weight, chosen, out),
        heads,
        channels,
        _relation_stride(rows),
        _relation_stride(out),
        int(mean),
    )
    _gather(kernel, ptr, arguments, index, order, rows)


def _relational(weight: Tensor | None, *rows: Tensor) -> bool:
    """Whether anything is read at an edge's relation."""
    return weight is not None or any(tensor.dim() == 4 for tensor in rows)


def _check_types(rows: Tensor, **others: Tensor | None) -> None:
    """The kernels read memory as numbers of one type."""
    if rows.dtype not in _REAL:
        raise TypeError(
            f"the fused backend on the CPU: expected float32 or float64, got {rows.dtype}; "
            "mmgraph.use_backend('torch') takes any floating-point type"
        )
    _check_same_type(rows, **others)


def _check_same_type(rows: Tensor, **others: Tensor | None) -> None:
    for name, tensor in others.items():
        if tensor is not None and tensor.dtype != rows.dtype:
            raise TypeError(
                f"{name}: expected {rows.dtype}, the type of the rows, got {tensor.dtype}; "
                "mmgraph.use_backend('torch') takes mixed types"
            )


def _integers(**tensors: Any) -> list[Any]:
    """The graph's integers as the kernels read them; their values are trusted."""
    for name, tensor in tensors.items():
        if tensor is not None and tensor.dtype != torch.int64:
            raise TypeError(f"edges: expected {name} of torch.int64, got {tensor.dtype}")
    return [_contiguous(tensor) for tensor in tensors.values()]


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _addresses(*tensors: Tensor | None) -> tuple[int, ...]:
    return tuple([0 if tensor is None else tensor.data_ptr() for tensor in tensors])


def _bits(number: float | None) -> int:
    """A float64's bits as an integer."""
    bits: int = struct.unpack("q", struct.pack("d", number or 0.0))[0]
    return bits


def _relation_stride(tensor: Tensor) -> int:
    """How far a row's copies for two relations lie apart; 0 where there is one row for all."""
    return tensor.stride(0) if tensor.dim() == 4 else 0


_REAL = {torch.float32: np.float32, torch.float64: np.float64}


def _kernel(
    make: Callable[..., Any],
    dtype: torch.dtype,
    channels: tuple[int, ...],
    relational: bool | None,
    one_head: bool,
) -> Any:
    widths = tuple(width for size in channels for width in _width(size, dtype))
    kind = () if relational is None else (int(relational),)
    return _compiled(make, _REAL[dtype], *widths, *kind, int(one_head))


@functools.cache
def _compiled(make: Callable[..., Any], *constants: Any) -> Any:
    return callback(make(*constants), "mmgraph's fused kernels", _simd, constants)


# The longest vectors, of 512 bytes: half of AVX-512's registers. With AVX2's fewer registers it is
# still the best length.
_WIDEST = {torch.float32: 128, torch.float64: 64}


def _width(channels: int, dtype: torch.dtype) -> tuple[int, int, int]:
    """A vector's width for so many channels, whether it is masked, whether one is enough."""
    widest = _WIDEST[dtype]
    for width in (4, 16, 32, 64, 128):
        if channels <= width <= widest:
            return width, int(channels < width), 1
    return widest, int(channels % widest > 0), 0


def _gather(
    kernel: Any,
    ptr: Tensor,
    arguments: tuple[int, ...],
    index: Tensor,
    order: Tensor | None,
    *rows: Tensor,
    parts: int | None = None,
) -> None:
    """Call a kernel that reads these rows at each edge's neighbour."""
    work = index.shape[0] * sum([tensor.shape[-2] * tensor.shape[-1] for tensor in rows])
    _run(kernel, ptr, arguments, work, order, parts)


def _run(
    kernel: Any,
    ptr: Tensor,
    arguments: tuple[int, ...],
    work: int,
    order: Tensor | None = None,
    parts: int | None = None,
) -> None:
    """Call a kernel on all centres.

    Args:
        kernel: a function of a task (see `mmgraph.kernels._simd`).
        ptr: where each centre's edges begin.
        arguments: the kernel's own.
        work: about how many numbers it reads.
        order: of the centres; the next ones' rows are asked for ahead.
        parts: cut the centres into so many; by default as the threads need it.
    """
    threads = min(num_threads(), 1 + work // _GRAIN)
    if parts is None:
        parts = 1 if threads == 1 else 4 * threads
    task = array("q", (0, parts, *_addresses(order), *arguments, *_cuts(ptr, parts, order)))
    address, _ = task.buffer_info()
    if threads == 1:
        kernel(address)
    else:
        _in_parallel(kernel, address, min(threads, parts))


# Less work than this, in numbers read, is not worth waking a thread for.
_GRAIN = 2**19


def num_threads() -> int:
    """How many threads a fused operation may take: PyTorch's number, or Numba's if that is less."""
    return min(torch.get_num_threads(), _numba_threads())


@functools.cache
def _numba_threads() -> int:
    config: Any = numba.config
    return int(config.NUMBA_NUM_THREADS)


def _cuts(ptr: Tensor, parts: int, order: Tensor | None) -> list[int]:
    """Where to cut the centres so that parts have about as many edges."""
    centres = ptr.shape[0] - 1
    if parts == 1:
        return [0, centres]
    offsets = ptr.numpy()
    if order is not None:
        offsets = np.append(0, np.cumsum(np.diff(offsets)[order.numpy()]))
    edges = np.arange(1, parts) * offsets[-1] // parts
    return [0, *np.minimum(np.searchsorted(offsets, edges), centres).tolist(), centres]


def _in_parallel(kernel: Any, task: int, threads: int) -> None:
    """Call a kernel from several threads, who share a task's parts among them.

    They are those of PyTorch's own pool where that is one of GNU's OpenMP: its threads keep
    spinning for a while after each of PyTorch's parallel regions, so that those of a second pool
    would wait for a processor.
    """
    pool = _openmp()
    if pool is not None:
        pool.GOMP_parallel(ctypes.cast(kernel, ctypes.c_void_p), task, threads, 0)
        return
    helpers = [threading.Thread(target=kernel, args=(task,)) for _ in range(threads - 1)]
    for helper in helpers:
        helper.start()
    kernel(task)
    for helper in helpers:
        helper.join()


@functools.cache
def _openmp() -> Any:
    """The library of GNU's OpenMP that PyTorch runs on, or None."""
    folder = pathlib.Path(torch.__file__).parent / "lib"
    for path in (*sorted(folder.glob("libgomp*.so*")), None):
        try:
            library = ctypes.CDLL(None if path is None else str(path))
            parallel = library.GOMP_parallel
        except (OSError, AttributeError, TypeError):  # the last one on Windows
            continue
        parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        parallel.restype = None
        return library
    return None
