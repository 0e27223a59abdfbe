"""From histories to graphs: against the definition read literally, in every form of input."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn import SCHEMA, draw_builder, draw_codes, draw_histories
from hypothesis import given
from hypothesis import strategies as st
from literal import assert_same, literal_graph, step_ids

import mmgraph
from mmgraph import Codes, GraphSchema, SequenceGraph, SequenceGraphBuilder

GOLDEN = Path(__file__).parent / "golden"
CODES = draw_codes(0)
HISTORIES = [[3, 1, 3, 3, 7], [], [19], [0, 1, 0, 1]]
VALUES = torch.tensor([item for history in HISTORIES for item in history])
OFFSETS = torch.tensor([0, 5, 5, 6, 10])
LEFT = torch.tensor([[3, 1, 3, 3, 7], [-1] * 5, [-1, -1, -1, -1, 19], [-1, 0, 1, 0, 1]])
RIGHT = torch.tensor([[3, 1, 3, 3, 7], [-1] * 5, [19, -1, -1, -1, -1], [0, 1, 0, 1, -1]])


@st.composite
def batches(draw: st.DrawFn) -> dict[str, Any]:
    """A schema, a builder's arguments and a call's, over few ids, so that repeats abound."""
    modalities = ("item", "image", "text", "sound")[: draw(st.integers(1, 4))]
    others = modalities[1:]
    num_items, max_length = draw(st.integers(1, 6)), draw(st.none() | st.integers(1, 4))
    histories = draw(st.lists(st.lists(st.integers(0, num_items - 1), max_size=7), max_size=4))
    steps = sum(map(len, histories))

    def drawn_codes(rows: int) -> torch.Tensor:
        k = draw(st.integers(0, 3))
        row = st.lists(st.integers(-1, 4), min_size=k, max_size=k)
        drawn = draw(st.lists(row, min_size=rows, max_size=rows))
        return torch.tensor(drawn, dtype=torch.int64).view(rows, k)

    some = st.sets(st.sampled_from(others)) if others else st.just(set())
    mask = st.lists(st.booleans(), min_size=steps, max_size=steps)
    return {
        "schema": GraphSchema(modalities),
        "item_codes": {name: drawn_codes(num_items) for name in others},
        "max_length": max_length,
        "histories": histories,
        "codes": {name: drawn_codes(steps) for name in sorted(draw(some))},
        "present": {
            name: torch.tensor(draw(mask), dtype=torch.bool) for name in sorted(draw(some))
        },
    }


def literal(batch: dict[str, Any]) -> SequenceGraph:
    """The definition's graph of a drawn batch."""
    found, first = [], 0
    for history in batch["histories"]:
        window = slice(first, first + len(history))
        first += len(history)
        codes = {
            name: [table[item].tolist() for item in history]
            for name, table in batch["item_codes"].items()
        }
        codes |= {name: table[window].tolist() for name, table in batch["codes"].items()}
        present = {name: mask[window].tolist() for name, mask in batch["present"].items()}
        found.append(step_ids(batch["schema"], history, codes, present, batch["max_length"]))
    return literal_graph(batch["schema"], found)


def build(batch: dict[str, Any]) -> SequenceGraph:
    builder = SequenceGraphBuilder(
        batch["schema"], batch["item_codes"], max_length=batch["max_length"]
    )
    return builder(batch["histories"], present=batch["present"], codes=batch["codes"])


@given(batches())
def test_equals_the_definition(batch: dict[str, Any]) -> None:
    graph = build(batch)
    assert_same(graph, literal(batch))
    graph.validate()


@pytest.mark.parametrize("num_codes", [30, 10_000], ids=["close-knit", "sparse"])
@pytest.mark.parametrize("others", [("image", "text"), ()], ids=["codes", "items"])
def test_long_histories_equal_the_definition(num_codes: int, others: tuple[str, ...]) -> None:
    # More nodes than bits in a word, in either way of finding the rows.
    rng = np.random.default_rng(0)
    batch = {
        "schema": GraphSchema(("item", *others)),
        "item_codes": {
            name: torch.from_numpy(rng.integers(-1, num_codes, (1000, 2))) for name in others
        },
        "max_length": None,
        "histories": [rng.integers(bound, size=60).tolist() for bound in (20, 1000)],
        "codes": {},
        "present": {},
    }
    assert_same(build(batch), literal(batch))


