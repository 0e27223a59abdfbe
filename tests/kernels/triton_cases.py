"""What the Triton kernels are held to: `test_triton_interpreter.py` runs it, in its own process.

The process says by ``TRITON_TEST`` whether Triton interprets the kernels on the CPU, runs them on a
CUDA device, or only compiles them for one that need not be there.
"""

from __future__ import annotations

import math
import os
from typing import Any

import pytest
import torch
from kernel_cases import AGGREGATES, CASES, draw_edges
from torch import Tensor

from mmgraph import EdgeSet
from mmgraph.kernels import fused_backend, fused_cuda, torch_backend

COMPILE = os.environ["TRITON_TEST"] == "compile"
DEVICE = "cuda" if os.environ["TRITON_TEST"] == "device" else "cpu"


@pytest.fixture(autouse=True)
def _compile_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Launches that compile for a GPU of compute capability 9.0 and stop there."""
    if not COMPILE:
        return
    import triton
    from triton.backends.compiler import GPUTarget

    class Driver:
        def get_current_target(self) -> Any:
            return GPUTarget("cuda", 90, 32)

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int) -> int:
            return 0

    def launch(name: str, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        if 0 in grid:
            return
        kernel = getattr(fused_cuda._kernels(), name).warmup(
            *arguments, grid=grid, **constants, num_stages=1
        )
        assert kernel.asm["cubin"]

    monkeypatch.setattr(fused_cuda, "_launch", launch)
    triton.runtime.driver.set_active(Driver())


def check(got: Tensor, expected: Tensor, like: Tensor, name: str) -> None:
    """Equal as far as `like`'s type can tell."""
    assert got.shape == expected.shape, name
    assert got.dtype == like.dtype, name
    if COMPILE:
        return
    tolerance = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[like.dtype]
    torch.testing.assert_close(
        got.double(),
        expected.double(),
        rtol=tolerance,
        atol=tolerance,
        equal_nan=True,
        msg=lambda text: f"{name}: {text}",
    )


def graph_of(edges: EdgeSet) -> tuple[Tensor | None, ...]:
    assert edges.relation is not None
    return fused_backend._graph(edges)


def at_edges(rows: Tensor, nodes: Tensor, edges: EdgeSet) -> Tensor:
    """Each edge's row, at its relation where rows have a leading relation dimension."""
    return rows[edges.relation, nodes] if rows.dim() == 4 else rows[nodes]


def reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    edges: EdgeSet,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    slope: float | None,
) -> tuple[Tensor, Tensor]:
    products = at_edges(query, edges.centre, edges) * at_edges(key, edges.index, edges)
    if weight is not None:
        products = products * weight[edges.relation]
    scores = products.sum(-1)
    if slope is not None:
        scores = torch.nn.functional.leaky_relu(scores, slope)
    if bias is not None:
        scores = scores + bias
    alpha = torch_backend.edge_softmax(scores, edges)
    shares = alpha if scale is None else alpha * scale
    messages = at_edges(value, edges.index, edges) * shares.unsqueeze(-1)
    return torch_backend._sum_by_centre(messages, edges), alpha


