"""The fused operations as PyTorch operators: shapes for tracing, derivatives, one kernel a device.

Each operator is a pass over an edge set's own integers, and so is its backward, an operator too:
:func:`torch.compile` sees the two and nothing inside. The CPU's kernels are Numba's
(:mod:`mmgraph.kernels.fused_cpu`), CUDA's are Triton's (:mod:`mmgraph.kernels.fused_cuda`). Second
derivatives do not exist here.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from mmgraph.graph import EdgeSet

LIBRARY = torch.library.Library("mmgraph", "DEF")

_GRAPH = (
    "Tensor ptr, Tensor index, Tensor? order, "
    "Tensor t_ptr, Tensor t_index, Tensor t_edge, Tensor? t_order, Tensor? relation"
)
_ATTENTION = (
    f"Tensor query, Tensor key, Tensor value, {_GRAPH}, Tensor? relation_weight, "
    "Tensor? edge_bias, Tensor? edge_scale, float? negative_slope"
)
_SCHEMAS = (
    f"edge_attention({_ATTENTION}) -> (Tensor, Tensor, Tensor)",
    f"edge_attention_backward(Tensor grad_out, Tensor? grad_alpha, {_ATTENTION}, Tensor alpha, "
    "Tensor positive, bool[] needs) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    "edge_softmax(Tensor scores, Tensor ptr) -> Tensor",
    "edge_softmax_backward(Tensor grad, Tensor alpha, Tensor ptr) -> Tensor",
    f"aggregate(Tensor value, {_GRAPH}, Tensor? weight, str reduce) -> (Tensor, Tensor)",
    f"aggregate_backward(Tensor grad, Tensor value, {_GRAPH}, Tensor? weight, str reduce, "
    "Tensor chosen, bool[] needs) -> (Tensor, Tensor)",
    "segment_matmul(Tensor x, Tensor ptr, Tensor weight) -> Tensor",
    "segment_matmul_backward(Tensor grad, Tensor x, Tensor ptr, Tensor weight, bool[] needs) "
    "-> (Tensor, Tensor)",
)

for _schema in _SCHEMAS:
    LIBRARY.define(_schema, tags=torch.Tag.pt2_compliant_tag)


_MODULES = {"cpu": "mmgraph.kernels.fused_cpu", "cuda": "mmgraph.kernels.fused_cuda"}


@functools.cache
def unavailable(device: str) -> str | None:
    """Why the operators cannot run on a device; ``None`` where they can."""
    if device not in _MODULES:
        return f"there is no kernel for {device}"
    try:
        reason: str | None = importlib.import_module(_MODULES[device]).unavailable()
    except Exception as error:  # a broken installation shows itself in many ways
        return f"its module cannot be imported ({type(error).__name__}: {error})"
    return reason


def _register(name: str, device: str, module: str) -> None:
    """Numba or Triton is imported, and the kernel's file with it, by the first call."""

    def kernel(*arguments: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*arguments)

    LIBRARY.impl(name, kernel, device)


for _schema in _SCHEMAS:
    for _device, _module in _MODULES.items():
        _register(_schema[: _schema.index("(")], _device.upper(), _module)


