"""Measure what docs/scale.md extrapolates from.

python -m benchmarks.scale           a markdown table, in under two minutes on one core
python -m benchmarks.scale --smoke   everything once, on sizes that mean nothing
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mmgraph
from benchmarks.environment import pinned
from benchmarks.workloads import WORKLOADS
from examples.mmsr import loss
from examples.mmsr.recommender import Batch, Recommender
from mmgraph.nn import AsynchronousUpdate, GraphEncoder, NodeEmbedding, resolve_readout

Row = tuple[str, str]


@dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Args:
        items: rows of the item table.
        channels: its width.
        histories: in a batch.
        negatives: items drawn uniformly for a batch.
        interactions: in the memory-mapped array.
        sample: items that a codebook is fitted on,
        assigned: and items that it looks up,
        width: of their features.
        repeats: of every timed call, after one that is not timed.
    """

    items: int = 1_000_000
    channels: int = 64
    histories: int = 512
    negatives: int = 8192
    interactions: int = 50_000_000
    sample: int = 20_000
    assigned: int = 100_000
    width: int = 512
    repeats: int = 3

    def vectors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Histories, the item table, and targets."""
        generator = torch.Generator().manual_seed(0)
        histories = torch.randn(self.histories, self.channels, generator=generator)
        table = torch.randn(self.items, self.channels, generator=generator).mul_(0.1)
        targets = torch.randint(self.items, (self.histories,), generator=generator)
        return histories.requires_grad_(), table.requires_grad_(), targets


FULL = Sizes()
SMOKE = Sizes(2000, 8, 16, 64, 5000, 300, 500, 16, 1)


def seconds(call: Callable[[], object], repeats: int) -> float:
    """The least of some calls, after one that is not counted.

    It is the processor's time: every call has one thread, and the machine may have other work.
    """
    times = []
    for _ in range(repeats + 1):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times[1:])


def _memory(field: str) -> int:
    """Bytes of this process, now (``VmRSS``) or at most so far (``VmHWM``)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field}")


def time_and_peak(call: Callable[[], object], repeats: int) -> str:
    """Of a call; for a process that has done nothing larger before."""
    before = _memory("VmRSS")
    spent = seconds(call, repeats)
    return f"{spent:.3g} s, {(_memory('VmHWM') - before) / 1e9:.2f} GB beside weights"


def dense_step(sizes: Sizes) -> Iterator[Row]:
    _, table, targets = sizes.vectors()
    optimizer = torch.optim.Adam([table], fused=True)

    def step() -> None:
        optimizer.zero_grad()
        F.embedding(targets, table).sum().backward()
        optimizer.step()

    yield "item table: a step, dense gradient, fused Adam", time_and_peak(step, sizes.repeats)


def sparse_step(sizes: Sizes) -> Iterator[Row]:
    _, table, targets = sizes.vectors()
    optimizer = torch.optim.SparseAdam([table])
    rows = torch.randint(sizes.items, (len(targets) * 2 + sizes.negatives,))

    def step() -> None:
        optimizer.zero_grad()
        F.embedding(rows, table, sparse=True).sum().backward()
        optimizer.step()

    found = time_and_peak(step, sizes.repeats)
    yield f"item table: a step, sparse gradient of {len(rows):,} rows, SparseAdam", found


class Products(Recommender):
    """Vectors that are there already, so that the loss alone is measured."""

    def __init__(self, histories: Tensor, table: Tensor) -> None:
        super().__init__()
        self.histories, self.table, self.successors = histories, table, None

    def prepare(self, instances: object) -> None: ...

    def encode(self, inputs: None) -> Tensor:
        return self.histories

    def item_vectors(self) -> Tensor:
        return self.table


