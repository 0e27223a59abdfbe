"""A whole model and its gradients against the reference: here, and on a GPU where there is one."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from drawn import NUM_CODES, NUM_ITEMS, SCHEMA, draw_builder, draw_histories
from torch.nn import Module

import mmgraph
from mmgraph import SequenceGraph, nn

CHANNELS = 8
GRAPH = draw_builder(0)([*draw_histories(0, 12), []])
BLOCKS = {
    "asynchronous": lambda: nn.AsynchronousUpdate.from_channels(CHANNELS, SCHEMA, heads=2),
    "synchronous": lambda: nn.SynchronousUpdate.from_channels(CHANNELS, SCHEMA),
    "GCN": lambda: nn.GCN(CHANNELS),
    "GraphSAGE": lambda: nn.GraphSAGE(CHANNELS),
    "GAT": lambda: nn.GAT(CHANNELS, heads=2),
    "RGAT": lambda: nn.RGAT(CHANNELS, SCHEMA),
    "GGNN": lambda: nn.GGNN(CHANNELS, 2),
}
READOUTS = {
    "last": nn.Last,
    "mean": nn.Mean,
    "max": nn.Max,
    "recent": lambda: nn.Recent(2),
    "soft attention": lambda: nn.SoftAttention(CHANNELS),
}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


class Model(Module):
    def __init__(self, block: str, readout: str) -> None:
        super().__init__()
        tables = {"item": NUM_ITEMS, "image": NUM_CODES, "text": NUM_CODES}
        self.embedding = nn.NodeEmbedding(SCHEMA, tables, CHANNELS, max_length=8)
        self.encoder = nn.GraphEncoder([BLOCKS[block]()])
        self.readout = READOUTS[readout]()

    def forward(self, graph: SequenceGraph) -> torch.Tensor:
        states: torch.Tensor = self.readout(self.encoder(self.embedding(graph), graph), graph)
        return states @ self.embedding.table("item").T


def results(model: Model, graph: SequenceGraph) -> list[torch.Tensor]:
    """The scores and every parameter's gradient, on the CPU in float64."""
    scores = model(graph)
    target = torch.arange(len(scores), device=scores.device) % NUM_ITEMS
    torch.nn.functional.cross_entropy(scores.float(), target).backward()
    found = [scores, *(p.grad for p in model.parameters() if p.grad is not None)]
    return [x.detach().cpu().double() for x in found]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("block", "readout"),
    [*((block, "last") for block in BLOCKS), *(("asynchronous", name) for name in READOUTS)],
)
def test_a_model_is_the_reference(
    block: str, readout: str, dtype: torch.dtype, device: str
) -> None:
    model = Model(block, readout)
    reference = copy.deepcopy(model).double()
    with mmgraph.use_backend("torch"):
        expected = results(reference, GRAPH)
    found = results(model.to(device, dtype), GRAPH.to(device))
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("make", [*BLOCKS.values(), *READOUTS.values()], ids=[*BLOCKS, *READOUTS])
def test_states_elsewhere_than_the_graph_are_refused(make: Callable[[], Module]) -> None:
    x = torch.zeros(GRAPH.num_nodes, CHANNELS)  # of which a kernel would make up a result
    with pytest.raises(ValueError, match="x: expected it on meta, where the graph is, got it on c"):
        make()(x, GRAPH.to("meta"))


@pytest.mark.parametrize("device", DEVICES)
def test_a_model_under_autocast(device: str) -> None:
    model = Model("asynchronous", "soft attention")
    expected = results(copy.deepcopy(model), GRAPH)
    model.to(device)
    with torch.autocast(device, torch.bfloat16):
        found = results(model, GRAPH.to(device))
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=0.1, atol=0.02)
