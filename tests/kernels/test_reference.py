"""The torch backend against loops over edges: it is what all other backends are held to."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import mmgraph
from mmgraph import EdgeSet, kernels


@pytest.fixture(autouse=True)
def _reference() -> Iterator[None]:
    with mmgraph.use_backend("torch"):
        yield


def draw_edges(seed: int, centres: int, neighbours: int, edges: int, relations: int = 3) -> EdgeSet:
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int) -> Tensor:
        return torch.randint(max(high, 1), (edges,), generator=generator)

    edge_index = torch.stack([draw(neighbours), draw(centres)])
    return EdgeSet.from_edge_index(edge_index, (neighbours, centres), draw(relations))


def literal_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    edges: EdgeSet,
    relation_weight: Tensor | None = None,
    negative_slope: float | None = None,
    edge_bias: Tensor | None = None,
    edge_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The docstring's formula, an edge at a time."""
    heads = query.shape[1]
    out = torch.zeros(edges.num_centres, heads, value.shape[2], dtype=value.dtype)
    alpha = torch.zeros(edges.num_edges, heads, dtype=value.dtype)
    for i in range(edges.num_centres):
        row = range(int(edges.ptr[i]), int(edges.ptr[i + 1]))
        for h in range(heads):
            scores = {}
            for e in row:
                j = int(edges.index[e])
                products = query[i, h] * key[j, h]
                if relation_weight is not None and edges.relation is not None:
                    products = products * relation_weight[int(edges.relation[e]), h]
                score = float(products.sum())
                if negative_slope is not None and score < 0:
                    score *= negative_slope
                if edge_bias is not None:
                    score += float(edge_bias[e, h])
                scores[e] = score
            highest = max(scores.values(), default=0.0)
            total = sum(math.exp(s - highest) for s in scores.values())
            for e, score in scores.items():
                alpha[e, h] = math.exp(score - highest) / total
                scale = 1.0 if edge_scale is None else float(edge_scale[e, h])
                out[i, h] += scale * alpha[e, h] * value[int(edges.index[e]), h]
    return out, alpha


def draw_inputs(edges: EdgeSet, heads: int = 2, channels: int = 3) -> dict[str, Tensor]:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64)

    return {
        "query": draw(edges.num_centres, heads, channels),
        "key": draw(edges.num_neighbours, heads, channels),
        "value": draw(edges.num_neighbours, heads, channels + 1),
        "relation_weight": draw(3, heads, channels),
        "edge_bias": draw(edges.num_edges, heads),
        "edge_scale": torch.rand(edges.num_edges, heads, dtype=torch.float64),
    }


@given(
    seed=st.integers(0, 10_000),
    centres=st.integers(0, 6),
    neighbours=st.integers(1, 6),
    density=st.integers(0, 20),
    slope=st.sampled_from([None, 0.0, 0.1]),
    optional=st.sets(st.sampled_from(["relation_weight", "edge_bias", "edge_scale"])),
)
def test_attention_is_its_formula(
    seed: int, centres: int, neighbours: int, density: int, slope: float | None, optional: set[str]
) -> None:
    torch.manual_seed(seed)
    edges = draw_edges(seed, centres, neighbours, density if centres else 0)
    inputs = draw_inputs(edges)
    for name in {"relation_weight", "edge_bias", "edge_scale"} - optional:
        del inputs[name]
    args = [inputs.pop(name) for name in ("query", "key", "value")]
    out, alpha = kernels.edge_attention(
        *args, edges, negative_slope=slope, return_weights=True, **inputs
    )
    expected = literal_attention(*args, edges, negative_slope=slope, **inputs)
    torch.testing.assert_close((out, alpha), expected)
    assert torch.equal(out, kernels.edge_attention(*args, edges, negative_slope=slope, **inputs))