def _whole(sizes: Sizes, pieces: int) -> str:
    sizes = replace(sizes, histories=sizes.histories // 2)
    histories, table, targets = sizes.vectors()
    model, batch = Products(histories, table), Batch(None, targets)
    largest = sizes.histories * sizes.items // pieces

    def both() -> None:
        histories.grad = table.grad = None
        loss.cross_entropy(model, batch, largest=largest).backward()

    return time_and_peak(both, min(sizes.repeats, 2))


def direct_loss(sizes: Sizes) -> Iterator[Row]:
    yield f"loss of {sizes.histories // 2} histories: all logits at once", _whole(sizes, 1)


def chunked_loss(sizes: Sizes) -> Iterator[Row]:
    name = f"loss of {sizes.histories // 2} histories: four pieces, logits made again"
    with mock.patch.dict(nn.__dict__):
        nn.__dict__.pop("LinearCrossEntropyOptions", None)  # as in an older PyTorch
        yield name, _whole(sizes, 4)


def linear_loss(sizes: Sizes) -> Iterator[Row]:
    name = f"loss of {sizes.histories // 2} histories: four pieces, linear_cross_entropy"
    if hasattr(nn, "LinearCrossEntropyOptions"):
        yield name, _whole(sizes, 4)
    else:
        yield name, "absent"


def sampled_cross_entropy(
    histories: Tensor, table: Tensor, target: Tensor, uniform: int, share: Tensor
) -> Tensor:
    """As on the page: the batch's targets and uniform draws as negatives, corrected."""
    drawn = torch.randint(len(table), (uniform,))
    candidates = torch.cat([target, drawn])
    expected = (len(target) - 1) * share[candidates] + uniform / len(table)
    rows = F.embedding(candidates, table, sparse=True)
    logits = histories @ rows.T - expected.log()
    logits = logits.masked_fill(candidates == target[:, None], -torch.inf)
    own = (histories * rows[: len(target)]).sum(1, keepdim=True)
    return F.cross_entropy(torch.cat([own, logits], 1), torch.zeros_like(target), reduction="sum")


def sampled_loss(sizes: Sizes) -> Iterator[Row]:
    histories, table, targets = sizes.vectors()
    share = torch.full((sizes.items,), 1 / sizes.items)

    def both() -> None:
        histories.grad = table.grad = None
        sampled_cross_entropy(histories, table, targets, sizes.negatives, share).backward()

    found = time_and_peak(both, sizes.repeats)
    yield f"loss of {sizes.histories} histories: sampled, {sizes.negatives:,} uniform", found


def graphs(sizes: Sizes) -> Iterator[Row]:
    workload = replace(WORKLOADS["paper"], num_graphs=sizes.histories, channels=sizes.channels)
    lists = workload.histories()
    lengths = [len(history) for history in lists]
    values = np.concatenate([np.array(history) for history in lists])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    builder = workload.builder()
    spent = seconds(lambda: builder((values, offsets)), 10 * sizes.repeats)
    yield "graphs: histories built", f"{sizes.histories / spent:,.0f} / s"
    graph = builder((values, offsets))
    size = len(pickle.dumps(graph)) / sizes.histories
    shape = f"{graph.num_nodes / sizes.histories:.1f} nodes, {np.mean(lengths):.1f} steps"
    yield "graphs: bytes of a history's", f"{size:,.0f} ({shape})"

    schema = graph.schema
    tables = {"item": workload.num_items, **dict.fromkeys(workload.modalities, workload.codes)}
    embedding = NodeEmbedding(schema, tables, sizes.channels, workload.max_length)
    layer = AsynchronousUpdate.from_channels(sizes.channels, schema)
    encoder, readout = GraphEncoder([layer]), resolve_readout("last")

    def both() -> None:
        readout(encoder(embedding(graph), graph), graph).sum().backward()

    spent = seconds(both, sizes.repeats)
    yield "blocks: histories encoded, with gradients", f"{sizes.histories / spent:,.0f} / s"
    blocks = [*layer.parameters(), embedding.weight, embedding.type_embedding]
    count = sum(p.numel() for p in [*blocks, embedding.position_embedding])
    yield "blocks: parameters, tables left out", f"{count:,}"


def drawn(sizes: Sizes) -> Iterator[Row]:
    """Prefixes from a file: a shard's histories in random order, a position of each."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "items.i32")
        items = np.memmap(path, np.int32, "w+", shape=(sizes.interactions,))
        for begin in range(0, sizes.interactions, 2**22):
            piece = items[begin : begin + 2**22]
            piece[:] = rng.integers(0, sizes.items, len(piece))
        items.flush()
        del items
        items = np.memmap(path, np.int32, "r")
        offsets = np.arange(0, sizes.interactions + 1, 50)

        def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            user = rng.integers(0, len(offsets) - 1, sizes.histories)
            begin = offsets[user]
            target = rng.integers(begin + 1, offsets[user + 1])
            ends = np.cumsum(target - begin)
            starts = np.concatenate([[0], ends])
            places = np.arange(ends[-1]) + np.repeat(begin - starts[:-1], target - begin)
            return items[places], starts, items[target]

        spent = seconds(batch, 50 * sizes.repeats)
    yield "data: prefixes drawn from a mapped file", f"{sizes.histories / spent:,.0f} / s"


def codes(sizes: Sizes) -> Iterator[Row]:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(100, sizes.width))

    def features(count: int) -> np.ndarray:
        near = centres[rng.integers(0, 100, count)]
        return (near + rng.normal(size=near.shape)).astype(np.float32)

    book = mmgraph.ModalityCodebook(
        min(100, sizes.sample), 1, components=min(64, sizes.width), progress=False
    )
    start = time.process_time()
    book.fit(features(sizes.sample))
    name = f"codes: fit on {sizes.sample:,} items of width {sizes.width}"
    yield name, f"{time.process_time() - start:.3g} s"
    rows = features(sizes.assigned)
    spent = seconds(lambda: book.transform(rows), sizes.repeats)
    yield "codes: items looked up", f"{sizes.assigned / spent:,.0f} / s"


def ranking(sizes: Sizes) -> Iterator[Row]:
    histories, table, _ = sizes.vectors()
    few = histories[:64]

    def rank() -> None:
        with torch.inference_mode():
            (few @ table.T).topk(20)

    spent = seconds(rank, sizes.repeats) / len(few)
    yield "evaluation: 20 best of all items", f"{1000 * spent:.3g} ms a history"


def others(sizes: Sizes) -> Iterator[Row]:
    """What needs no process of its own."""
    for part in (graphs, drawn, codes, ranking):
        yield from part(sizes)


PARTS = (
    dense_step,
    sparse_step,
    direct_loss,
    chunked_loss,
    linear_loss,
    sampled_loss,
    others,
)


def measure(part: Callable[[Sizes], Iterator[Row]], sizes: Sizes) -> list[Row]:
    """A part's rows; called in a process of its own."""
    torch.set_num_threads(1)
    return list(part(sizes))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("--smoke", action="store_true")
    sizes = SMOKE if parser.parse_args().smoke else FULL
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    os.environ.update({name: value for name, value in pinned(1).items() if name in pools})
    print(f"torch {torch.__version__}, {sizes}\n")
    print("| measured | |\n|---|---|", flush=True)
    for part in PARTS:
        # A process each, so that one's memory is not another's peak.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            for name, value in pool.submit(measure, part, sizes).result():
                print(f"| {name} | {value} |", flush=True)


if __name__ == "__main__":
    main()