def test_a_loose_history_equals_the_definition() -> None:
    # Rows of bits would be mostly empty here: 190 items one after another, few of them with codes,
    # then pairs of them again and again, so that every kind of match is met more than once.
    codes = torch.full((190, 2), -1)
    codes[184:] = torch.tensor([[0, 1], [1, 2], [2, 0], [3, -1], [0, 0], [1, 3]])
    batch = {
        "schema": GraphSchema(("item", "image")),
        "item_codes": {"image": codes},
        "max_length": None,
        "histories": [[*range(190), *([188, 189] * 3), 187, 189, 188]],
        "codes": {},
        "present": {},
    }
    assert_same(build(batch), literal(batch))


def test_rows_of_bits_and_of_lists_are_one_graph() -> None:
    # 400 steps of fresh items and codes are far too loose for bits; read after a tight history.
    schema = GraphSchema(("item", "image"))
    builder = SequenceGraphBuilder(schema, {"image": torch.arange(800).view(400, 2)})
    tight, loose = [0, 1] * 30, list(range(400))
    batch = builder([tight, loose, tight]).validate()
    assert batch.num_nodes == 2 * (2 + 4) + 400 + 800
    assert_same(batch[1], builder([loose]))
    assert_same(SequenceGraph.collate([builder([h]) for h in (tight, loose, tight)]), batch)


def test_a_graph_by_hand() -> None:
    schema = GraphSchema(("item", "image"))
    builder = SequenceGraphBuilder(schema, {"image": torch.tensor([[0, 1], [1, -1], [2, 2]])})
    graph = builder([[0, 1, 0, 2]])
    assert graph.node_type.tolist() == [0, 0, 0, 1, 1, 1]
    assert graph.node_id.tolist() == [0, 1, 2, 0, 1, 2]
    seen = {
        (int(centre), int(neighbour)): schema.relations[relation]
        for (neighbour, centre), relation in zip(
            graph.edge_index.T, graph.edge_type.tolist(), strict=True
        )
    }
    assert seen == {
        **{(node, node): "self" for node in range(6)},
        (0, 1): "both",
        (1, 0): "both",
        (0, 2): "next",
        (2, 0): "previous",
        # Codes 0 and 1 of item 0, code 1 of item 1, code 2 of item 2; no code is its own next.
        (3, 4): "both",
        (4, 3): "both",
        (3, 5): "next",
        (5, 3): "previous",
        (4, 5): "next",
        (5, 4): "previous",
        (0, 3): "item>image",
        (3, 0): "image>item",
        (0, 4): "item>image",
        (4, 0): "image>item",
        (1, 4): "item>image",
        (4, 1): "image>item",
        (2, 5): "item>image",
        (5, 2): "image>item",
    }
    assert graph.step_node.tolist() == [0, 1, 0, 2]
    assert graph.occurrence_node.tolist() == [0, 0, 1, 2, 3, 3, 4, 4, 4, 5]
    assert graph.occurrence_position.tolist() == [0, 2, 1, 3, 0, 2, 0, 1, 2, 3]
    assert (graph.id_bounds, graph.num_positions) == ((3, 3), 4)


@pytest.mark.parametrize("name", ["plain", "repeats", "missing"])
def test_golden_adjacency(name: str) -> None:
    golden = np.load(GOLDEN / f"released_{name}.npz")
    codes = {m: torch.from_numpy(golden[f"{m}_codes"]).long() for m in ("image", "text")}
    graph = SequenceGraphBuilder(SCHEMA)([golden["items"]], codes=codes)
    order = {
        key: number
        for number, key in enumerate(
            zip(golden["node_type"].tolist(), golden["node_id"].tolist(), strict=True)
        )
    }
    keys = zip(graph.node_type.tolist(), graph.node_id.tolist(), strict=True)
    number = torch.tensor([order[key] for key in keys])
    neighbour, centre = number[graph.edge_index]
    adjacency = torch.zeros(len(order), len(order), dtype=torch.int64)
    adjacency[centre, neighbour] = graph.edge_type + 1
    assert adjacency.tolist() == golden["adjacency"].tolist()