def test_attention_has_first_and_second_derivatives() -> None:
    edges = draw_edges(3, 4, 5, 9)
    inputs = {name: t.requires_grad_() for name, t in draw_inputs(edges, channels=2).items()}

    def attention(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        query, key, value, relation_weight, bias, scale = tensors
        return kernels.edge_attention(
            query,
            key,
            value,
            edges,
            relation_weight=relation_weight,
            negative_slope=0.1,
            edge_bias=bias,
            edge_scale=scale,
            return_weights=True,
        )

    assert gradcheck(attention, tuple(inputs.values()))
    assert gradgradcheck(attention, tuple(inputs.values()))


def test_large_scores_do_not_overflow() -> None:
    edges = EdgeSet.from_edge_index(torch.tensor([[0, 1], [0, 0]]), 2)
    query = torch.full((2, 1, 1), 1e4)
    key = torch.tensor([1e4, 2e4]).view(2, 1, 1)
    out = kernels.edge_attention(query, key, key, edges)
    assert out.flatten().tolist() == [2e4, 0.0]


def test_softmax_sums_to_one_and_ignores_a_shift() -> None:
    edges = draw_edges(1, 5, 5, 12)
    scores = torch.randn(12, 2, dtype=torch.float64)
    alpha = kernels.edge_softmax(scores, edges)
    sums = torch.zeros(5, 2, dtype=torch.float64).index_add(0, edges.centre, alpha)
    torch.testing.assert_close(sums, (edges.ptr.diff() > 0).double().unsqueeze(1).expand(5, 2))
    torch.testing.assert_close(alpha, kernels.edge_softmax(scores + 100.0, edges))
    for check in (gradcheck, gradgradcheck):
        assert check(lambda s: kernels.edge_softmax(s, edges), scores.requires_grad_())


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(0, 15),
    reduce=st.sampled_from(["sum", "mean", "max"]),
    weighted=st.sampled_from([None, "edges", "heads"]),
)
def test_aggregate_is_its_formula(seed: int, count: int, reduce: str, weighted: str | None) -> None:
    torch.manual_seed(seed)
    edges = draw_edges(seed, 4, 5, count)
    value = torch.randn(5, 2, 3, dtype=torch.float64)
    weight = {
        None: None,
        "edges": torch.randn(count, dtype=torch.float64),
        "heads": torch.randn(count, 2, dtype=torch.float64),
    }[weighted]
    expected = torch.zeros(4, 2, 3, dtype=torch.float64)
    for i in range(4):
        rows = []
        for e in range(int(edges.ptr[i]), int(edges.ptr[i + 1])):
            row = value[int(edges.index[e])]
            rows.append(row if weight is None else row * weight[e].view(-1, 1))
        if rows:
            stacked = torch.stack(rows)
            expected[i] = stacked.amax(0) if reduce == "max" else getattr(stacked, reduce)(0)
    torch.testing.assert_close(kernels.aggregate(value, edges, weight, reduce), expected)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_aggregate_has_derivatives(reduce: str) -> None:
    edges = draw_edges(2, 4, 5, 9)
    value = torch.randn(5, 2, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(9, 2, dtype=torch.float64, requires_grad=True)
    for check in (gradcheck, gradgradcheck):
        assert check(lambda v, w: kernels.aggregate(v, edges, w, reduce), (value, weight))


def test_of_equal_maxima_the_first_gets_the_gradient() -> None:
    edges = EdgeSet.from_edge_index(torch.tensor([[2, 0, 1], [0, 0, 0]]), 3)
    value = torch.ones(3, 1, 1, requires_grad=True)
    kernels.aggregate(value, edges, reduce="max").sum().backward()
    assert value.grad is not None
    assert value.grad.flatten().tolist() == [0.0, 0.0, 1.0]


def test_nan_is_not_hidden() -> None:
    edges = EdgeSet.from_edge_index(torch.tensor([[0, 1], [0, 0]]), 2)
    value = torch.tensor([1.0, math.nan]).view(2, 1, 1)
    for reduce in ("sum", "mean", "max"):
        assert kernels.aggregate(value, edges, reduce=reduce)[0].isnan().all()
    assert kernels.edge_attention(value, value, value, edges)[0].isnan().all()


def test_segment_matmul_is_a_product_per_segment() -> None:
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 3, 2, dtype=torch.float64, requires_grad=True)
    ptr = torch.tensor([0, 2, 2, 5])
    out = kernels.segment_matmul(x, ptr, weight)
    torch.testing.assert_close(out, torch.cat([x[:2] @ weight[0], x[2:] @ weight[2]]))
    for check in (gradcheck, gradgradcheck):
        assert check(lambda a, w: kernels.segment_matmul(a, ptr, w), (x, weight))


def test_nothing_in_nothing_out() -> None:
    edges = EdgeSet.from_edge_index(torch.zeros(2, 0, dtype=torch.long), 0)
    empty = torch.zeros(0, 2, 3, requires_grad=True)
    out = kernels.edge_attention(empty, empty, empty, edges)
    assert out.shape == (0, 2, 3)
    out.sum().backward()
    for reduce in ("sum", "mean", "max"):
        assert kernels.aggregate(empty, edges, reduce=reduce).shape == (0, 2, 3)
    assert kernels.edge_softmax(torch.zeros(0, 2), edges).shape == (0, 2)
    assert kernels.segment_matmul(
        torch.zeros(0, 3), torch.tensor([0, 0]), torch.zeros(1, 3, 4)
    ).shape == (0, 4)