def check_as_traced(op: str, arguments: tuple[Any, ...], results: Any) -> None:
    """The operator's shapes and types for tracing are those of the results."""

    def on_meta(x: Any) -> Any:
        return x.to("meta") if isinstance(x, Tensor) else x

    traced = getattr(torch.ops.mmgraph, op)(*map(on_meta, arguments))
    if isinstance(results, Tensor):
        traced, results = (traced,), (results,)
    for x, y in zip(traced, results, strict=True):
        assert (x.shape, x.stride(), x.dtype) == (y.shape, y.stride(), y.dtype), op


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.edges <= 300])
def test_attention(name: str) -> None:
    case = CASES[name]
    edges = draw_edges(case.centres, case.neighbours, case.edges, hub=case.hub).to(DEVICE)
    ck, cv = case.channels

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape).to(DEVICE, case.dtype)

    inputs = {
        "query": draw(*case.leading("q"), case.centres, case.heads, ck) * case.scores,
        "key": draw(*case.leading("k"), case.neighbours, case.heads, ck),
        "value": draw(*case.leading("v"), case.neighbours, case.heads, cv),
        "weight": draw(3, case.heads, ck) if "weight" in case.given else None,
        "bias": draw(edges.num_edges, case.heads) if "bias" in case.given else None,
        "scale": draw(edges.num_edges, case.heads) if "scale" in case.given else None,
    }
    if case.mixed:  # parameters and masks in float32 beside activations in another type
        inputs.update({n: inputs[n].float() for n in ("weight", "scale")})
    doubles = {
        n: None if x is None else x.double().requires_grad_(n not in case.no_gradient)
        for n, x in inputs.items()
    }
    needs = [x is not None and x.requires_grad for x in doubles.values()]
    query, key, value, *optional = doubles.values()
    out, alpha = reference(query, key, value, edges, *optional, case.slope)
    grad_out = draw(*out.shape)
    grad_alpha = draw(*alpha.shape).float() if "bias" in case.given else None
    total = (out * grad_out).sum()
    if grad_alpha is not None:
        total = total + (alpha * grad_alpha).sum()
    wanted = [x for x, needed in zip(doubles.values(), needs, strict=True) if needed]
    expected = iter(torch.autograd.grad(total, wanted, allow_unused=True))

    given = (*list(inputs.values())[:3], *graph_of(edges), *list(inputs.values())[3:], case.slope)
    got, shares, positive = fused_cuda.edge_attention(*given)
    check_as_traced("edge_attention", given, (got, shares, positive))
    check(got, out, inputs["value"], "out")
    check(shares, alpha, torch.empty(0), "alpha")
    given = (grad_out, grad_alpha, *given, shares, positive, needs)
    gradients = fused_cuda.edge_attention_backward(*given)
    check_as_traced("edge_attention_backward", given, gradients)
    for name, gradient, needed in zip(inputs, gradients, needs, strict=True):
        if needed:
            like = inputs[name]
            assert like is not None
            of = next(expected)
            check(gradient, torch.zeros_like(like) if of is None else of, like, f"grad of {name}")
        else:
            assert gradient.numel() == 0


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
@pytest.mark.parametrize("name", [n for n, case in AGGREGATES.items() if case.edges <= 300])
def test_aggregate(name: str, reduce: str) -> None:
    case = AGGREGATES[name]
    edges = draw_edges(case.centres, case.neighbours, case.edges, hub=case.hub).to(DEVICE)
    leading = (3,) if case.typed else ()
    shape = (*leading, case.neighbours, case.heads, case.channels[0])
    # Small integers: many ties, and products that every type holds.
    value = torch.randint(-2, 3, shape).to(DEVICE, case.dtype)
    weight = None
    if "weight" in case.given:
        weight = torch.randint(1, 3, (edges.num_edges, case.heads)).to(DEVICE, case.dtype)

    wide = value.double().requires_grad_()
    wide_weight = None if weight is None else weight.double().requires_grad_()
    messages = at_edges(wide, edges.index, edges)
    by_edge = EdgeSet(
        edges.ptr, torch.arange(edges.num_edges, device=DEVICE), edges.centre, edges.edge_id
    )
    expected = torch_backend.aggregate(messages, by_edge, wide_weight, reduce)
    grad = torch.randn(expected.shape).to(DEVICE, case.dtype)
    wanted = [wide] if wide_weight is None else [wide, wide_weight]
    expected_gradients = torch.autograd.grad((expected * grad).sum(), wanted)

    given = (value, *graph_of(edges), weight, reduce)
    out, chosen = fused_cuda.aggregate(*given)
    check_as_traced("aggregate", given, (out, chosen))
    check(out, expected, value, "out")
    given = (grad, *given, chosen, [True, weight is not None])
    gradients = fused_cuda.aggregate_backward(*given)
    check_as_traced("aggregate_backward", given, gradients)
    check(gradients[0], expected_gradients[0], value, "grad of value")
    if weight is None:
        assert gradients[1].numel() == 0
    else:
        check(gradients[1], expected_gradients[1], weight, "grad of weight")


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("hub", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_softmax(heads: int, hub: bool, dtype: torch.dtype) -> None:
    edges = draw_edges(6, 6, 40, hub=hub).to(DEVICE)
    scores = torch.randn(edges.num_edges, heads).to(DEVICE, dtype) * 10
    wide = scores.double().requires_grad_()
    expected = torch_backend.edge_softmax(wide, edges)
    grad = torch.randn(expected.shape).to(DEVICE, dtype)
    alpha = fused_cuda.edge_softmax(scores, edges.ptr)
    check(alpha, expected, scores, "alpha")
    (expected_grad,) = torch.autograd.grad((expected * grad).sum(), wide)
    check(fused_cuda.edge_softmax_backward(grad, alpha, edges.ptr), expected_grad, scores, "grad")


# The interpreter computes with NumPy, which warns of what a device does without a word.
@pytest.mark.filterwarnings("ignore:invalid value|All-NaN|overflow:RuntimeWarning")
@pytest.mark.skipif(COMPILE, reason="compares numbers")
@pytest.mark.parametrize("hub", [False, True])
@pytest.mark.parametrize("special", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("where", ["query", "key", "value", "bias", "every bias"])
def test_what_is_not_finite_comes_out_as_in_torch(where: str, special: float, hub: bool) -> None:
    edges = draw_edges(3, 4, 40 if hub else 8, hub=hub).to(DEVICE)
    inputs = {
        "query": torch.randn(3, 1, 2, device=DEVICE),
        "key": torch.randn(4, 1, 2, device=DEVICE),
        "value": torch.randn(4, 1, 2, device=DEVICE),
        "bias": torch.randn(edges.num_edges, 1, device=DEVICE),
    }
    if where == "every bias":
        inputs["bias"][:20] = special
    else:
        inputs[where][-1] = special
    query, key, value, bias = inputs.values()
    expected, shares = torch_backend.edge_attention(query, key, value, edges, None, 0.1, bias, None)
    out, alpha, _ = fused_cuda.edge_attention(
        query, key, value, *graph_of(edges), None, bias, None, 0.1
    )
    torch.testing.assert_close(out, expected, equal_nan=True)
    torch.testing.assert_close(alpha, shares, equal_nan=True)
    softmax = fused_cuda.edge_softmax(bias, edges.ptr)
    torch.testing.assert_close(softmax, torch_backend.edge_softmax(bias, edges), equal_nan=True)
    for reduce in ("sum", "mean", "max"):
        out, _ = fused_cuda.aggregate(value, *graph_of(edges), bias, reduce)
        expected = torch_backend.aggregate(value, edges, bias, reduce)
        torch.testing.assert_close(out, expected, equal_nan=True)


def test_segment_matmul() -> None:
    x = torch.randn(5, 3, device=DEVICE)
    weight = torch.randn(3, 3, 2, device=DEVICE)
    ptr = torch.tensor([0, 2, 2, 5])
    grad = torch.randn(5, 2, device=DEVICE)
    wide = [x.double().requires_grad_(), weight.double().requires_grad_()]
    expected = torch_backend.segment_matmul(wide[0], ptr, wide[1])
    check(fused_cuda.segment_matmul(x, ptr, weight), expected, x, "out")
    of_x, of_weight = torch.autograd.grad((expected * grad).sum(), wide)
    got = fused_cuda.segment_matmul_backward(grad, x, ptr, weight, [True, True])
    check(got[0], of_x, x, "grad of x")
    check(got[1], of_weight, weight, "grad of weight")
    assert got[1][1].eq(0).all()  # of a segment without rows
    nothing = fused_cuda.segment_matmul_backward(grad, x, ptr, weight, [False, False])
    assert [gradient.numel() for gradient in nothing] == [0, 0]


def attention_with_gradients(inputs: dict[str, Tensor], edges: EdgeSet) -> tuple[Tensor, ...]:
    query, key, value, weight = inputs.values()
    given = (query, key, value, *graph_of(edges), weight, None, None, 0.1)
    out, alpha, positive = fused_cuda.edge_attention(*given)
    needs = [True, True, True, True, False, False]
    gradients = fused_cuda.edge_attention_backward(out, None, *given, alpha, positive, needs)
    return out, alpha, *gradients[:4]


def draw_inputs(edges: EdgeSet) -> dict[str, Tensor]:
    return {
        "query": torch.randn(edges.num_centres, 2, 64, device=DEVICE),
        "key": torch.randn(edges.num_neighbours, 2, 64, device=DEVICE),
        "value": torch.randn(edges.num_neighbours, 2, 64, device=DEVICE),
        "weight": torch.randn(3, 2, 64, device=DEVICE),
    }


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")
def test_large_graphs_and_the_same_bits_each_time() -> None:
    edges = draw_edges(5000, 4000, 100_000).to(DEVICE)
    inputs = draw_inputs(edges)
    results = attention_with_gradients(inputs, edges)
    for _ in range(3):
        again = attention_with_gradients(inputs, edges)
        assert all(torch.equal(x, y) for x, y in zip(results, again, strict=True))
    doubles = [x.double().requires_grad_() for x in inputs.values()]
    query, key, value, weight = doubles
    out, alpha = reference(query, key, value, edges, weight, None, None, 0.1)
    gradients = torch.autograd.grad(out, doubles, results[0].double())
    for got, expected in zip(results, (out, alpha, *gradients), strict=True):
        torch.testing.assert_close(got, expected.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")
def test_a_captured_graph_replays() -> None:
    edges = draw_edges(50, 40, 700).to(DEVICE)
    inputs = draw_inputs(edges)
    attention_with_gradients(inputs, edges)  # compiles
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        results = attention_with_gradients(inputs, edges)
    for x, other in zip(inputs.values(), draw_inputs(edges).values(), strict=True):
        x.copy_(other)
    captured.replay()
    expected = attention_with_gradients(inputs, edges)
    assert all(torch.equal(x, y) for x, y in zip(results, expected, strict=True))
