"""Every backend against the reference in float64, over one table of cases."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from kernel_cases import AGGREGATES, CASES, EVERY, Case, draw_edges
from torch import Tensor
from torch.autograd import gradcheck

import mmgraph
from mmgraph import EdgeSet, kernels
from mmgraph._numba import callback
from mmgraph.kernels import fused_backend, fused_cpu, scatter_backend

needs_scatter = pytest.mark.skipif(
    scatter_backend.unavailable() is not None, reason=str(scatter_backend.unavailable())
)
BACKENDS = ["torch", pytest.param("scatter", marks=needs_scatter), "fused", "auto"]
NEW = ["fused", pytest.param("scatter", marks=needs_scatter)]
NAMES = {"weight": "relation_weight", "bias": "edge_bias", "scale": "edge_scale"}


def draw_inputs(case: Case, edges: EdgeSet, dtype: torch.dtype) -> dict[str, Tensor]:
    ck, cv = case.channels

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape).to(dtype)

    inputs = {
        "query": draw(*case.leading("q"), case.centres, case.heads, ck) * case.scores,
        "key": draw(*case.leading("k"), case.neighbours, case.heads, ck),
        "value": draw(*case.leading("v"), case.neighbours, case.heads, cv),
    }
    if "weight" in case.given:
        inputs["relation_weight"] = draw(3, case.heads, ck)
    if "bias" in case.given:
        inputs["edge_bias"] = draw(edges.num_edges, case.heads)
    if "scale" in case.given:  # as dropout draws it
        inputs["edge_scale"] = torch.randint(2, (edges.num_edges, case.heads)).to(dtype) * 2
    if case.mixed:
        inputs.update({n: inputs[n].float() for n in ("relation_weight", "edge_scale")})
    return inputs


def attend(inputs: dict[str, Tensor], edges: EdgeSet, slope: float | None) -> tuple[Tensor, Tensor]:
    optional = {name: x for name, x in inputs.items() if name in NAMES.values()}
    query, key, value = list(inputs.values())[:3]
    return kernels.edge_attention(
        query, key, value, edges, negative_slope=slope, return_weights=True, **optional
    )


def with_gradients(
    function: Callable[..., Any], inputs: dict[str, Tensor], without: tuple[str, ...], seed: int = 1
) -> list[Tensor]:
    """A function's results, and gradients of all inputs but some for fixed gradients of those."""
    leaves = {
        name: x.detach().clone().requires_grad_(name not in without) for name, x in inputs.items()
    }
    results = function(leaves)
    results = [results] if isinstance(results, Tensor) else list(results)
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros((), dtype=torch.float64)
    for result in results:
        total = total + (result * torch.randn(result.shape, generator=generator)).double().sum()
    wanted = [x for x in leaves.values() if x.requires_grad]
    return [
        *(x.detach() for x in results),
        *torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True),
    ]


def assert_close(got: list[Tensor], expected: list[Tensor], dtypes: list[torch.dtype]) -> None:
    tolerances = {torch.float64: 1e-10, torch.float32: 3e-5, torch.float16: 1e-2}
    tolerance = max(tolerances.get(dtype, 5e-2) for dtype in dtypes)
    for x, y in zip(got, expected, strict=True):
        assert x.shape == y.shape
        size = float(y.abs().max()) if y.numel() else 0.0
        torch.testing.assert_close(
            x.double(), y, rtol=tolerance, atol=tolerance * max(size, 1.0), equal_nan=True
        )