EDGES = EdgeSet.from_edge_index(torch.tensor([[0, 1], [1, 0]]), 2)
ROWS = torch.zeros(2, 1, 4)
TYPED = EdgeSet.from_edge_index(torch.tensor([[0], [0]]), 1, torch.tensor([4]))
PTR = torch.tensor([0, 2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: kernels.edge_attention(ROWS[:1], ROWS, ROWS, EDGES),
            "query: expected shape [2, *, *] (centres, heads, channels), got [1, 1, 4]",
        ),
        (
            lambda: kernels.edge_attention(ROWS, ROWS[..., :2], ROWS, EDGES),
            "key: expected shape [2, 1, 4] (neighbours, heads, channels of query), got [2, 1, 2]",
        ),
        (
            lambda: kernels.edge_attention(ROWS, ROWS, ROWS, EDGES, edge_bias=ROWS[0]),
            "edge_bias: expected shape [2, 1] (edges, heads), got [1, 4]",
        ),
        (
            lambda: kernels.edge_attention(ROWS, ROWS, ROWS, EDGES, relation_weight=ROWS),
            "edges: expected relations, as relation_weight is given per relation, got none",
        ),
        (
            lambda: kernels.aggregate(ROWS, EDGES, reduce="median"),
            "reduce: expected 'sum', 'mean' or 'max', got 'median'",
        ),
        (
            lambda: kernels.segment_matmul(ROWS[0], torch.tensor([0, 2]), torch.zeros(1, 4, 4)),
            "ptr[-1]: expected the number of values, 1, got 2",
        ),
        (
            lambda: kernels.edge_attention(ROWS, ROWS, ROWS[:1], EDGES),
            "value: expected shape [2, 1, *] (neighbours, heads, channels), got [1, 1, 4]",
        ),
        (
            lambda: kernels.edge_softmax(torch.zeros(3, 1), EDGES),
            "scores: expected shape [2, *] (edges, heads), got [3, 1]",
        ),
        (
            lambda: kernels.aggregate(ROWS, EDGES, torch.zeros(3)),
            "weight: expected shape [2, 1] (edges, heads), got [3, 1]",
        ),
        (
            lambda: kernels.aggregate(torch.zeros(4, 1, 1, 4), TYPED),
            "value: expected at least 5 relations, got 4",
        ),
        (
            lambda: kernels.aggregate(torch.zeros(4, 2, 1, 4), EDGES),
            "edges: expected relations, as value is given per relation, got none",
        ),
        (
            lambda: kernels.segment_matmul(ROWS[:, 0], PTR, torch.zeros(1, 3, 4)),
            "weight: expected shape [*, 4, *] (segments, in, out), got [1, 3, 4]",
        ),
        (
            lambda: kernels.segment_matmul(ROWS[:, 0], PTR.to("meta"), torch.zeros(1, 4, 4)),
            "ptr: expected a tensor on the CPU, got one on meta",
        ),
        (lambda: mmgraph.use_backend("cuda"), "name: expected one of "),
    ],
)
def test_errors_say_what_was_expected(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call()  # type: ignore[operator]


@pytest.mark.parametrize("name", ["relation_weight", "edge_bias", "edge_scale", "rows"])
@pytest.mark.parametrize("backend", ["torch", "fused"])
def test_another_device_is_refused(name: str, backend: str) -> None:
    row, far = ROWS[:1], TYPED.to("meta")
    with mmgraph.use_backend(backend):
        if name != "rows":
            size = {"relation_weight": (5, 1, 4)}.get(name, (1, 1))
            here = {name: torch.zeros(size, device="meta")}
            wanted = f"{name}: expected it on cpu, where the edge set is, got it on meta"
            with pytest.raises(ValueError, match=wanted):
                kernels.edge_attention(row, row, row, TYPED, **here)
            return
        for call, wanted in (
            (lambda: kernels.edge_attention(row, row, row, far), "query: expected it on meta"),
            (lambda: kernels.edge_softmax(row[0, :, :1], far), "scores: expected it on meta"),
            (lambda: kernels.aggregate(row, far), "value: expected it on meta"),
            (
                lambda: kernels.aggregate(row, TYPED, torch.zeros(1, device="meta")),
                "weight: expected it on cpu",
            ),
            (
                lambda: kernels.segment_matmul(
                    ROWS[:, 0], PTR, torch.zeros(1, 4, 4, device="meta")
                ),
                "weight: expected it on cpu, where x is, got it on meta",
            ),
        ):
            with pytest.raises(ValueError, match=wanted):
                call()


def test_relation_weight_covers_the_relations() -> None:
    row = ROWS[:1]
    with pytest.raises(ValueError, match="relation_weight: expected at least 5 relations, got 4"):
        kernels.edge_attention(row, row, row, TYPED, relation_weight=torch.zeros(4, 1, 4))


def test_backend_is_a_setting_and_a_context() -> None:
    mmgraph.use_backend("auto")
    with mmgraph.use_backend("torch"):
        assert "use_backend('torch')" in mmgraph.backend_report()["aggregate"]
    assert "use_backend" not in mmgraph.backend_report()["aggregate"]
    mmgraph.use_backend("torch")
    assert "use_backend('torch')" in mmgraph.backend_report()["edge_softmax"]
    mmgraph.use_backend("auto")