@pytest.mark.parametrize(
    "histories",
    [
        [tuple(history) for history in HISTORIES],
        [np.array(history, dtype=np.int32) for history in HISTORIES],
        [torch.tensor(history) for history in HISTORIES],
        [torch.tensor(HISTORIES[0]), (), [19], np.array(HISTORIES[3])],
        [[torch.tensor(item) for item in history] for history in HISTORIES],
        LEFT,
        RIGHT,
        RIGHT.int(),
        RIGHT.numpy(),
        torch.cat([RIGHT, torch.full((4, 2), -1)], dim=1)[:, ::1],
        (VALUES, OFFSETS),
        (VALUES.numpy(), OFFSETS.numpy().astype(np.int32)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_forms_of_histories(histories: Any) -> None:
    builder = SequenceGraphBuilder(SCHEMA, CODES, max_length=4)
    assert_same(builder(histories), builder(HISTORIES))


def test_codes_may_be_arrays_and_are_copied() -> None:
    codes = {name: table.numpy().astype(np.int32) for name, table in CODES.items()}
    expected = SequenceGraphBuilder(SCHEMA, CODES)(HISTORIES)
    assert_same(SequenceGraphBuilder(SCHEMA, codes)(HISTORIES), expected)
    for name in ("image", "text"):
        given = {n: t.clone() for n, t in CODES.items()}
        builder = SequenceGraphBuilder(SCHEMA, given, num_items=np.int64(20))
        given[name].fill_(-1)
        assert_same(builder(HISTORIES), expected)
        assert type(builder.num_items) is int


def test_jagged_nested_tensors() -> None:
    builder = SequenceGraphBuilder(SCHEMA, CODES)
    nested = torch.nested.nested_tensor_from_jagged(VALUES, OFFSETS)
    assert_same(builder(nested), builder(HISTORIES))
    # One with room between its rows, as `narrow` makes.
    starts, lengths = torch.tensor([0, 1, 2]), torch.tensor([2, 0, 2])
    holes = torch.nested.narrow(RIGHT[[0, 2, 3]], 1, starts, lengths, layout=torch.jagged)
    assert_same(builder(holes), builder([[3, 1], [], [0, 1]]))


def test_nested_tensors_that_are_jagged_elsewhere() -> None:
    nested = torch.nested.nested_tensor_from_jagged(VALUES, OFFSETS)
    codes = torch.nested.nested_tensor_from_jagged(torch.ones(len(VALUES), 1).long(), OFFSETS)
    with pytest.raises(ValueError, match=r"codes\['image'\]: expected .* jagged, the second"):
        SequenceGraphBuilder(SCHEMA, CODES)(nested, codes={"image": codes.transpose(1, 2)})


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_nested_tensors_that_are_not_jagged() -> None:
    nested = torch.nested.nested_tensor([torch.tensor([1, 2]), torch.tensor([3])])
    with pytest.raises(TypeError, match=r"layout=torch.jagged, got torch.strided"):
        SequenceGraphBuilder(SCHEMA, CODES)(nested)


def test_what_is_given_per_step_has_the_forms_of_histories() -> None:
    builder = SequenceGraphBuilder(SCHEMA, CODES, max_length=3)
    rng = np.random.default_rng(1)
    mask = torch.from_numpy(rng.random(10) < 0.5)
    codes = torch.from_numpy(rng.integers(-1, 4, (10, 3)))
    pieces = OFFSETS.diff().tolist()
    expected = builder(HISTORIES, present={"image": mask}, codes={"text": codes})
    assert builder(HISTORIES).num_edges != expected.num_edges

    def nested(values: torch.Tensor) -> torch.Tensor:
        return torch.nested.nested_tensor_from_jagged(values, OFFSETS)

    forms: list[tuple[Any, Any, Any]] = [
        ((VALUES, OFFSETS), mask.numpy(), codes.numpy()),
        (HISTORIES, list(mask.split(pieces)), list(codes.split(pieces))),
        (HISTORIES, [m.tolist() for m in mask.split(pieces)], codes),
        (HISTORIES, mask.tolist(), [c.tolist() for c in codes.split(pieces)]),
        (nested(VALUES), nested(mask), nested(codes)),
        (RIGHT, mask, codes),
    ]
    for padded in (LEFT, RIGHT):
        steps = padded != -1
        wide_mask = torch.ones(padded.shape, dtype=torch.bool)
        wide_codes = torch.full((*padded.shape, 3), -1)
        wide_mask[steps], wide_codes[steps] = mask, codes
        forms.append((padded, wide_mask, wide_codes))
    for histories, present, own in forms:
        got = builder(histories, present={"image": present}, codes={"text": own})
        assert_same(got, expected)


def test_a_builder_without_codes_takes_them_with_each_call() -> None:
    items = torch.tensor([item for history in HISTORIES for item in history])
    per_step = {name: table[items] for name, table in CODES.items()}
    got = SequenceGraphBuilder(SCHEMA)(HISTORIES, codes=per_step)
    assert_same(got, SequenceGraphBuilder(SCHEMA, CODES)(HISTORIES))
    with pytest.raises(ValueError, match=r"the builder has none.*got none for 'text'"):
        SequenceGraphBuilder(SCHEMA)(HISTORIES, codes={"image": per_step["image"]})


@given(st.integers(0, 1000))
def test_batches_and_single_histories_agree(seed: int) -> None:
    builder, histories = draw_builder(seed), [*draw_histories(seed), []]
    alone = [builder([history]) for history in histories]
    batch = builder(histories)
    assert_same(SequenceGraph.collate(alone), batch)
    assert_same(SequenceGraph.collate([builder(histories[:2]), builder(histories[2:])]), batch)
    assert len(batch) == len(histories)
    for graph, single in zip(batch, alone, strict=True):
        assert_same(graph, single)


def test_max_length_keeps_the_last_steps() -> None:
    builder = SequenceGraphBuilder(SCHEMA, CODES, max_length=2)
    whole = SequenceGraphBuilder(SCHEMA, CODES)
    assert_same(builder(HISTORIES), whole([history[-2:] for history in HISTORIES]))
    assert builder(HISTORIES).num_positions == 2


def test_a_modality_that_is_missing_everywhere_has_no_node() -> None:
    graph = SequenceGraphBuilder(SCHEMA, CODES)(
        HISTORIES, present={name: torch.zeros(10, dtype=torch.bool) for name in ("image", "text")}
    )
    assert graph.type_ptr.diff()[1:].tolist() == [0, 0]
    items = SequenceGraphBuilder(GraphSchema(("item",)))(HISTORIES)
    assert torch.equal(graph.edge_index, items.edge_index)
    assert torch.equal(graph.edge_type, items.edge_type)


@pytest.mark.parametrize(
    ("histories", "num_graphs"),
    [
        ([], 0),
        ([[]], 1),
        ([[], [], []], 3),
        (torch.full((2, 3), -1), 2),
        (torch.empty(2, 0, dtype=torch.int64), 2),
        (torch.empty(0, 5, dtype=torch.int64), 0),
        ((torch.empty(0, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)), 2),
        ([torch.tensor([]), torch.tensor([])], 2),
    ],
)
def test_nothing_to_build(histories: Any, num_graphs: int) -> None:
    graph = SequenceGraphBuilder(SCHEMA, CODES)(histories).validate()
    assert (graph.num_graphs, graph.num_nodes, graph.num_edges) == (num_graphs, 0, 0)
    assert graph.step_ptr.tolist() == [0] * (num_graphs + 1)
    assert (graph.id_bounds, graph.num_positions) == ((0, 0, 0), 0)


def test_items_may_be_any_number_where_nothing_bounds_them() -> None:
    schema = GraphSchema(("item",))
    large = 2**62
    for codes in (None, {}):
        graph = SequenceGraphBuilder(schema, codes)([[large, 5, large]])
        assert graph.node_id.tolist() == [large, 5]
        assert graph.id_bounds == (large + 1,)
    with pytest.raises(ValueError, match="expected an item from 0 to 9, got 10"):
        SequenceGraphBuilder(schema, num_items=10)([[3], [1, 10]])


def test_inputs_are_left_alone() -> None:
    codes = draw_codes(3)
    values = VALUES.numpy().copy()
    values.flags.writeable = False
    before = {name: table.clone() for name, table in codes.items()}
    SequenceGraphBuilder(SCHEMA, codes)((values, OFFSETS.numpy()))
    assert all(torch.equal(table, before[name]) for name, table in codes.items())


def test_the_builder_keeps_its_codes() -> None:
    codes, there = draw_codes(3), {"image": torch.ones(10, dtype=torch.bool)}
    builder = SequenceGraphBuilder(SCHEMA, codes)
    before = builder(HISTORIES)
    for table in codes.values():
        table.fill_(5)
    assert_same(builder(HISTORIES), before)
    assert_same(builder(HISTORIES, present=there), before)


def test_the_graph_keeps_nothing_of_the_builder() -> None:
    builder = SequenceGraphBuilder(SCHEMA, CODES)
    first = builder(HISTORIES)
    again = builder(HISTORIES)
    first.edges.index.fill_(0)
    first.node_id.fill_(0)
    assert_same(builder(HISTORIES), again)


def test_edges_share_memory_with_edge_index() -> None:
    graph = SequenceGraphBuilder(SCHEMA, CODES)(HISTORIES)
    assert graph.edges.index.data_ptr() == graph.edge_index[0].data_ptr()
    assert graph.edges.centre.data_ptr() == graph.edge_index[1].data_ptr()
    assert graph.edges.relation is graph.edge_type
    for edges in (graph.edges, graph.homogeneous, graph.heterogeneous):
        assert edges.transpose is not None
        assert edges.transpose.ptr is edges.ptr
        assert edges.transpose.index is edges.index


def test_builders_pickle_and_show_themselves() -> None:
    builder = SequenceGraphBuilder(SCHEMA, CODES, max_length=3)
    again = pickle.loads(pickle.dumps(builder))
    assert_same(again(HISTORIES), builder(HISTORIES))
    assert repr(again) == (
        "SequenceGraphBuilder(GraphSchema(('item', 'image', 'text')), num_items=20, max_length=3)"
    )


def test_a_table_that_cannot_be_written_serves_as_well() -> None:
    builder = SequenceGraphBuilder(SCHEMA, CODES)
    mapped = pickle.loads(pickle.dumps(builder))
    for array in (mapped._table, mapped._column_ptr, mapped._relation):
        array.setflags(write=False)  # as joblib and Ray hand them to their workers
    assert_same(builder(HISTORIES), mapped(HISTORIES))
    assert_same(mapped(HISTORIES), builder(HISTORIES))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads through /proc")
def test_building_starts_no_thread() -> None:
    program = (
        "import os\n"
        "import numpy as np\n"
        "import torch\n"
        "import mmgraph\n"
        "before = set(os.listdir('/proc/self/task'))\n"
        "schema = mmgraph.GraphSchema(('item', 'image'))\n"
        "builder = mmgraph.SequenceGraphBuilder(schema, num_items=20)\n"
        "for count in (1, 40_000):\n"  # of so many numbers PyTorch's operations use threads
        "    steps = torch.from_numpy(np.ones((count, 2), np.int64))\n"
        "    ends = torch.from_numpy(np.arange(0, 2 * count + 1, 2))\n"
        "    codes = torch.from_numpy(np.ones((2 * count, 1), np.int64))\n"
        "    present = torch.from_numpy(np.ones((2 * count, 1), np.bool_))\n"
        "    jagged = torch.nested.nested_tensor_from_jagged\n"
        "    flat = steps.view(-1)\n"
        "    for histories in (\n"
        "        (flat, ends), steps, steps.tolist(), list(steps), jagged(flat, ends)\n"
        "    ):\n"
        "        builder(histories, codes={'image': codes}, present={'image': present[:, 0]})\n"
        "    builder(jagged(flat, ends), codes={'image': jagged(codes, ends)})\n"
        "print(len(set(os.listdir('/proc/self/task')) - before))\n"
    )
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(pools, "2")}
    environment["OPENBLAS_NUM_THREADS"] = "1"  # SciPy's, which Numba imports, starts with it
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout == "0\n", done.stderr


def flat(values: list[Any], offsets: list[Any]) -> tuple[Any, Any]:
    return np.array(values), np.array(offsets)


FLAT_MASK = torch.ones(10, dtype=torch.bool)


@pytest.mark.parametrize(
    ("histories", "error", "words"),
    [
        ([[1, 2], [3, 20]], ValueError, r"histories\[1\], step 1: .* 0 to 19, got 20"),
        ([[1, 2], [], [-1]], ValueError, r"histories\[2\], step 0: .* 0 to 19, got -1"),
        ([[1.0, 2.0]], TypeError, r"histories\[0\]: expected integers, got float64"),
        ([[1], torch.tensor([0.5])], TypeError, r"histories\[1\]: expected integers, got float32"),
        ([[True]], TypeError, r"histories\[0\]: expected integers, got bool"),
        ([[1], None], TypeError, r"histories\[1\]: expected a sequence of steps, got NoneType"),
        ([[1], [None]], TypeError, r"histories\[1\]: expected integers, got object"),
        ([1, 2], TypeError, r"histories\[0\]: expected a sequence of steps, got int"),
        ([torch.tensor(3)], TypeError, r"histories\[0\]: expected a sequence .* got Tensor"),
        ([["1"]], TypeError, r"histories\[0\]: expected integers, got <U1"),
        (["12"], TypeError, r"histories\[0\]: expected a sequence of steps, got str"),
        ([[[1], [2]]], ValueError, r"histories\[0\]: expected 1 dimensions, got shape \[2, 1\]"),
        ("12", TypeError, r"histories: expected a list of sequences.*got str"),
        (5, TypeError, r"histories: expected a list of sequences.*got int"),
        (torch.tensor([1, 2]), ValueError, r"histories: expected 2 dimensions, got shape \[2\]"),
        (torch.rand(2, 3), TypeError, "histories: expected integers, got float32"),
        (torch.tensor([[1, -1, 2]]), ValueError, r"histories\[0\]: .* got it between steps"),
        (
            torch.tensor([[1, 2, 3], [-1, 2, -1]]),
            ValueError,
            r"histories\[1\]: expected padding \(-1\) on one side, got it on both sides",
        ),
        (torch.tensor([[1, -100]]), ValueError, r"histories\[0\], step 1: .* got -100"),
        (flat([1, 2, 3], [0, 2]), ValueError, r"offsets\[-1\]: .* number of values, 3, got 2"),
        (flat([1, 2, 3], [1, 3]), ValueError, r"offsets\[0\]: expected 0, got 1"),
        (flat([1, 2, 3], [0, 2, 1, 3]), ValueError, r"offsets\[2\]: offsets must not fall"),
        (flat([1, 2, 3], []), ValueError, r"offsets\[0\]: expected 0, got no offsets"),
        (flat([1.5], [0, 1]), TypeError, "values: expected integers, got float64"),
        (flat([1], [0.0, 1.0]), TypeError, "offsets: expected integers, got float64"),
        (([1], [2], [3]), TypeError, r"a tuple is \(values, offsets\), .* 3 entries \(list, list"),
        (([0, 1, 2], [0, 1, 3]), TypeError, r"2 entries \(list, list\); give several histories as"),
    ],
)
def test_wrong_histories(histories: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        SequenceGraphBuilder(SCHEMA, CODES)(histories)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"present": {"sound": FLAT_MASK}}, ValueError, r"present\['sound'\]: no such modality"),
        ({"present": {"item": FLAT_MASK}}, ValueError, r"present\['item'\]: the first modality"),
        ({"present": FLAT_MASK}, TypeError, "present: expected a mapping .* got Tensor"),
        (
            {"present": {"image": FLAT_MASK[:9]}},
            ValueError,
            r"present\['image'\]: .* 10 steps given, got shape \[9\]",
        ),
        ({"present": {"image": FLAT_MASK.long()}}, TypeError, "expected booleans, got int64"),
        ({"present": {"image": [1] * 10}}, TypeError, "expected booleans, got int64"),
        ({"present": {"image": [np.int64(1)] * 10}}, TypeError, "expected booleans, got int64"),
        ({"present": {"image": FLAT_MASK[None]}}, ValueError, r"expected 1 dimensions"),
        (
            {"present": {"image": [[True] * 5, [], [], [True] * 5]}},
            ValueError,
            r"present\['image'\]\[2\]: expected one row per step, 1 in all, got 0",
        ),
        (
            {"present": {"image": [[True] * 5, []]}},
            ValueError,
            r"present\['image'\]: expected one entry per history, 4 in all, got 2",
        ),
        ({"present": {"image": True}}, TypeError, r"present\['image'\]: expected a tensor \[steps"),
        ({"codes": {"item": VALUES}}, ValueError, r"codes\['item'\]: the first modality"),
        (
            {"codes": {"image": VALUES}},
            ValueError,
            r"codes\['image'\]: expected 2 dimensions, got shape \[10\]",
        ),
        (
            {"codes": {"image": VALUES[:7, None]}},
            ValueError,
            r"codes\['image'\]: expected \[steps, k\], .* 10 steps given, got shape \[7, 1\]",
        ),
        (
            {"codes": {"image": torch.tensor([[0, 1]] * 9 + [[3, -2]])}},
            ValueError,
            r"codes\['image'\]\[9, 1\]: expected a code of 0 or more, .* got -2",
        ),
        ({"codes": {"image": torch.rand(10, 2)}}, TypeError, "expected integers, got float32"),
        (
            {"codes": {"image": [[[1, 2]] * 5, [], [[1]], [[1, 2]] * 4]}},
            ValueError,
            r"codes\['image'\]\[2\]: expected rows of \[2\], as before, got shape \[1, 1\]",
        ),
    ],
)
def test_wrong_per_step_arguments(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        SequenceGraphBuilder(SCHEMA, CODES)(HISTORIES, **arguments)


def test_padded_arguments_of_another_shape() -> None:
    mask = torch.ones(4, 6, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"present\['image'\]: .*\[4, 5\].* got shape \[4, 6\]"):
        SequenceGraphBuilder(SCHEMA, CODES)(LEFT, present={"image": mask})


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"schema": ("item",)}, TypeError, "schema: expected a GraphSchema, got tuple"),
        ({"codes": {"image": CODES["image"]}}, ValueError, "codes: .* got none for 'text'"),
        ({"codes": CODES | {"sound": VALUES}}, ValueError, r"codes\['sound'\]: no such modality"),
        ({"codes": CODES | {"item": VALUES}}, ValueError, r"codes\['item'\]: the first modality"),
        ({"codes": list(CODES)}, TypeError, "codes: expected a mapping from modalities, got list"),
        (
            {"codes": CODES | {"text": CODES["text"][:19]}},
            ValueError,
            r"codes\['text'\]: expected one row per item, 20 in all, got shape \[19, 2\]",
        ),
        (
            {"codes": CODES, "num_items": 21},
            ValueError,
            r"codes\['image'\]: expected one row per item, 21 in all",
        ),
        (
            {"codes": CODES | {"text": CODES["text"][:, 0]}},
            ValueError,
            r"codes\['text'\]: expected 2 dimensions, \[items, k\], got shape \[20\]; one code for",
        ),
        ({"codes": CODES | {"text": CODES["text"].float()}}, TypeError, "expected integers"),
        ({"codes": CODES | {"text": [["a"]]}}, TypeError, r"codes\['text'\]: expected integers"),
        (
            {"codes": CODES | {"text": CODES["text"] - 1}},
            ValueError,
            r"codes\['text'\]\[\d+, \d\]: expected a code of 0 or more, .* got -2",
        ),
        ({"codes": CODES, "max_length": 0}, ValueError, "max_length: expected at least 1, got 0"),
        ({"codes": CODES, "max_length": 2.0}, TypeError, "max_length: expected an int"),
        ({"num_items": 0}, ValueError, "num_items: expected at least 1, got 0"),
        ({"num_items": True}, TypeError, "num_items: expected an int, got bool"),
    ],
)
def test_wrong_builders(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        SequenceGraphBuilder(**({"schema": SCHEMA} | arguments))


SCRIPT = """
import mmgraph, sys
assert "numba" not in sys.modules
graph = mmgraph.SequenceGraphBuilder(mmgraph.GraphSchema(("item",)))([[0, 1, 0], [2]])
print(graph.edge_index.tolist())
"""


def test_a_second_process_reads_the_compiled_code() -> None:
    SequenceGraphBuilder(SCHEMA, CODES)(HISTORIES)
    root = Path(mmgraph.__file__).parents[1]
    command = [sys.executable, "-c", SCRIPT]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert "compiling" not in result.stderr


def test_an_installation_without_a_folder_to_cache_in(tmp_path: Path) -> None:
    package = tmp_path / "site" / "mmgraph"
    source = Path(mmgraph.__file__).parent
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (package, package / "kernels", package / "nn"):
        (folder / "__pycache__").touch()  # where the folder should be, a file
    environment = {
        **os.environ,
        "PYTHONPATH": str(package.parent),
        "HOME": "/dev/null",
        "XDG_CACHE_HOME": "/dev/null",
        "PYTHONDONTWRITEBYTECODE": "1",
        "NUMBA_OPT": "0",  # a quick compilation
    }
    environment.pop("NUMBA_CACHE_DIR", None)
    command = [sys.executable, "-c", SCRIPT]
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "[[0, 1, 0, 1, 2], [0, 0, 1, 1, 2]]\n"
    assert result.stderr.count("compiling the graph builder") == 1


def test_compiling_is_announced_once(caplog: pytest.LogCaptureFixture) -> None:
    from mmgraph._numba import Compiled

    made: dict[str, Any] = {}
    exec("def twice(number):\n    return 2 * number", made)  # without a file: never cached on disk

    with caplog.at_level(logging.WARNING, logger="mmgraph"):
        assert Compiled(made["twice"], "a test")(4) == 8
        assert Compiled(made["twice"], "a test")(5) == 10
    assert [record.getMessage() for record in caplog.records] == [
        "compiling a test, once; this takes some seconds"
    ]


@pytest.mark.parametrize(
    ("histories", "error", "words"),
    [
        (np.ma.masked_array([[0, 1]], mask=[[0, 1]]), TypeError, "plain array, got a masked one"),
        (
            np.array([[0, 2**64 - 1]], np.uint64),
            ValueError,
            r"\[0, 1\]: .* got 18446744073709551615",
        ),
        ([[2**63]], ValueError, r"histories\[0\]\[0\]: .* got 9223372036854775808"),
        (
            [[2**63 - 1]],
            ValueError,
            "an item from 0 to 9223372036854775806, got 9223372036854775807",
        ),
        ([b"ab"], TypeError, r"histories\[0\]: expected a sequence of steps, got bytes"),
        (torch.zeros(1, 2, dtype=torch.bfloat16), TypeError, "expected integers, got bfloat16"),
        (
            torch.zeros(1, 2).long().to_sparse(),
            TypeError,
            "expected a plain tensor, got a torch.sp",
        ),
    ],
)
def test_what_only_looks_like_items(histories: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        SequenceGraphBuilder(GraphSchema(("item",)))(histories)


def test_a_codebooks_codes_are_asked_for_without_its_distances() -> None:
    found = Codes(torch.zeros(3, 1, dtype=torch.long), torch.zeros(3, 1))
    with pytest.raises(TypeError, match=r"codes\['image'\]: .* got Codes.*; give its \.codes"):
        SequenceGraphBuilder(GraphSchema(("item", "image")), {"image": found})  # type: ignore[dict-item]


def test_the_largest_id_and_code() -> None:
    builder = SequenceGraphBuilder(GraphSchema(("item", "image")))
    largest = 2**63 - 2
    graph = builder([[largest]], codes={"image": torch.tensor([[largest]])}).validate()
    assert graph.id_bounds == (2**63 - 1,) * 2
    with pytest.raises(ValueError, match=r"codes\['image'\]\[0, 0\]: .* got 9223372036854775807"):
        builder([[0]], codes={"image": torch.tensor([[2**63 - 1]])})


def test_no_histories_in_a_nested_tensor() -> None:
    nothing = torch.empty(0, dtype=torch.long)
    nested = torch.nested.nested_tensor_from_jagged(nothing, torch.tensor([0]))
    assert SequenceGraphBuilder(GraphSchema(("item",)))(nested).num_graphs == 0


def test_the_graph_is_on_the_cpu_whatever_the_default_device() -> None:
    expected = draw_builder(0)(HISTORIES)
    with torch.device("meta"):
        assert_same(draw_builder(0)(HISTORIES).validate(), expected)
        SequenceGraphBuilder(GraphSchema(("item",)))([[0]]).validate()


def test_builds_without_compiling() -> None:
    code = (
        "import torch, mmgraph\n"
        "schema = mmgraph.GraphSchema(('item', 'image'))\n"
        "codes = {'image': torch.tensor([[0], [1], [0]])}\n"
        "mmgraph.SequenceGraphBuilder(schema, codes)([[0, 1, 2, 1], [2]]).validate()\n"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, check=True)
