"""One training step of MMSR, split by part."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn import functional as F

import mmgraph
from benchmarks.case import describe, status_of
from benchmarks.peers import ours
from benchmarks.row import TOTAL, Row, Settings
from benchmarks.workloads import WORKLOADS, Workload, small
from mmgraph import SequenceGraph

NAMES = ("paper", "released")
PARTS = (
    "graph building",
    "embedding",
    "layer",
    "readout and scores",
    "loss",
    "backward",
    "optimiser",
)
STEP = "training step"
BATCHES = 8


class Model(Module):
    """MMSR as a composition: embedding, one layer, the last item's state."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        schema, channels = workload.schema, workload.channels
        sizes = dict.fromkeys(workload.modalities, workload.codes)
        self.embedding = mmgraph.nn.NodeEmbedding(
            schema, {"item": workload.num_items, **sizes}, channels, workload.max_length
        )
        layer = mmgraph.nn.AsynchronousUpdate.from_channels(channels, schema, dropout=0.2)
        self.encoder = mmgraph.nn.GraphEncoder([layer], dropout=0.4)
        self.readout = mmgraph.nn.Last()

    def scores(self, x: Tensor, graph: SequenceGraph) -> Tensor:
        return self.readout(x, graph) @ self.embedding.table("item").T


def run(settings: Settings) -> Iterator[Row]:
    for name in settings.chosen(NAMES):
        workload = small(WORKLOADS[name]) if settings.smoke else WORKLOADS[name]
        torch.manual_seed(workload.seed)
        model = Model(workload)
        wanted = _gradients(model.double(), workload, "torch")
        model = model.float()
        for backend in ours.BACKENDS:
            yield from _step(backend, copy.deepcopy(model), workload, wanted, settings)


def _step(
    backend: str,
    model: Model,
    workload: Workload,
    wanted: list[Tensor],
    settings: Settings,
) -> Iterator[Row]:
    rows = [
        Row("end_to_end", workload.name, STEP, "mmgraph", backend, part, settings.threads)
        for part in (*PARTS, TOTAL)
    ]
    try:
        found = _gradients(model, workload, backend)
        error = max(_error(a, b) for a, b in zip(found, wanted, strict=True))
        with ours.on(backend):
            times = _times(model.train(), workload, settings)
    except Exception as raised:
        row = rows[-1]
        row.status, row.detail = status_of(raised), describe(raised)
        yield row
        return
    for row, part in zip(
        rows, [*times, [sum(step) for step in zip(*times, strict=True)]], strict=True
    ):
        row.error = error
        if error > 1e-3:
            row.status, row.detail = "wrong", f"a gradient is off by {error:.1e}"
        else:
            row.fill(part)
        yield row


def _times(model: Model, workload: Workload, settings: Settings) -> list[list[float]]:
    """Seconds of each part, by step; batches differ from step to step."""
    builder = workload.builder()
    histories = workload.with_graphs(BATCHES * workload.num_graphs).histories()
    size = workload.num_graphs
    batches = [histories[i : i + size] for i in range(0, len(histories), size)]
    targets = torch.randint(workload.num_items, (size,))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    times: list[list[float]] = [[] for _ in PARTS]
    steps = 2 if settings.smoke else 60
    warmups = 1 if settings.smoke else BATCHES
    for step in range(warmups + steps):
        marks = [time.perf_counter()]
        graph = builder(batches[step % BATCHES])
        marks.append(time.perf_counter())
        x = model.embedding(graph)
        marks.append(time.perf_counter())
        x = model.encoder(x, graph)
        marks.append(time.perf_counter())
        scores = model.scores(x, graph)
        marks.append(time.perf_counter())
        loss = F.cross_entropy(scores, targets)
        marks.append(time.perf_counter())
        loss.backward()
        marks.append(time.perf_counter())
        optimiser.step()
        optimiser.zero_grad()
        marks.append(time.perf_counter())
        if step >= warmups:
            for part, begin, end in zip(times, marks[:-1], marks[1:], strict=True):
                part.append(end - begin)
    return times


def _gradients(model: Model, workload: Workload, backend: str) -> list[Tensor]:
    """The loss's gradients, without dropout."""
    graph = workload.graph()
    targets = torch.arange(graph.num_graphs) % workload.num_items
    model.eval()
    with ours.on(backend):
        x = model.encoder(model.embedding(graph), graph)
        loss = F.cross_entropy(model.scores(x, graph), targets)
        return list(torch.autograd.grad(loss, list(model.parameters())))


def _error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30))
