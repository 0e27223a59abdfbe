"""Bytes: what a forward pass keeps for the backward one, how much of it per edge, and the peak."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

from benchmarks.case import Case, Program, as_list, describe, status_of
from benchmarks.row import WIDEST, Row, Settings
from benchmarks.suites.kernels import HETEROGENEOUS, HOMOGENEOUS, attention_pass
from benchmarks.suites.propagation import layer
from benchmarks.workloads import WORKLOADS, Workload, small
from mmgraph import SequenceGraph

NAMES = ("paper",)
KEPT, PER_EDGE = "kept for backward", "of it floats per edge"
PEAK = "peak of forward + backward"


def run(settings: Settings) -> Iterator[Row]:
    for case, workload in cases(settings):
        yield from _measure(case, workload.graph(), settings)


def cases(settings: Settings) -> Iterator[tuple[Case, Workload]]:
    for name in settings.chosen(NAMES):
        workload = small(WORKLOADS[name]) if settings.smoke else WORKLOADS[name]
        for kind in (HETEROGENEOUS, HOMOGENEOUS):
            yield attention_pass(workload, settings, kind), workload
        yield layer(workload, settings), workload


def _measure(case: Case, graph: SequenceGraph, settings: Settings) -> Iterator[Row]:
    for formulation in case.formulations:
        predicted = formulation.peak[1]
        row = Row(
            "memory",
            case.workload,
            case.name,
            formulation.peer,
            formulation.variant,
            KEPT,
            settings.threads,
            unit="B",
            edges=case.edges,
        )
        if predicted > settings.memory:
            row.status, row.detail = "does not fit", f"predicted peak {predicted / 1e9:.0f} GB"
            yield row
            continue
        try:
            with formulation.scope():
                program = formulation.prepare()
                found = kept(program, graph)
                found[PEAK] = peak(program)
        except Exception as error:
            row.status, row.detail = status_of(error), describe(error)
            yield row
            continue
        for quantity, number in found.items():
            own = Row(**{**vars(row), "quantity": quantity})
            own.fill([number])
            own.unit = "" if quantity == WIDEST else "B"
            if quantity == PEAK:
                own.detail = f"predicted {predicted / 1e6:.0f} MB"
            yield own


def kept(program: Program, graph: SequenceGraph) -> dict[str, float]:
    """Bytes that the backward pass keeps besides leaves, and what of them are floats per edge."""
    counts = {e.num_edges for e in (graph.edges, graph.homogeneous, graph.heterogeneous)}
    known = {leaf.untyped_storage().data_ptr() for leaf in program.leaves.values()}
    total: dict[int, int] = {}
    per_edge: dict[int, int] = {}
    widest = 0

    def look(tensor: Tensor) -> Tensor:
        nonlocal widest
        if tensor.layout != torch.strided or not tensor.is_floating_point():
            return tensor  # the graph's own integers, and sparse matrices of them
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            total[storage.data_ptr()] = storage.nbytes()
            # A view may hide the edges, so that the number of values decides.
            numbers = storage.nbytes() // 4
            width = max((numbers // n for n in counts if n and numbers % n == 0), default=0)
            if width:
                per_edge[storage.data_ptr()] = storage.nbytes()
                widest = max(widest, width)
        return tensor

    with saved_tensors_hooks(look, lambda tensor: tensor):
        out = as_list(program.function(*program.leaves.values()))
    del out
    return {KEPT: sum(total.values()), PER_EDGE: sum(per_edge.values()), WIDEST: widest}


def peak(program: Program) -> float:
    """Bytes allocated at the highest point of a forward and backward pass, by PyTorch's count."""
    cotangents = [torch.ones_like(out) for out in as_list(program.forward())]
    program.both(cotangents)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        program.both(cotangents)
    events = [
        (event.start_ns(), event.nbytes())
        for event in profiler.profiler.kineto_results.events()
        if event.name() == "[memory]"
    ]
    now = highest = 0
    for _, change in sorted(events, key=lambda event: event[0]):
        now += change
        highest = max(highest, now)
    return highest