IN_FLOAT64 = ("everything", "additive", "one centre, wide", "no edges", "typed", "thousands")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [*CASES, *(f"{name}, float64" for name in IN_FLOAT64)])
def test_attention(name: str, backend: str) -> None:
    case = CASES[name.removesuffix(", float64")]
    dtype = torch.float64 if name.endswith("float64") else case.dtype
    if backend in ("fused", "scatter") and (case.mixed or dtype.itemsize == 2):
        pytest.skip("takes one type, of at least float32")
    edges = draw_edges(case.centres, case.neighbours, case.edges, hub=case.hub)
    inputs = draw_inputs(case, edges, dtype)
    without = tuple(NAMES.get(given, given) for given in case.no_gradient)

    def run(leaves: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return attend(leaves, edges, case.slope)

    with mmgraph.use_backend("torch"):
        doubles = {name: x.double() for name, x in inputs.items()}
        expected = with_gradients(run, doubles, without)
    with mmgraph.use_backend(backend):
        got = with_gradients(run, inputs, without)
    wanted = [x.dtype for name, x in inputs.items() if name not in without]
    assert [x.dtype for x in got[2:]] == wanted
    assert_close(got, expected, [dtype])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
@pytest.mark.parametrize("name", AGGREGATES)
def test_aggregate(name: str, reduce: str, backend: str) -> None:
    case = AGGREGATES[name]
    if backend in ("fused", "scatter") and case.dtype.itemsize == 2:
        pytest.skip("takes float32 and float64")
    edges = draw_edges(case.centres, case.neighbours, case.edges, hub=case.hub)
    leading = (3,) if case.typed else ()
    # Small integers: many ties.
    shape = (*leading, case.neighbours, case.heads, case.channels[0])
    inputs = {"value": torch.randint(-2, 3, shape).to(case.dtype)}
    if "weight" in case.given:
        inputs["weight"] = torch.randint(1, 3, (edges.num_edges, case.heads)).to(case.dtype)

    def run(leaves: dict[str, Tensor]) -> Tensor:
        return kernels.aggregate(leaves["value"], edges, leaves.get("weight"), reduce)  # type: ignore[arg-type]

    with mmgraph.use_backend("torch"):
        expected = with_gradients(run, {n: x.double() for n, x in inputs.items()}, ())
    with mmgraph.use_backend(backend):
        assert_close(with_gradients(run, inputs, ()), expected, [case.dtype])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_softmax_and_weights_for_all_heads(backend: str, heads: int, dtype: torch.dtype) -> None:
    edges = draw_edges(6, 6, 40)
    inputs = {
        "scores": torch.randn(40, heads, dtype=dtype) * 10,
        "value": torch.randn(6, heads, 4, dtype=dtype),
        "weight": torch.rand(40, dtype=dtype),
    }

    def run(leaves: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        total = kernels.aggregate(leaves["value"], edges, leaves["weight"])
        return kernels.edge_softmax(leaves["scores"], edges), total

    with mmgraph.use_backend("torch"):
        expected = with_gradients(run, {n: x.double() for n, x in inputs.items()}, ())
    with mmgraph.use_backend(backend):
        assert_close(with_gradients(run, inputs, ()), expected, [dtype])


@pytest.mark.parametrize("backend", BACKENDS)
def test_segment_matmul(backend: str) -> None:
    inputs = {"x": torch.randn(7, 5).T.contiguous().T, "weight": torch.randn(3, 5, 4)}
    ptr = torch.tensor([0, 3, 3, 7])

    def run(leaves: dict[str, Tensor]) -> Tensor:
        return kernels.segment_matmul(leaves["x"], ptr, leaves["weight"])

    with mmgraph.use_backend("torch"):
        expected = with_gradients(run, {n: x.double() for n, x in inputs.items()}, ())
    with mmgraph.use_backend(backend):
        assert_close(with_gradients(run, inputs, ()), expected, [torch.float32])
        with pytest.raises(
            ValueError, match=re.escape("ptr[-1]: expected the number of values, 7")
        ):
            kernels.segment_matmul(inputs["x"], torch.tensor([0, 1, 1, 6]), inputs["weight"])


@pytest.mark.parametrize("frozen", ["x", "matrices", "value", "weight"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_each_input_learns_beside_a_frozen_one(frozen: str, backend: str) -> None:
    edges, ptr = draw_edges(5, 4, 17), torch.tensor([0, 1, 1, 4])
    inputs = {
        "x": torch.randn(4, 3),
        "matrices": torch.randn(3, 3, 2),
        "value": torch.randn(4, 2, 3),
        "weight": torch.rand(17, 2),
    }

    def run(leaves: dict[str, Tensor]) -> list[Tensor]:
        value, weight = leaves["value"], leaves["weight"]
        product = kernels.segment_matmul(leaves["x"], ptr, leaves["matrices"])
        sums = [kernels.aggregate(value, edges, weight, r) for r in ("sum", "mean", "max")]  # type: ignore[arg-type]
        return [product, *sums]

    with mmgraph.use_backend("torch"):
        expected = with_gradients(run, {n: x.double() for n, x in inputs.items()}, (frozen,))
    with mmgraph.use_backend(backend):
        assert_close(with_gradients(run, inputs, (frozen,)), expected, [torch.float32])


@pytest.mark.parametrize("backend", ["fused", "torch"])
def test_segment_matmul_compiled(backend: str) -> None:
    torch.compiler.reset()
    compiled = torch.compile(
        kernels.segment_matmul, fullgraph=True, dynamic=True, backend="aot_eager"
    )
    ptr = torch.tensor([0, 2, 2, 5])
    inputs = {"x": torch.randn(5, 3), "weight": torch.randn(3, 3, 4)}
    inputs["weight"][1] = math.inf  # of no row
    inputs["x"][0, 0] = math.nan  # of the first segment's

    def run(leaves: dict[str, Tensor], product: Callable[..., Tensor]) -> Tensor:
        return product(leaves["x"], ptr, leaves["weight"])

    with mmgraph.use_backend(backend):
        expected = with_gradients(lambda leaves: run(leaves, kernels.segment_matmul), inputs, ())
        got = with_gradients(lambda leaves: run(leaves, compiled), inputs, ())
        for x, y in zip(got, expected, strict=True):
            torch.testing.assert_close(x, y, equal_nan=True)
        for wrong in ([1, 2, 3, 5], [0, 2, 3, 4], [0, 3, 2, 5]):
            with pytest.raises(ValueError, match=r"ptr\["):
                compiled(inputs["x"], torch.tensor(wrong), inputs["weight"])


@pytest.mark.parametrize("backend", NEW)
def test_gradients_are_those_of_differences(backend: str) -> None:
    case = Case(3, 4, 8, channels=(2, 3), given=EVERY, slope=0.1, typed="v")
    edges = draw_edges(case.centres, case.neighbours, case.edges)
    inputs = draw_inputs(case, edges, torch.float64)
    names, leaves = list(inputs), [x.requires_grad_() for x in inputs.values()]
    weight = torch.rand(8, 1, dtype=torch.float64, requires_grad=True)
    value = torch.randn(4, 1, 3, dtype=torch.float64, requires_grad=True)
    heads = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    with mmgraph.use_backend(backend):
        assert gradcheck(
            lambda *x: attend(dict(zip(names, x, strict=True)), edges, case.slope), leaves
        )
        assert gradcheck(lambda s: kernels.edge_softmax(s, edges), weight)
        for reduce in ("sum", "mean", "max"):
            assert gradcheck(
                lambda v, w: kernels.aggregate(v, edges, w, reduce),  # noqa: B023
                (value, weight),
            )
            assert gradcheck(lambda v: kernels.aggregate(v, edges, reduce=reduce), heads)  # noqa: B023


@given(
    seed=st.integers(0, 10_000),
    centres=st.integers(1, 20),
    count=st.integers(0, 60),
    heads=st.integers(1, 2),
    slope=st.sampled_from([None, 0.1]),
    names=st.sets(st.sampled_from(EVERY)),
    hub=st.booleans(),
    backend=st.sampled_from(["fused", "scatter"]),
)
def test_any_graph(
    seed: int,
    centres: int,
    count: int,
    heads: int,
    slope: float | None,
    names: set[str],
    hub: bool,
    backend: str,
) -> None:
    if backend == "scatter" and scatter_backend.unavailable():
        backend = "fused"
    torch.manual_seed(seed)
    case = Case(centres, 5, count, heads, (4, 4), tuple(names), slope)
    edges = draw_edges(centres, 5, count, hub=hub)
    inputs = draw_inputs(case, edges, torch.float32)

    def run(leaves: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return attend(leaves, edges, slope)

    with mmgraph.use_backend("torch"):
        expected = with_gradients(run, {n: x.double() for n, x in inputs.items()}, ())
    with mmgraph.use_backend(backend):
        assert_close(with_gradients(run, inputs, ()), expected, [torch.float32])


@pytest.mark.parametrize("backend", NEW)
@pytest.mark.parametrize("hub", [False, True])
@pytest.mark.parametrize("special", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("where", ["query", "key", "value", "bias", "every bias"])
def test_what_is_not_finite_comes_out_as_in_torch(
    where: str, special: float, hub: bool, backend: str
) -> None:
    edges = draw_edges(3, 4, 40 if hub else 8, hub=hub)
    inputs = {
        "query": torch.randn(3, 1, 2),
        "key": torch.randn(4, 1, 2),
        "value": torch.randn(4, 1, 2),
        "bias": torch.randn(edges.num_edges, 1),
    }
    if where == "every bias":
        inputs["bias"][:20] = special
    else:
        inputs[where][-1] = special
    query, key, value, bias = inputs.values()

    def run() -> list[Tensor]:
        out, alpha = kernels.edge_attention(
            query, key, value, edges, negative_slope=0.1, edge_bias=bias, return_weights=True
        )
        softmax = kernels.edge_softmax(bias, edges)
        sums = [kernels.aggregate(value, edges, bias, r) for r in ("sum", "mean", "max")]  # type: ignore[arg-type]
        return [out, alpha, softmax, *sums]

    with mmgraph.use_backend("torch"):
        expected = run()
    with mmgraph.use_backend(backend):
        got = run()
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x, y, equal_nan=True)


def test_exponentials_are_exact_to_two_units_in_the_last_place() -> None:
    for dtype, low in ((torch.float32, -87.0), (torch.float64, -708.0)):
        scores = torch.linspace(low, 0.0, 10_001, dtype=dtype)
        edges = EdgeSet.from_edge_index(
            torch.stack([torch.zeros(20_002).long(), torch.arange(10_001).repeat(2)]), (1, 10_001)
        )
        pairs = torch.stack([scores, torch.zeros_like(scores)], 1).view(-1, 1)
        with mmgraph.use_backend("fused"):
            alpha = kernels.edge_softmax(pairs, edges).view(-1, 2)
        ratio = alpha[:, 0] / alpha[:, 1]
        error = (ratio.double() / scores.double().exp() - 1).abs().max()
        assert error < 4 * torch.finfo(dtype).eps


# What the operators are, to PyTorch.


def operator_arguments(case: Case, dtype: torch.dtype = torch.float32) -> tuple[Any, ...]:
    edges = draw_edges(case.centres, case.neighbours, case.edges)
    inputs = {n: x.requires_grad_() for n, x in draw_inputs(case, edges, dtype).items()}
    optional = [inputs.get(name) for name in ("relation_weight", "edge_bias", "edge_scale")]
    query, key, value = list(inputs.values())[:3]
    return query, key, value, *fused_backend._graph(edges), *optional, case.slope


# PyTorch 2.14's check looks for the gradient of what is no leaf.
OPCHECK = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


def without_gradients(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.detach() if isinstance(x, Tensor) else x for x in arguments)


@OPCHECK
@pytest.mark.parametrize("name", ["plain", "everything", "typed", "no edges"])
def test_opcheck_of_attention(name: str) -> None:
    arguments = operator_arguments(CASES[name])
    torch.library.opcheck(torch.ops.mmgraph.edge_attention, arguments)
    given = without_gradients(arguments)
    out, alpha, positive = torch.ops.mmgraph.edge_attention(*given)
    needs = [isinstance(x, Tensor) and x.requires_grad for x in (*arguments[:3], *arguments[9:12])]
    backward = (torch.randn_like(out), torch.randn_like(alpha), *given, alpha, positive, needs)
    torch.library.opcheck(torch.ops.mmgraph.edge_attention_backward, backward)


@OPCHECK
@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_opcheck_of_the_others(reduce: str) -> None:
    edges = draw_edges(5, 4, 17)
    value = torch.randn(4, 2, 3, requires_grad=True)
    weight = torch.rand(17, 2, requires_grad=True)
    arguments = (value, *fused_backend._graph(edges), weight, reduce)
    torch.library.opcheck(torch.ops.mmgraph.aggregate, arguments)
    given = without_gradients(arguments)
    out, chosen = torch.ops.mmgraph.aggregate(*given)
    backward = (torch.randn_like(out), *given, chosen, [True, False])
    torch.library.opcheck(torch.ops.mmgraph.aggregate_backward, backward)
    if reduce != "sum":
        return
    torch.library.opcheck(torch.ops.mmgraph.edge_softmax, (weight, edges.ptr))
    softmax = (weight.detach(), weight.detach(), edges.ptr)
    torch.library.opcheck(torch.ops.mmgraph.edge_softmax_backward, softmax)
    x, ptr = torch.randn(6, 3, requires_grad=True), torch.tensor([0, 2, 6])
    matrices = torch.randn(2, 3, 4, requires_grad=True)
    torch.library.opcheck(torch.ops.mmgraph.segment_matmul, (x, ptr, matrices))
    products = (torch.randn(6, 4), x.detach(), ptr, matrices.detach(), [True, True])
    torch.library.opcheck(torch.ops.mmgraph.segment_matmul_backward, products)
    torch.library.opcheck(torch.ops.mmgraph.segment_of_row, (ptr, 6))


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.dtype == torch.float32])
def test_compiled_in_one_graph(name: str) -> None:
    torch.compiler.reset()
    case = CASES[name]
    edges = draw_edges(case.centres, case.neighbours, case.edges, hub=case.hub)
    inputs = draw_inputs(case, edges, torch.float32)
    compiled = torch.compile(attend, fullgraph=True, dynamic=True, backend="aot_eager")
    got = with_gradients(lambda leaves: compiled(leaves, edges, case.slope), inputs, ())
    expected = with_gradients(lambda leaves: attend(leaves, edges, case.slope), inputs, ())
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize("backend", NEW)
def test_second_derivatives_are_refused(backend: str) -> None:
    edges = draw_edges(3, 4, 8)
    rows = torch.randn(4, 1, 2, requires_grad=True)
    query = torch.randn(3, 1, 2, requires_grad=True)
    weight = torch.rand(8, 1, requires_grad=True)
    matrices = torch.randn(1, 2, 2, requires_grad=True)
    calls: list[tuple[Tensor, Callable[[], Tensor]]] = [
        (query, lambda: kernels.edge_attention(query, rows, rows, edges)),
        (weight, lambda: kernels.edge_softmax(weight, edges)),
        (rows, lambda: kernels.aggregate(rows, edges, weight)),
        (rows, lambda: kernels.aggregate(rows, edges)),
        (rows, lambda: kernels.aggregate(rows, edges, reduce="mean")),
        (rows, lambda: kernels.aggregate(rows, edges, reduce="max")),
        (matrices, lambda: kernels.segment_matmul(rows[:, 0], torch.tensor([0, 4]), matrices)),
    ]
    with mmgraph.use_backend(backend):
        for leaf, call in calls:
            (grad,) = torch.autograd.grad(call().square().sum(), leaf, create_graph=True)
            with pytest.raises(NotImplementedError, match=r"use_backend\('torch'\)"):
                torch.autograd.grad(grad.square().sum(), leaf)


@pytest.mark.parametrize("backend", NEW)
@pytest.mark.parametrize("learned", [(), ("value",), ("query",)])
def test_inputs_are_left_as_they_were(backend: str, learned: tuple[str, ...]) -> None:
    edges = draw_edges(5, 6, 20)
    inputs = {
        name: torch.randn(count, 2, 3, requires_grad=name in learned)
        for name, count in (("query", 5), ("key", 6), ("value", 6))
    }
    before = {name: tensor.detach().clone() for name, tensor in inputs.items()}
    with mmgraph.use_backend("torch"):
        expected = kernels.edge_attention(*inputs.values(), edges)
    with mmgraph.use_backend(backend):
        torch.testing.assert_close(kernels.edge_attention(*inputs.values(), edges), expected)
        with torch.no_grad():
            found = kernels.edge_attention(*inputs.values(), edges)
        torch.testing.assert_close(found, expected.detach())
    for name, tensor in inputs.items():
        assert torch.equal(tensor.detach(), before[name])


def test_only_numbers_per_edge_and_head_are_kept() -> None:
    case = Case(6, 6, 40, heads=2, channels=(8, 8), given=EVERY, slope=0.1)
    edges = draw_edges(case.centres, case.neighbours, case.edges)
    inputs = draw_inputs(case, edges, torch.float32)
    own = {x.data_ptr() for x in fused_backend._graph(edges) if x is not None}
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        leaves = {name: x.requires_grad_() for name, x in inputs.items()}
        attend(leaves, edges, case.slope)
    given = own | {x.data_ptr() for x in inputs.values()}
    new = [tuple(x.shape) for x in kept if x.data_ptr() not in given]
    assert sorted(new) == [(40, 2), (40, 2)]  # the weights, and the scores' signs


# Threads.


def large() -> tuple[EdgeSet, dict[str, Tensor]]:
    case = Case(500, 400, 40_000, given=("weight",), slope=0.1)
    edges = draw_edges(case.centres, case.neighbours, case.edges)
    return edges, draw_inputs(case, edges, torch.float32)


@pytest.mark.parametrize("pool", ["of PyTorch", "of its own"])
def test_bits_do_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch, pool: str) -> None:
    edges, inputs = large()

    def run(leaves: dict[str, Tensor]) -> list[Tensor]:
        value, weight = leaves["value"], leaves["relation_weight"].new_ones(edges.num_edges, 1)
        reduced = [kernels.aggregate(value, edges, weight, r) for r in ("sum", "max")]  # type: ignore[arg-type]
        return [*attend(leaves, edges, 0.1), kernels.edge_softmax(weight, edges), *reduced]

    used = []
    in_parallel = fused_cpu._in_parallel

    def spy(kernel: Any, task: int, threads: int) -> None:
        used.append(threads)
        in_parallel(kernel, task, threads)

    monkeypatch.setattr(fused_cpu, "_in_parallel", spy)
    monkeypatch.setattr(fused_cpu, "_GRAIN", 1)
    monkeypatch.setattr(fused_cpu, "_numba_threads", lambda: 3)
    if pool == "of its own":
        monkeypatch.setattr(fused_cpu, "_openmp", lambda: None)
    with mmgraph.use_backend("fused"):
        alone = with_gradients(run, inputs, ())
        assert not used
        torch.set_num_threads(3)
        for _ in range(3):
            together = with_gradients(run, inputs, ())
            assert all(torch.equal(x, y) for x, y in zip(alone, together, strict=True))
    assert set(used) == {3}


@pytest.mark.parametrize("name", ["everything", "thousands", "no edges", "typed"])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_order_of_centres_changes_nothing(
    name: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused_cpu, "_GRAIN", 1)  # so that small graphs are shared out, too
    torch.set_num_threads(threads)
    case = CASES[name]
    edges = draw_edges(case.centres, case.neighbours, case.edges)
    inputs = draw_inputs(case, edges, torch.float64)
    assert edges.transpose is not None

    def run(leaves: dict[str, Tensor]) -> list[Tensor]:
        maxima = kernels.aggregate(leaves["value"], edges, reduce="max")
        return [*attend(leaves, edges, case.slope), maxima]

    with mmgraph.use_backend("fused"):
        expected = with_gradients(run, inputs, ())
        edges = dataclasses.replace(
            edges,
            order=torch.randperm(edges.num_centres),
            transpose=dataclasses.replace(
                edges.transpose, order=torch.randperm(edges.num_neighbours)
            ),
        )
        got = with_gradients(run, inputs, ())
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


def test_as_many_threads_as_pytorch_and_numba_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_cpu, "_numba_threads", lambda: 2)
    torch.set_num_threads(4)
    assert fused_cpu.num_threads() == 2
    torch.set_num_threads(1)
    assert fused_cpu.num_threads() == 1


def test_first_use_says_what_it_does(caplog: pytest.LogCaptureFixture) -> None:
    made: dict[str, Any] = {}
    exec("def function(task):\n    pass", made)  # without a file, beside which code is cached
    callback(made["function"], "a function of the tests")(0)
    assert "compiling a function of the tests, once" in caplog.text


def test_code_on_disk_is_not_that_of_other_helpers(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(
        "import numpy as np\nfrom helper import number\nfrom mmgraph.kernels._simd import array\n"
        "def function(address):\n    array(address, np.int64)[0] = number()\n"
    )
    program = (
        "import helper, user\nimport numpy as np\nfrom mmgraph._numba import callback\n"
        "found = np.zeros(1, np.int64)\n"
        "callback(user.function, 'a test', uses=helper)(found.ctypes.data)\nprint(found[0])\n"
    )
    root, found = Path(mmgraph.__file__).parents[1], []
    for number in (1, 1, 234):
        (tmp_path / "helper.py").write_text(
            f"import numba\n\n@numba.njit\ndef number():\n    return {number}\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)])},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        found.append((done.stdout.strip(), "compiling a test" in done.stderr))
    assert found == [("1", True), ("1", False), ("234", True)]


def test_code_on_disk_goes_by_all_that_decides_it() -> None:
    def made(number: int) -> Any:
        def function(task: int) -> None:
            _ = task + number

        return function

    names = set()
    for number in (1, 2, 2):
        function = made(number)
        callback(function, "a function of the tests", constants=(number,))
        names.add(function.__qualname__)
    assert len(names) == 2


# Types, and which backend runs.


def test_autocast_computes_in_float32() -> None:
    edges = draw_edges(5, 5, 20)
    rows = torch.randn(5, 1, 4, requires_grad=True)
    weight, ptr = torch.randn(1, 4, 4, requires_grad=True), torch.tensor([0, 5])
    with torch.autocast("cpu", torch.bfloat16):
        projected = kernels.segment_matmul(rows[:, 0], ptr, weight)
        assert projected.dtype == torch.bfloat16
        key = projected.unsqueeze(1)
        out, alpha = kernels.edge_attention(rows, key, key, edges, return_weights=True)
        softmax = kernels.edge_softmax(out.new_zeros(20, 1, dtype=torch.bfloat16), edges)
        total = kernels.aggregate(projected.unsqueeze(1), edges)
    assert {out.dtype, alpha.dtype, softmax.dtype, total.dtype} == {torch.float32}
    (out.sum() + total.sum()).backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    value = projected.detach().float().unsqueeze(1)
    torch.testing.assert_close(out, kernels.edge_attention(rows, value, value, edges))


def test_fused_refuses_other_types() -> None:
    edges, rows = draw_edges(4, 4, 9), torch.randn(4, 1, 2)
    with mmgraph.use_backend("fused"):
        with pytest.raises(TypeError, match=r"expected float32 or float64, got torch\.float16"):
            kernels.aggregate(rows.half(), edges)
        with pytest.raises(TypeError, match=r"key: expected torch\.float32, the type of the rows"):
            kernels.edge_attention(rows, rows.double(), rows, edges)
    assert kernels.aggregate(rows.half(), edges).dtype == torch.float16


def test_edge_sets_made_by_hand() -> None:
    edges, rows = draw_edges(4, 4, 9), torch.randn(4, 1, 2)
    spread = torch.stack([edges.index, edges.index], 1)[:, 0]
    assert not spread.is_contiguous()
    expected = kernels.aggregate(rows, edges)
    got = kernels.aggregate(rows, dataclasses.replace(edges, index=spread))
    assert torch.equal(got, expected)
    short = dataclasses.replace(edges, index=edges.index.int())
    with pytest.raises(TypeError, match=r"edges: expected index of torch\.int64, got torch\.int32"):
        kernels.aggregate(rows, short)


def test_an_edge_set_that_is_a_transpose_runs() -> None:
    transpose = draw_edges(4, 4, 9).transpose
    assert transpose is not None
    rows = torch.randn(4, 1, 2, requires_grad=True)
    kernels.aggregate(rows, transpose).sum().backward()
    with (
        mmgraph.use_backend("fused"),
        pytest.raises(ValueError, match="edges: expected a transpose"),
    ):
        kernels.aggregate(rows, transpose)


def test_report_names_what_is_missing_or_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    report = mmgraph.backend_report()
    assert {*kernels.dispatch.OPS, "fused on cpu", "fused on cuda", "scatter", "torch"} == {*report}
    assert report["fused on cpu"] == report["torch"] == "runs"
    assert "fused on cpu for float32, float64" in report["aggregate"]

    def missing() -> None:
        raise ModuleNotFoundError("No module named 'torch_sparse'", name="torch_sparse")

    def broken() -> None:
        raise OSError("undefined symbol: _ZN3c10")

    for packages, reason in (
        (missing, "torch_sparse is not installed"),
        (broken, "undefined symb"),
    ):
        monkeypatch.setattr(scatter_backend, "_packages", packages)
        scatter_backend.unavailable.cache_clear()
        assert reason in mmgraph.backend_report()["scatter"]
        with pytest.raises(ImportError, match="the scatter backend does not run: .*" + reason):
            mmgraph.use_backend("scatter")
    scatter_backend.unavailable.cache_clear()


def test_without_numba_auto_takes_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_backend, "unavailable", lambda device: "Numba is broken")
    report = mmgraph.backend_report()
    assert "torch on cpu: fused does not run, as Numba is broken" in report["edge_attention"]
    rows = torch.randn(4, 1, 2)
    monkeypatch.setattr(fused_backend, "aggregate", None)
    assert kernels.aggregate(rows, draw_edges(4, 4, 9)).shape == (4, 1, 2)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("torch", "torch: chosen by MMGRAPH_BACKEND=torch"),
        ("fast", "MMGRAPH_BACKEND: expected one"),
    ],
)
def test_environment_variable_chooses(value: str, expected: str) -> None:
    code = "import mmgraph; print(mmgraph.backend_report()['aggregate'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=dict(os.environ, MMGRAPH_BACKEND=value),
        capture_output=True,
        text=True,
    )
    assert expected in done.stdout + done.stderr


