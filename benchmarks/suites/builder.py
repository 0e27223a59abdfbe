"""Histories to graphs: our compiled builder against a plain one of dictionaries and lists."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from benchmarks import timing
from benchmarks.peers.dictionary import DictionaryBuilder
from benchmarks.row import CALL, Row, Settings, Timed, fill_cold
from benchmarks.workloads import WORKLOADS, Workload, small
from mmgraph import EdgeSet, SequenceGraph

NAMES = ("paper", "released", "long", "wide")


def run(settings: Settings) -> Iterator[Row]:
    for name in settings.chosen(NAMES):
        workload = WORKLOADS[name]
        chosen = small(workload) if settings.smoke else replace(workload, num_graphs=512)
        wanted: SequenceGraph | None = None
        rows: list[Row] = []
        timed: list[Timed] = []
        for (peer, variant), call in formulations(chosen).items():
            graph = call()
            wanted = wanted or graph
            case = f"{chosen.num_graphs} histories"
            row = Row("builder", name, case, peer, variant, CALL, settings.threads)
            row.edges = graph.num_edges
            field = difference(wanted, graph)
            if field is None:
                row.fill(timing.block(call, settings.effort))
                timed.append((row, contextlib.nullcontext, call))
            else:
                row.status, row.detail = "wrong", f"another {field} than the first builder's"
            rows.append(row)
        fill_cold(timed, settings)
        yield from rows


def formulations(workload: Workload) -> dict[tuple[str, str], Callable[[], SequenceGraph]]:
    """Calls that build one graph, by peer and variant."""
    histories = workload.histories()
    offsets = np.cumsum([0, *map(len, histories)])
    packed = np.fromiter(chain.from_iterable(histories), np.int64), offsets
    compiled = workload.builder()
    plain = DictionaryBuilder(workload.schema, workload.item_codes(), workload.max_length)
    return {
        ("mmgraph", "from lists"): lambda: compiled(histories),
        ("mmgraph", "from (values, offsets)"): lambda: compiled(packed),
        ("dictionaries", "from lists"): lambda: plain(histories),
    }


def difference(a: SequenceGraph | EdgeSet, b: SequenceGraph | EdgeSet) -> str | None:
    """The first field in which two graphs differ, by name."""
    for field in fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, EdgeSet) and isinstance(y, EdgeSet):
            inner = difference(x, y)
            if inner is not None:
                return f"{field.name}.{inner}"
        elif isinstance(x, Tensor) and isinstance(y, Tensor):
            if not torch.equal(x, y):
                return field.name
        elif x != y:
            return field.name
    return None
