"""Batches of graphs and targets from a DataLoader, in workers too."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from drawn import SCHEMA, draw_builder, draw_codes, draw_histories
from literal import assert_same
from torch.utils.data import DataLoader

from mmgraph import GraphCollator, SequenceGraphBuilder

HISTORIES = draw_histories(0, count=7)
SAMPLES = [(history, number % 5) for number, history in enumerate(HISTORIES)]


def test_pairs_become_a_graph_and_targets() -> None:
    builder = draw_builder(0)
    graph, targets = GraphCollator(builder)(SAMPLES)
    assert_same(graph, builder(HISTORIES))
    assert targets.dtype == torch.int64
    assert targets.tolist() == [0, 1, 2, 3, 4, 0, 1]


@pytest.mark.parametrize("make", [int, np.int32, torch.tensor, lambda n: torch.tensor([n])])
def test_targets_are_any_integer(make: Any) -> None:
    _, targets = GraphCollator(draw_builder(0))([([1], make(3)), ([2], make(0))])
    assert targets.tolist() == [3, 0]


def test_mappings_bring_what_is_given_per_step() -> None:
    builder, codes = draw_builder(0), draw_codes(1)["text"]
    own = [codes[torch.tensor(history)] for history in HISTORIES]
    there = [[step % 2 == 0 for step in range(len(history))] for history in HISTORIES]
    samples = [
        {"history": h, "target": 1, "codes": {"text": c}, "present": {"image": p}}
        for h, c, p in zip(HISTORIES, own, there, strict=True)
    ]
    samples[2].pop("present")
    there[2] = [True] * len(HISTORIES[2])
    graph, targets = GraphCollator(builder)(samples)
    assert_same(graph, builder(HISTORIES, codes={"text": own}, present={"image": there}))
    assert targets.tolist() == [1] * 7
    bare, _ = GraphCollator(builder)([{"history": h, "target": 1} for h in HISTORIES])
    assert_same(bare, builder(HISTORIES))


# Python warns of what may go wrong where a process with threads forks; nothing here holds a lock.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_give_the_same_batches(context: str) -> None:
    collate = GraphCollator(draw_builder(0))
    loader: DataLoader[Any] = DataLoader(
        SAMPLES,  # type: ignore[arg-type]
        batch_size=3,
        collate_fn=collate,
        num_workers=2,
        multiprocessing_context=context,
    )
    batches = list(loader)
    assert len(batches) == 3
    for number, (graph, targets) in enumerate(batches):
        expected, own = collate(SAMPLES[3 * number : 3 * number + 3])
        assert_same(graph, expected)
        assert torch.equal(targets, own)
        graph.validate()
        # One piece of shared memory for all of a graph.
        tensors = graph.node_id, graph.edges.ptr, graph.heterogeneous.edge_id, graph.type_ptr
        assert len({t.untyped_storage().data_ptr() for t in tensors if t.is_shared()}) == 1


@pytest.mark.gpu
def test_pinned_batches() -> None:
    collate = GraphCollator(draw_builder(0))
    loader: DataLoader[Any] = DataLoader(
        SAMPLES,  # type: ignore[arg-type]
        batch_size=7,
        collate_fn=collate,
        pin_memory=True,
    )
    ((graph, targets),) = loader
    assert graph.node_id.is_pinned()
    assert targets.is_pinned()
    assert_same(graph, collate(SAMPLES)[0])


def test_a_builder_alone_collates_bare_histories() -> None:
    builder = draw_builder(0)
    loader: DataLoader[Any] = DataLoader(
        HISTORIES,  # type: ignore[arg-type]
        batch_size=4,
        collate_fn=builder,
    )
    first, _ = loader
    assert_same(first, builder(HISTORIES[:4]))


def test_collators_pickle_and_show_themselves() -> None:
    collate = pickle.loads(pickle.dumps(GraphCollator(draw_builder(0))))
    assert_same(collate(SAMPLES)[0], draw_builder(0)(HISTORIES))
    assert repr(collate).startswith("GraphCollator(SequenceGraphBuilder(GraphSchema(('item',")


@pytest.mark.parametrize(
    ("samples", "error", "words"),
    [
        ([([1], 2), ([1], 2.0)], TypeError, r"samples\[1\]: expected an integer .* float 2.0"),
        ([([1], True)], TypeError, r"samples\[0\]: expected an integer target, got bool True"),
        ([([1], None)], TypeError, r"samples\[0\]: expected an integer target, got NoneType"),
        ([([1], torch.tensor([1, 2]))], TypeError, r"samples\[0\]: expected an integer target"),
        ([[1, 2, 3]], TypeError, r"samples\[0\]: expected a pair .* got list of 3 entries"),
        ([4], TypeError, r"samples\[0\]: expected a pair \(history, target\) or .* got int"),
        ([{"history": [1]}], ValueError, r"samples\[0\]: expected a 'target', got \['history'\]"),
        (
            [{"history": [1], "target": 2, "mask": 3}],
            ValueError,
            r"samples\[0\]: expected keys of \('history', .* got 'mask'",
        ),
        (
            [
                {"history": [1], "target": 2, "codes": {"text": [[1]]}},
                {"history": [1], "target": 2},
            ],
            ValueError,
            r"samples\[1\]: expected codes\['text'\], which other samples bring",
        ),
        (
            [([1], 2), {"history": [1], "target": 2, "present": torch.tensor([True])}],
            TypeError,
            r"samples\[1\]\['present'\]: expected a mapping from modalities, got Tensor",
        ),
        ([([99], 1)], ValueError, r"histories\[0\], step 0: expected an item from 0 to 19"),
    ],
)
def test_wrong_samples(samples: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        GraphCollator(draw_builder(0))(samples)


def test_wrong_builder() -> None:
    with pytest.raises(TypeError, match="builder: expected a SequenceGraphBuilder, got type"):
        GraphCollator(SequenceGraphBuilder)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="builder: expected a SequenceGraphBuilder, got GraphSch"):
        GraphCollator(SCHEMA)  # type: ignore[arg-type]


def test_samples_that_cannot_be_batched_are_named() -> None:
    collate = GraphCollator(draw_builder(0))
    mixed = [
        {"history": 3, "target": 1},
        {"history": [1], "target": 2, "present": {"image": [True]}},
    ]
    with pytest.raises(
        TypeError, match=r"samples\[0\]: expected a history as a sequence .* got int"
    ):
        collate(mixed)
    with pytest.raises(ValueError, match=r"samples\[1\]: expected a target that fits int64"):
        collate([([1], 2), ([1], 2**70)])