def test_derivatives_that_fused_lacks_are_refused_by_name() -> None:
    edges = EdgeSet.from_edge_index(torch.tensor([[0, 1], [1, 0]]), 2)
    x = torch.randn(2, 1, 3)

    def run(x: Tensor) -> Tensor:
        return kernels.aggregate(x, edges)

    def dual() -> None:
        with torch.autograd.forward_ad.dual_level():
            run(torch.autograd.forward_ad.make_dual(x, x))

    for call in (
        dual,
        lambda: torch.func.jvp(run, (x,), (x,)),
        lambda: torch.func.grad(lambda x: run(x).sum())(x),
    ):
        with pytest.raises(NotImplementedError, match=r"use_backend\('torch'\) has forward mode"):
            call()
    with mmgraph.use_backend("torch"):
        torch.testing.assert_close(torch.func.jvp(run, (x,), (x,))[1], run(x))
        assert torch.equal(torch.func.grad(lambda x: run(x).sum())(x), torch.ones_like(x))


def test_a_choice_of_backend_can_be_entered_again() -> None:
    before = mmgraph.backend_report()["aggregate"]
    chosen = mmgraph.use_backend("torch")
    for _ in range(2):
        with chosen, chosen:
            assert mmgraph.backend_report()["aggregate"].startswith("torch: chosen")
        assert mmgraph.backend_report()["aggregate"] == before


