"""Readouts against a loop over histories."""

from __future__ import annotations

import re

import pytest
import torch
from drawn import draw_builder
from torch import Tensor
from torch.autograd import gradcheck

from mmgraph import SequenceGraph
from mmgraph.nn import (
    Last,
    Max,
    Mean,
    Recent,
    SoftAttention,
    register_readout,
    resolve_readout,
)

HISTORIES = [[3, 1, 3, 3], [], [2], [5, 6, 7, 5, 1]]
GRAPH = draw_builder(1)(HISTORIES)
CHANNELS = 4


def soft_attention(readout: SoftAttention, steps: Tensor) -> Tensor:
    """SR-GNN's Eq. 6 and 7, a step at a time."""
    last, total = steps[-1], torch.zeros(CHANNELS, dtype=steps.dtype)
    for step in steps:
        hidden = torch.sigmoid(
            readout.last.weight @ last + readout.step.weight @ step + readout.step.bias
        )
        total = total + (readout.score.weight @ hidden) * step
    return readout.join.weight @ torch.cat([last, total])


CASES = {
    "last": (Last, lambda _, s: s[-1]),
    "mean": (Mean, lambda _, s: s.mean(0)),
    "max": (Max, lambda _, s: s.amax(0)),
    "recent 2": (lambda: Recent(2), lambda _, s: s[-2:].mean(0)),
    "recent 9": (lambda: Recent(9), lambda _, s: s.mean(0)),
    "soft attention": (lambda: SoftAttention(CHANNELS, dtype=torch.float64), soft_attention),
}


@pytest.mark.parametrize("name", CASES)
def test_readout_is_its_formula(name: str) -> None:
    make, formula = CASES[name]
    readout = make()
    x = torch.randn(GRAPH.num_nodes, CHANNELS, dtype=torch.float64, requires_grad=True)
    node = {
        (int(b), int(i)): n
        for n, (b, i, t) in enumerate(zip(GRAPH.batch, GRAPH.node_id, GRAPH.node_type, strict=True))
        if t == 0
    }
    out = readout(x, GRAPH)
    assert out.shape == (len(HISTORIES), CHANNELS)
    for b, history in enumerate(HISTORIES):
        if history:
            steps = torch.stack([x[node[b, item]] for item in history])
            torch.testing.assert_close(out[b], formula(readout, steps))
        else:
            assert (out[b] == 0).all()
    assert gradcheck(lambda x: readout(x, GRAPH), x)


def test_last_reads_the_last_step_alone() -> None:
    x = torch.full((GRAPH.num_nodes, CHANNELS), torch.inf)
    ends = GRAPH.step_node[GRAPH.step_ptr[1:][[0, 2, 3]] - 1]
    x[ends] = torch.randn(3, CHANNELS)
    out = Last()(x, GRAPH)
    assert torch.equal(out[[0, 2, 3]], x[ends])
    assert torch.equal(out[1], torch.zeros(CHANNELS))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("histories", [[], [[]], [[], []]])
def test_empty_histories_give_zeros(name: str, histories: list[list[int]]) -> None:
    graph = draw_builder(1)(histories)
    out = CASES[name][0]()(torch.zeros(0, CHANNELS, dtype=torch.float64), graph)
    assert torch.equal(out, torch.zeros(len(histories), CHANNELS, dtype=torch.float64))


def test_readouts_resolve_by_name() -> None:
    assert isinstance(resolve_readout("last"), Last)
    assert resolve_readout("recent", n=3).n == 3
    with pytest.raises(ValueError, match=r"name: expected one of .*'soft_attention'.*got 'lasst'"):
        resolve_readout("lasst")
    with pytest.raises(ValueError, match="'last' is registered already"):
        register_readout("last")


def test_a_readout_of_ones_own() -> None:
    @register_readout("test-scaled-mean")
    class ScaledMean(Mean):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.scale = scale

        def forward(self, x: Tensor, graph: SequenceGraph) -> Tensor:
            return self.scale * super().forward(x, graph)

    x = torch.randn(GRAPH.num_nodes, CHANNELS)
    readout = resolve_readout("test-scaled-mean", scale=3.0)
    assert isinstance(readout, ScaledMean)
    torch.testing.assert_close(readout(x, GRAPH), 3.0 * Mean()(x, GRAPH))
    with pytest.raises(TypeError, match="name: expected a str, got type"):
        register_readout(ScaledMean)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Recent(0), "n: expected at least 1, got 0"),
        *(
            (lambda r=readout, s=shape: r(torch.zeros(s), GRAPH), "x: expected shape [")
            for readout in (Last(), Mean(), Recent(2))
            for shape in ((1, 4), (GRAPH.num_nodes,), (GRAPH.num_nodes, 4, 1))
        ),
        (lambda: SoftAttention(3)(torch.zeros(GRAPH.num_nodes, 4), GRAPH), "x: expected shape ["),
    ],
)
def test_errors_say_what_was_expected(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call()  # type: ignore[operator]


def test_steps_that_are_not_recent_have_no_part() -> None:
    x = torch.randn(GRAPH.num_nodes, CHANNELS)
    expected = Recent(1)(x, GRAPH)
    read = torch.zeros(GRAPH.num_nodes, dtype=torch.bool)
    read[GRAPH.step_node[[3, 4, 9]]] = True
    x[~read] = torch.inf
    torch.testing.assert_close(Recent(1)(x, GRAPH), expected)
    # A repeated item that is recent and old at once.
    graph = draw_builder(1)([[2, 3, 2]])
    x = torch.full((graph.num_nodes, CHANNELS), torch.inf)
    assert (Recent(1)(x, graph) == torch.inf).all()


def test_empty_histories_alone_keep_the_graph_of_gradients() -> None:
    graph = draw_builder(1)([[], []])
    for readout in (Last(), Mean(), Recent(2)):
        x = torch.zeros(0, CHANNELS, requires_grad=True)
        out = readout(x, graph)
        assert out.requires_grad
        assert torch.equal(out, torch.zeros(2, CHANNELS))
        out.sum().backward()


def test_two_decorators_cannot_take_one_name() -> None:
    first, second = register_readout("test-twice"), register_readout("test-twice")
    first(Mean)
    with pytest.raises(ValueError, match="name: expected a new name, but 'test-twice'"):
        second(Last)
    assert isinstance(resolve_readout("test-twice"), Mean)


def test_what_is_no_graph_is_named() -> None:
    x = torch.zeros(GRAPH.num_nodes, CHANNELS)
    with pytest.raises(TypeError, match="graph: expected a SequenceGraph, got Tensor"):
        Last()(x, x)  # type: ignore[arg-type]