def _shapes(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """What an operator returns, for tracing: as the kernels do, contiguous tensors."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        torch.library.register_fake(f"mmgraph::{name}", function, lib=LIBRARY)
        return function

    return register


@_shapes("edge_attention")
def _(query: Tensor, key: Tensor, value: Tensor, ptr: Tensor, index: Tensor, *rest: Any) -> Any:
    negative_slope = rest[-1]
    out = value.new_empty(ptr.shape[0] - 1, *value.shape[-2:])
    weights = torch.promote_types(value.dtype, torch.float32)  # at least float32
    alpha = value.new_empty(index.shape[0], value.shape[-2], dtype=weights)
    positive = alpha.new_empty(alpha.shape if negative_slope is not None else 0, dtype=torch.bool)
    return out, alpha, positive


@_shapes("edge_attention_backward")
def _(grad_out: Tensor, grad_alpha: Tensor | None, *rest: Any) -> Any:
    query, key, value = rest[:3]
    weight, bias, scale = rest[11:14]
    needs = rest[-1]
    given = (query, key, value, weight, bias, scale)
    return tuple(
        torch.empty_like(tensor, memory_format=torch.contiguous_format)
        if needed
        else value.new_empty(0)
        for tensor, needed in zip(given, needs, strict=True)
    )


@_shapes("edge_softmax")
def _(scores: Tensor, ptr: Tensor) -> Tensor:
    return torch.empty_like(scores, memory_format=torch.contiguous_format)


@_shapes("edge_softmax_backward")
def _(grad: Tensor, alpha: Tensor, ptr: Tensor) -> Tensor:
    return torch.empty_like(alpha, memory_format=torch.contiguous_format)


@_shapes("aggregate")
def _(value: Tensor, ptr: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    out = value.new_empty(ptr.shape[0] - 1, *value.shape[-2:])
    integer = torch.int64 if value.dtype == torch.float64 else torch.int32
    return out, value.new_empty(out.shape if rest[-1] == "max" else 0, dtype=integer)


@_shapes("aggregate_backward")
def _(grad: Tensor, value: Tensor, *rest: Any) -> Any:
    weight, needs = rest[8], rest[-1]
    return tuple(
        torch.empty_like(tensor, memory_format=torch.contiguous_format)
        if needed
        else value.new_empty(0)
        for tensor, needed in zip((value, weight), needs, strict=True)
    )


@_shapes("segment_matmul")
def _(x: Tensor, ptr: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[2])


@_shapes("segment_matmul_backward")
def _(grad: Tensor, x: Tensor, ptr: Tensor, weight: Tensor, needs: list[bool]) -> Any:
    return tuple(
        torch.empty_like(tensor, memory_format=torch.contiguous_format)
        if needed
        else x.new_empty(0)
        for tensor, needed in zip((x, weight), needs, strict=True)
    )


# Derivatives.


def _attention_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    query, key, value, *graph, weight, bias, scale, ctx.negative_slope = inputs
    _, alpha, positive = output
    ctx.mark_non_differentiable(positive)
    ctx.set_materialize_grads(False)
    ctx.needs = [ctx.needs_input_grad[i + 1] for i in (0, 1, 2, 11, 12, 13)]
    ctx.save_for_backward(query, key, value, *graph, weight, bias, scale, alpha, positive)


def _attention_backward(
    ctx: Any, grad_out: Tensor | None, grad_alpha: Tensor | None, _: None
) -> tuple[Any, ...]:
    *inputs, alpha, positive = ctx.saved_tensors
    if grad_out is None:
        ptr, value = inputs[3], inputs[2]
        grad_out = value.new_zeros(ptr.shape[0] - 1, *value.shape[-2:])
    grads = torch.ops.mmgraph.edge_attention_backward(
        grad_out, grad_alpha, *inputs, ctx.negative_slope, alpha, positive, ctx.needs
    )
    query, key, value, weight, bias, scale = (
        grad if needed else None for grad, needed in zip(grads, ctx.needs, strict=True)
    )
    return query, key, value, *(None,) * 8, weight, bias, scale, None


def _softmax_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(output, inputs[1])


def _softmax_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return torch.ops.mmgraph.edge_softmax_backward(grad, *ctx.saved_tensors), None


def _aggregate_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.reduce = inputs
    ctx.needs = [ctx.needs_input_grad[i + 1] for i in (0, 9)]
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*tensors, output[1])


def _aggregate_backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    *inputs, chosen = ctx.saved_tensors
    value, weight = torch.ops.mmgraph.aggregate_backward(
        grad, *inputs, ctx.reduce, chosen, ctx.needs
    )
    needs_value, needs_weight = ctx.needs
    return (
        value if needs_value else None,
        *(None,) * 8,
        weight if needs_weight else None,
        None,
    )


def _matmul_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.needs = [ctx.needs_input_grad[i + 1] for i in (0, 2)]
    ctx.save_for_backward(*inputs)


def _matmul_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, weight = torch.ops.mmgraph.segment_matmul_backward(grad, *ctx.saved_tensors, ctx.needs)
    needs_x, needs_weight = ctx.needs
    return x if needs_x else None, None, weight if needs_weight else None


def _no_second_derivative(ctx: Any, *grads: Any) -> Any:
    raise NotImplementedError(
        "the fused backend has no second derivatives; mmgraph.use_backend('torch') has them"
    )


def _has_tangent(tensor: Tensor) -> bool:
    return forward_ad.unpack_dual(tensor).tangent is not None


def _differentiate(name: str, backward: Callable[..., Any], context: Callable[..., None]) -> None:
    """Register an operator's derivative.

    What :func:`torch.library.register_autograd` does, but for a search of the operator's schema in
    each call, which takes longer than all else around a small graph.
    """
    operator = getattr(torch.ops.mmgraph, name).default

    def below(keys: Any, inputs: tuple[Any, ...]) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return operator.redispatch(keys & torch._C._after_autograd_keyset, *inputs)

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, keys: Any, *inputs: Any) -> Any:
            output = below(keys, inputs)
            context(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            return None, *backward(ctx, *grads)

    def kernel(keys: Any, *inputs: Any) -> Any:
        tensors = [tensor for tensor in inputs if isinstance(tensor, Tensor)]
        needed = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        if (needed and torch._C._are_functorch_transforms_active()) or (
            forward_ad._current_level >= 0 and any(map(_has_tangent, tensors))
        ):
            raise NotImplementedError(
                f"mmgraph.{name}: the fused backend has reverse-mode derivatives by autograd "
                f"alone; mmgraph.use_backend('torch') has forward mode and torch.func's"
            )
        return Function.apply(keys, *inputs) if needed else below(keys, inputs)

    Function.__name__ = Function.__qualname__ = name
    LIBRARY.impl(name, kernel, "Autograd", with_keyset=True)


for _name, _backward, _context in (
    ("edge_attention", _attention_backward, _attention_context),
    ("edge_softmax", _softmax_backward, _softmax_context),
    ("aggregate", _aggregate_backward, _aggregate_context),
    ("segment_matmul", _matmul_backward, _matmul_context),
):
    _differentiate(_name, _backward, _context)
    _differentiate(f"{_name}_backward", _no_second_derivative, lambda *_: None)


# Autocast: on the CPU in float32, which the kernels take; CUDA's take mixed types as they are. The
# products are in autocast's own type, as PyTorch's are.

for _name in ("edge_attention", "edge_softmax", "aggregate"):
    torch.library.register_autocast(f"mmgraph::{_name}", "cpu", torch.float32, lib=LIBRARY)


def _autocast_matmul(device: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, f"Autocast{device}"))

    def matmul(x: Tensor, ptr: Tensor, weight: Tensor) -> Tensor:
        dtype = torch.get_autocast_dtype(device.lower())
        x, weight = (
            tensor if tensor.dtype == torch.float64 else tensor.to(dtype) for tensor in (x, weight)
        )
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return segment_matmul(x, ptr, weight)

    return matmul


for _device in ("CPU", "CUDA"):
    LIBRARY.impl("segment_matmul", _autocast_matmul(_device), f"Autocast{_device}")


# The backend.


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
    out, alpha, _ = torch.ops.mmgraph.edge_attention(
        query, key, value, *_graph(edges), relation_weight, edge_bias, edge_scale, negative_slope
    )
    return out, alpha.to(out.dtype)


def edge_softmax(scores: Tensor, edges: EdgeSet) -> Tensor:
    alpha: Tensor = torch.ops.mmgraph.edge_softmax(scores, edges.ptr)
    return alpha


def aggregate(value: Tensor, edges: EdgeSet, weight: Tensor | None, reduce: str) -> Tensor:
    out: Tensor = torch.ops.mmgraph.aggregate(value, *_graph(edges), weight, reduce)[0]
    return out


def segment_matmul(x: Tensor, ptr: Tensor, weight: Tensor) -> Tensor:
    out: Tensor = torch.ops.mmgraph.segment_matmul(x, ptr, weight)
    return out


def _graph(edges: EdgeSet) -> tuple[Tensor | None, ...]:
    transpose = edges.transpose
    if transpose is None:
        raise ValueError(
            "edges: expected a transpose, which the fused backend's gradients are summed over, got "
            "none; mmgraph.use_backend('torch') needs none"
        )
    return (
        edges.ptr,
        edges.index,
        edges.order,
        transpose.ptr,
        transpose.index,
        transpose.edge_id,
        transpose.order,
        edges.relation,
    )