def test_choices_of_backends_made_beforehand_are_each_their_own() -> None:
    before = mmgraph.backend_report()["aggregate"]
    with mmgraph.use_backend("auto"):
        choices = {name: mmgraph.use_backend(name) for name in ("torch", "fused")}
        for name in ("torch", "fused", "torch"):
            with choices[name]:
                assert mmgraph.backend_report()["aggregate"].startswith(f"{name}: chosen")
        with mmgraph.use_backend("torch"):
            with choices["torch"]:
                pass
            assert mmgraph.backend_report()["aggregate"].startswith("torch: chosen")
    assert mmgraph.backend_report()["aggregate"] == before


def test_a_transpose_between_two_sets_of_nodes_is_an_edge_set() -> None:
    edges = EdgeSet.from_edge_index(torch.tensor([[0, 1, 1], [0, 1, 4]]), (2, 5))
    back = edges.transpose
    assert back is not None
    assert (back.num_centres, back.num_neighbours) == (2, 5)
    x = torch.randn(5, 1, 3)
    torch.testing.assert_close(kernels.aggregate(x, back)[1], x[1] + x[4])
    with pytest.raises(ValueError, match=r"value: expected shape \[5, "):
        kernels.aggregate(torch.randn(2, 1, 3), back)


@pytest.mark.parametrize("backend", BACKENDS)
def test_products_of_no_segment(backend: str) -> None:
    with mmgraph.use_backend(backend):
        out = kernels.segment_matmul(torch.zeros(0, 2), torch.tensor([0]), torch.zeros(0, 2, 3))
        assert out.shape == (0, 3)
        with pytest.raises(TypeError, match=r"ptr: expected integers, got torch.float32"):
            kernels.segment_matmul(torch.zeros(1, 2), torch.tensor([0.0, 1]), torch.zeros(1, 2, 3))
