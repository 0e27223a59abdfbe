"""Edge sets and sequence graphs, as their users rely on them."""

from __future__ import annotations

import copy
import io
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from drawn import draw_builder, draw_codes, draw_graph, draw_histories
from hypothesis import given
from hypothesis import strategies as st
from literal import assert_same
from torch import Tensor

from mmgraph import EdgeSet, GraphSchema, SequenceGraph, SequenceGraphBuilder

ITEMS = GraphSchema(("item", "image"), relations=("own",))
NEXT, PREVIOUS, BOTH = 1, 2, 3
ITEM_IMAGE, IMAGE_ITEM, OWN = 4, 5, 6


def edges_of(edges: EdgeSet) -> list[tuple[int, int, int]]:
    """Neighbour, centre and edge id of every edge, read through `ptr`."""
    found = []
    for centre in range(edges.num_centres):
        for e in range(int(edges.ptr[centre]), int(edges.ptr[centre + 1])):
            assert int(edges.centre[e]) == centre
            found.append((int(edges.index[e]), centre, int(edges.edge_id[e])))
    assert len(found) == edges.num_edges
    return found


def own_graph(**changes: Any) -> SequenceGraph:
    """Two graphs: items 0, 1 and image 3 in one, item 2 in the other; one pair of edges twice."""
    arguments: dict[str, Any] = {
        "schema": ITEMS,
        "node_type": torch.tensor([0, 0, 0, 1]),
        "edge_index": torch.tensor([[3, 1, 1, 0, 2], [1, 0, 0, 3, 2]]),
        "edge_type": torch.tensor([ITEM_IMAGE, NEXT, OWN, IMAGE_ITEM, OWN]),
        "batch": torch.tensor([0, 0, 1, 0]),
    }
    return SequenceGraph.from_edges(**(arguments | changes))


class TestEdgeSet:
    @given(st.integers(0, 1000))
    def test_groups_by_centre_and_by_neighbour(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        num_edges, sources, targets = rng.integers(0, 12), *rng.integers(1, 5, 2).tolist()
        index = rng.integers(sources, size=num_edges)
        centre = rng.integers(targets, size=num_edges)
        relation = torch.from_numpy(rng.integers(7, size=num_edges))
        edge_index = torch.from_numpy(np.stack([index, centre]))
        edges = EdgeSet.from_edge_index(edge_index, (sources, targets), relation)

        # Parallel edges stay, and edges of one centre keep their order.
        listed = [(int(i), int(c), e) for e, (i, c) in enumerate(zip(index, centre, strict=True))]
        assert edges_of(edges) == sorted(listed, key=lambda edge: edge[1])
        assert edges.relation is not None
        assert torch.equal(edges.relation, relation[edges.edge_id])
        assert edges.num_relations == (int(relation.max()) + 1 if num_edges else 0)
        assert (edges.num_centres, edges.num_neighbours) == (targets, sources)

        assert edges.transpose is not None
        turned = edges_of(edges.transpose)
        assert edges.transpose.num_centres == sources
        for slot, (c, i, e) in enumerate(turned):
            assert (int(edges.index[e]), int(edges.centre[e])) == (i, c), slot
        assert sorted(e for _, _, e in turned) == list(range(num_edges))
        assert edges.transpose.relation is None
        assert edges.transpose.transpose is None

    def test_small_integers_are_taken(self) -> None:
        edges = EdgeSet.from_edge_index(torch.tensor([[1], [0]], dtype=torch.int32), 2)
        assert edges.index.dtype == edges.ptr.dtype == torch.int64
        assert edges.relation is None

    def test_repr(self) -> None:
        edge_index = torch.tensor([[0, 1], [1, 1]])
        assert repr(EdgeSet.from_edge_index(edge_index, 3)) == "EdgeSet(3 centres, 2 edges)"
        edges = EdgeSet.from_edge_index(edge_index, 3, torch.tensor([4, 0]))
        assert repr(edges) == "EdgeSet(3 centres, 2 edges, 5 relations)"

    def test_moves_and_pickles(self) -> None:
        edges = EdgeSet.from_edge_index(torch.tensor([[0, 1], [1, 1]]), 3, torch.tensor([4, 0]))
        assert_same(pickle.loads(pickle.dumps(edges)), edges)
        assert edges.to("meta").device.type == "meta"

    @pytest.mark.parametrize(
        ("arguments", "error", "words"),
        [
            (([[0], [1]], 2), TypeError, "edge_index: expected a Tensor, got list"),
            ((torch.rand(2, 3), 2), TypeError, "edge_index: expected integers, got torch.float32"),
            ((torch.zeros(3, 2).long(), 2), ValueError, r"edge_index: expected shape \[2, \*\]"),
            (
                (torch.tensor([[0, 2], [0, 1]]), 2),
                ValueError,
                r"edge_index\[0\]\[1\]: expected 0 to 1, got 2",
            ),
            (
                (torch.tensor([[0], [-1]]), 2),
                ValueError,
                r"edge_index\[1\]\[0\]: expected 0 to 1, got -1",
            ),
            (
                (torch.tensor([[0], [1]]), (1, 1)),
                ValueError,
                r"edge_index\[1\]\[0\]: expected 0 to 0, got 1",
            ),
            ((torch.tensor([[0], [0]]), 2.0), TypeError, "num_nodes: expected an int, got float 2"),
            ((torch.tensor([[0], [0]]), -1), ValueError, "num_nodes: expected at least 0, got -1"),
            (
                (torch.tensor([[0], [0]]), 1, torch.tensor([-1])),
                ValueError,
                r"relation\[0\]: expected 0 or more, got -1",
            ),
            (
                (torch.tensor([[0], [0]]), 1, torch.tensor([1, 2])),
                ValueError,
                r"relation: expected shape \[1\], got \[2\]",
            ),
        ],
    )
    def test_wrong_arguments(self, arguments: Any, error: type[Exception], words: str) -> None:
        with pytest.raises(error, match=words):
            EdgeSet.from_edge_index(*arguments)


class TestFromEdges:
    def test_sorts_keeps_parallel_edges_and_adds_self(self) -> None:
        graph = own_graph().validate()
        pairs = list(zip(*graph.edge_index.tolist(), graph.edge_type.tolist(), strict=True))
        assert pairs == [
            *[(0, 0, 0), (1, 0, NEXT), (1, 0, OWN)],
            *[(1, 1, 0), (3, 1, ITEM_IMAGE)],
            *[(2, 2, OWN), (2, 2, 0)],
            *[(0, 3, IMAGE_ITEM), (3, 3, 0)],
        ]
        assert graph.num_graphs == 2
        assert graph.node_id.tolist() == [0, 1, 2, 0]
        assert graph.type_ptr.tolist() == [0, 3, 4]
        assert graph.id_bounds == (3, 1)
        assert graph.homogeneous.edge_id.tolist() == [0, 1, 2, 3, 5, 6, 8]
        assert graph.heterogeneous.edge_id.tolist() == [0, 3, 4, 6, 7, 8]

    def test_without_self(self) -> None:
        graph = own_graph(add_self=False).validate()
        assert graph.num_edges == 5
        assert 0 not in graph.edge_type

    def test_a_self_edge_that_is_there_is_not_added(self) -> None:
        graph = own_graph(
            edge_index=torch.tensor([[1, 1], [1, 0]]), edge_type=torch.tensor([0, NEXT])
        )
        assert (graph.edge_type == 0).sum() == graph.num_nodes

    def test_edge_attr_follows_its_edges(self) -> None:
        attr = torch.arange(1.0, 6.0).view(5, 1).requires_grad_()
        graph = own_graph(edge_attr=attr).validate()
        assert graph.edge_attr is not None
        assert graph.edge_attr.flatten().tolist() == [0, 2, 3, 0, 1, 5, 0, 4, 0]
        assert graph[1].edge_attr.flatten().tolist() == [5, 0]  # type: ignore[union-attr]
        graph.edge_attr.sum().backward()
        assert attr.grad is not None
        assert attr.grad.flatten().tolist() == [1.0] * 5

    def test_steps_are_occurrences_of_item_nodes(self) -> None:
        graph = own_graph(
            step_node=torch.tensor([1, 0, 1, 2]), step_ptr=torch.tensor([0, 3, 4])
        ).validate()
        assert graph.occurrence_node.tolist() == [0, 1, 1, 2]
        assert graph.occurrence_position.tolist() == [1, 0, 2, 0]
        assert graph.occurrence_ptr.tolist() == [0, 1, 3, 4, 4]
        assert graph.num_positions == 3
        assert edges_of(graph.step_edges) == [(1, 0, 0), (0, 0, 1), (1, 0, 2), (2, 1, 3)]

    def test_occurrences_of_ones_own(self) -> None:
        graph = own_graph(
            step_node=torch.tensor([1, 0, 2]),
            step_ptr=torch.tensor([0, 2, 3]),
            occurrence_node=torch.tensor([3, 0, 3]),
            occurrence_position=torch.tensor([4, 1, 0]),
        ).validate()
        assert graph.occurrence_node.tolist() == [0, 3, 3]
        assert graph.occurrence_position.tolist() == [1, 0, 4]
        assert graph.num_positions == 5

    def test_positions_cover_the_steps(self) -> None:
        graph = own_graph(
            step_node=torch.tensor([1, 0, 1]),
            step_ptr=torch.tensor([0, 3, 3]),
            occurrence_node=torch.tensor([0]),
            occurrence_position=torch.tensor([0]),
        ).validate()
        assert graph.num_positions == 3
        assert graph.padded_steps(torch.rand(4, 2))[0].shape == (2, 3, 2)

    @pytest.mark.parametrize(
        ("changes", "error", "words"),
        [
            ({"schema": "item"}, TypeError, "schema: expected a GraphSchema, got str"),
            ({"node_type": torch.rand(4)}, TypeError, "node_type: expected integers"),
            (
                {"node_type": torch.tensor([0, 0, 0, 2])},
                ValueError,
                r"node_type\[3\]: expected 0 to 1, got 2",
            ),
            (
                {"node_type": torch.tensor([0, 1, 0, 1]), "batch": None},
                ValueError,
                r"node_type\[2\]: nodes must be ordered by type",
            ),
            (
                {"batch": torch.tensor([1, 0, 1, 0])},
                ValueError,
                r"batch\[1\]: nodes of one type must be ordered by graph",
            ),
            ({"num_graphs": 1}, ValueError, r"batch\[2\]: expected 0 to 0, got 1"),
            ({"num_graphs": 2.0}, TypeError, "num_graphs: expected an int, got float"),
            (
                {"node_id": torch.tensor([0, 1])},
                ValueError,
                r"node_id: expected shape \[4\], got \[2\]",
            ),
            (
                {"node_id": torch.tensor([0, 1, 2, -1])},
                ValueError,
                r"node_id\[3\]: expected 0 or more, got -1",
            ),
            (
                {"edge_index": torch.tensor([[4, 1, 1, 0, 2], [1, 0, 0, 3, 2]])},
                ValueError,
                r"edge_index\[0\]\[0\]: expected 0 to 3, got 4",
            ),
            (
                {"edge_index": torch.tensor([[3, 1, 1, 0, 1], [1, 0, 0, 3, 2]])},
                ValueError,
                r"edge_index\[:, 4\]: expected both ends in one graph, got graphs 0 and 1",
            ),
            (
                {"edge_type": torch.tensor([IMAGE_ITEM, NEXT, OWN, IMAGE_ITEM, OWN])},
                ValueError,
                r"edge_type\[0\]: relation 'image>item' does not fit an edge of centre 1 \(item\) "
                r"and neighbour 3 \(image\)",
            ),
            (
                {"edge_type": torch.tensor([ITEM_IMAGE, 0, OWN, IMAGE_ITEM, OWN])},
                ValueError,
                r"edge_type\[1\]: relation 'self' does not fit an edge of centre 0",
            ),
            (
                {"edge_type": torch.tensor([ITEM_IMAGE, NEXT, OWN, NEXT, OWN])},
                ValueError,
                r"edge_type\[3\]: relation 'next' does not fit",
            ),
            (
                {"edge_type": torch.tensor([ITEM_IMAGE, NEXT, 7, IMAGE_ITEM, OWN])},
                ValueError,
                r"edge_type\[2\]: expected 0 to 6, got 7",
            ),
            (
                {"edge_type": torch.tensor([NEXT])},
                ValueError,
                r"edge_type: expected shape \[5\], got \[1\]",
            ),
            (
                {"edge_attr": torch.rand(4, 2)},
                ValueError,
                r"edge_attr: expected one row for each edge, 5 in all, got shape \[4, 2\]",
            ),
            (
                {"step_node": torch.tensor([3]), "step_ptr": torch.tensor([0, 1, 1])},
                ValueError,
                r"step_node\[0\]: expected 0 to 2, got 3",
            ),
            (
                {"step_node": torch.tensor([0, 2]), "step_ptr": torch.tensor([0, 2, 2])},
                ValueError,
                r"step_node\[1\]: expected a node of graph 0, got node 2 of graph 1",
            ),
            (
                {"step_node": torch.tensor([0, 2])},
                ValueError,
                r"step_ptr: expected \[3\] offsets, got None",
            ),
            (
                {"step_node": torch.tensor([0]), "step_ptr": torch.tensor([0, 1, 2])},
                ValueError,
                r"step_ptr\[-1\]: expected the number of values, 1, got 2",
            ),
            ({"step_ptr": torch.tensor([0, 0, 0])}, ValueError, "step_node: expected one node per"),
            (
                {"occurrence_node": torch.tensor([0])},
                ValueError,
                "occurrence_position: expected one per occurrence_node, got None",
            ),
            (
                {"occurrence_position": torch.tensor([0])},
                ValueError,
                "occurrence_node: expected one per occurrence_position, got None",
            ),
        ],
    )
    def test_wrong_arguments(
        self, changes: dict[str, Any], error: type[Exception], words: str
    ) -> None:
        with pytest.raises(error, match=words):
            own_graph(**changes)


class TestWithEdges:
    edge_index = torch.tensor([[1, 0], [0, 1]])
    edge_type = torch.tensor([OWN, OWN])

    @given(st.integers(0, 1000))
    def test_keeps_all_but_the_edges(self, seed: int) -> None:
        codes = {"image": draw_codes(seed)["image"]}
        graph = SequenceGraphBuilder(ITEMS, codes, max_length=4)(draw_histories(seed))
        by_graph = torch.argsort(graph.batch, stable=True)
        pairs = torch.stack([by_graph[:-1], by_graph[1:]])
        pairs = pairs[:, graph.batch[pairs[0]] == graph.batch[pairs[1]]]
        relations = torch.full((pairs.shape[1],), OWN)
        more = graph.with_edges(pairs, relations)
        more.validate()
        for name in ("num_graphs", "id_bounds", "num_positions", "type_ptr", "schema"):
            kept, was = getattr(more, name), getattr(graph, name)
            assert kept.equal(was) if isinstance(was, Tensor) else kept == was
        for name in (
            *("node_id", "node_type", "batch", "step_ptr", "step_node"),
            *("occurrence_node", "occurrence_position"),
        ):
            assert getattr(more, name).equal(getattr(graph, name)), name

        def triples(*edges: tuple[Tensor, Tensor]) -> list[list[int]]:
            joined = [torch.cat([index, kinds[None]]) for index, kinds in edges]
            return sorted(torch.cat(joined, dim=1).T.tolist())

        own = (graph.edge_index, graph.edge_type)
        assert triples((more.edge_index, more.edge_type)) == triples(own, (pairs, relations))
        assert_same(graph.with_edges(pairs[:, :0], relations[:0]), graph)

    def test_attributes_are_zero_where_there_are_none(self) -> None:
        bare = own_graph()
        given = torch.tensor([[5.0], [6.0]])
        graph = bare.with_edges(self.edge_index, self.edge_type, edge_attr=given)
        assert graph.edge_attr is not None
        assert graph.edge_attr.sum() == 11
        assert graph.edge_attr.count_nonzero() == 2
        again = graph.with_edges(self.edge_index, self.edge_type)
        assert again.edge_attr is not None
        assert again.edge_attr.shape == (bare.num_edges + 4, 1)
        assert again.edge_attr.sum() == 11
        both = graph.with_edges(self.edge_index, self.edge_type, edge_attr=given)
        assert both.edge_attr is not None
        assert both.edge_attr.sum() == 22

    @pytest.mark.parametrize(
        ("changes", "error", "words"),
        [
            (
                {"edge_index": torch.tensor([0, 1])},
                ValueError,
                r"edge_index: expected shape \[2, \*\], got \[2\]",
            ),
            ({"edge_index": torch.tensor([[0, 1], [1, 9]])}, ValueError, r"edge_index\[1\]\[1\]"),
            ({"edge_type": torch.tensor([OWN])}, ValueError, "edge_type: expected"),
            ({"edge_type": torch.tensor([OWN, 99])}, ValueError, r"edge_type\[1\]"),
            (
                {"edge_index": torch.tensor([[0, 1], [1, 2]])},
                ValueError,
                r"edge_index\[:, 1\]: expected both ends in one graph, got graphs 0 and 1",
            ),
            ({"edge_attr": torch.zeros(3, 2)}, ValueError, "edge_attr: expected one row for each"),
            (
                {"edge_attr": torch.zeros(2, 3)},
                ValueError,
                r"edge_attr: expected rows of shape \[2\], as the graph's are, got \[3\]",
            ),
            (
                {"edge_type": torch.full((2,), OWN, device="meta")},
                ValueError,
                "edge_type: expected it on cpu, where the graph is, got it on meta",
            ),
        ],
    )
    def test_wrong_arguments(
        self, changes: dict[str, Any], error: type[Exception], words: str
    ) -> None:
        arguments: dict[str, Any] = {"edge_index": self.edge_index, "edge_type": self.edge_type}
        arguments |= changes
        with pytest.raises(error, match=words):
            own_graph(edge_attr=torch.zeros(5, 2)).with_edges(**arguments)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("edge_type", torch.tensor([ITEM_IMAGE, NEXT, OWN, IMAGE_ITEM, OWN])),
        ("node_id", torch.arange(4)),
        ("batch", torch.tensor([0, 0, 1, 0])),
        ("edge_attr", torch.zeros(5, 2)),
        ("step_node", torch.tensor([0, 2])),
    ],
)
def test_edges_on_another_device(name: str, given: Tensor) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected it on cpu, where node_type is, got"):
        own_graph(**{name: given.to("meta")})


def test_relations_on_another_device() -> None:
    index, relation = torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 1], device="meta")
    with pytest.raises(ValueError, match="relation: expected it on cpu, where edge_index is, got"):
        EdgeSet.from_edge_index(index, 2, relation)


class TestSteps:
    graph = SequenceGraph.from_edges(
        GraphSchema(("item",)),
        torch.tensor([0, 0, 0]),
        torch.empty(2, 0, dtype=torch.int64),
        torch.empty(0, dtype=torch.int64),
        batch=torch.tensor([0, 0, 2]),
        step_node=torch.tensor([0, 1, 0, 2]),
        step_ptr=torch.tensor([0, 3, 3, 4]),
    )

    def test_steps_follow_the_histories(self) -> None:
        x = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
        values, offsets = self.graph.steps(x)
        assert values[:, 0].tolist() == [1, 2, 1, 3]
        assert offsets.tolist() == [0, 3, 3, 4]

    def test_padded_steps_are_zero_after_the_end(self) -> None:
        x = torch.tensor([[1.0], [2.0], [3.0]], requires_grad=True)
        padded, mask = self.graph.padded_steps(x)
        assert padded.squeeze(2).tolist() == [[1, 2, 1], [0, 0, 0], [3, 0, 0]]
        assert mask.tolist() == [[True] * 3, [False] * 3, [True, False, False]]
        padded.sum().backward()
        assert x.grad is not None
        assert x.grad.flatten().tolist() == [2, 1, 1]

    def test_padding_is_zero_beside_infinity(self) -> None:
        padded, mask = self.graph.padded_steps(torch.tensor([1.0, 2.0, torch.inf]))
        assert padded[~mask].tolist() == [0] * 5
        assert padded[2, 0] == torch.inf

    @pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float16])
    def test_rows_of_any_type_and_shape(self, dtype: torch.dtype) -> None:
        x = torch.ones(3, 2, 2, dtype=dtype)
        padded, _ = self.graph.padded_steps(x)
        assert padded.dtype == dtype
        assert padded.shape == (3, 3, 2, 2)

    def test_without_steps(self) -> None:
        graph = own_graph()
        values, offsets = graph.steps(torch.rand(4, 3))
        padded, mask = graph.padded_steps(torch.rand(4, 3))
        assert (values.shape, offsets.tolist()) == ((0, 3), [0, 0, 0])
        assert (padded.shape, mask.shape) == ((2, 0, 3), (2, 0))

    def test_rows_are_counted(self) -> None:
        with pytest.raises(ValueError, match=r"x: expected one row per node, 3 in all, got .*\[4"):
            self.graph.steps(torch.rand(4, 2))


class TestBatches:
    def test_indexing(self) -> None:
        graph = draw_graph(0, count=4)
        assert len(graph) == 4
        assert_same(graph[-1], graph[3])
        assert_same(graph[np.int64(2)], graph[2])
        for index in (4, -5):
            with pytest.raises(IndexError, match=f"one of 4 graphs, got {index}"):
                graph[index]
        for wrong in (True, "0", 1.0):
            with pytest.raises(TypeError, match="index: expected an int"):
                graph[wrong]  # type: ignore[index]

    def test_collating_what_was_taken_apart(self) -> None:
        graph = own_graph(
            edge_attr=torch.arange(5.0),
            step_node=torch.tensor([1, 0, 2]),
            step_ptr=torch.tensor([0, 2, 3]),
            node_id=torch.tensor([5, 2, 9, 4]),
        )
        assert_same(SequenceGraph.collate(list(graph)), graph)
        assert_same(SequenceGraph.collate([graph]), graph)
        assert SequenceGraph.collate([graph[1], graph[0]]).node_id.tolist() == [9, 5, 2, 4]

    def test_collating_graphs_without_nodes(self) -> None:
        builder = draw_builder(0)
        empty, none = builder([[], []]), builder([])
        some = builder(draw_histories(0))
        assert_same(SequenceGraph.collate([empty, none]), empty)
        assert_same(SequenceGraph.collate([none, some]), some)
        assert SequenceGraph.collate([empty, some])[0].num_nodes == 0

    def test_collating_what_does_not_fit(self) -> None:
        graph = draw_graph(0)
        with pytest.raises(ValueError, match="graphs: expected at least one graph, got none"):
            SequenceGraph.collate([])
        with pytest.raises(TypeError, match=r"graphs\[1\]: expected a SequenceGraph, got int"):
            SequenceGraph.collate([graph, 3])  # type: ignore[list-item]
        with pytest.raises(ValueError, match=r"graphs\[1\].schema: expected GraphSchema"):
            SequenceGraph.collate([graph, own_graph()])
        with pytest.raises(ValueError, match=r"graphs\[1\].device: expected cpu, got meta"):
            SequenceGraph.collate([graph, graph.to("meta")])
        with pytest.raises(ValueError, match=r"graphs\[1\].edge_attr: expected every graph"):
            SequenceGraph.collate([own_graph(), own_graph(edge_attr=torch.rand(5))])


class TestCopies:
    @pytest.mark.parametrize(
        "make",
        [
            lambda graph: pickle.loads(pickle.dumps(graph)),
            copy.deepcopy,
            lambda graph: graph.to("cpu"),
        ],
        ids=["pickle", "deepcopy", "to"],
    )
    @pytest.mark.parametrize("source", ["drawn", "own", "empty"])
    def test_equal_and_as_shared(self, make: Any, source: str) -> None:
        graph = {
            "drawn": lambda: draw_graph(0),
            "own": lambda: own_graph(edge_attr=torch.rand(5, 2)),
            "empty": lambda: draw_builder(0)([]),
        }[source]()
        again = make(graph)
        assert_same(again, graph)
        again.validate()
        assert again.edges.relation is again.edge_type
        if source == "drawn":
            for edges in (again.edges, again.homogeneous, again.heterogeneous):
                assert edges.transpose.index is edges.index

    def test_a_pickle_is_one_piece_without_what_is_shared(self) -> None:
        graph = draw_graph(0, count=50)
        shared = graph.edges.index.numel() * 2  # rows of edge_index, and all transposes' indices
        assert len(pickle.dumps(graph)) < 8 * (_numbers(graph) - shared) + 8192

    def test_saving_with_torch(self) -> None:
        graph, file = draw_graph(0), io.BytesIO()
        torch.save(graph, file)
        file.seek(0)
        assert_same(torch.load(file, weights_only=False), graph)

    def test_moving_keeps_type_ptr_on_the_cpu(self) -> None:
        graph = draw_graph(0).to("meta")
        assert graph.device.type == "meta"
        assert graph.edges.relation is graph.edge_type
        assert graph.edges.transpose.index is graph.edges.index
        assert graph.edges.transpose is not None
        assert graph.edges.transpose.edge_id.device.type == "meta"
        assert graph.type_ptr.device.type == "cpu"
        assert repr(graph).endswith("meta)")

    def test_numbers_stay_integers(self) -> None:
        graph = draw_graph(0)
        for moved in (graph, graph.edges):
            with pytest.raises(TypeError, match=r"device: expected a device, got dtype torch.fl"):
                moved.to(torch.float64)  # type: ignore[arg-type]

    @pytest.mark.gpu
    def test_to_the_gpu_and_back(self) -> None:
        graph = own_graph(edge_attr=torch.rand(5))
        for there in (draw_graph(0).to("cuda"), graph.pin_memory().to("cuda", non_blocking=True)):
            there.validate()
            assert_same(SequenceGraph.collate(list(there)).to("cpu"), there.to("cpu"))
        assert_same(draw_graph(0).to("cuda").to("cpu"), draw_graph(0))


def _numbers(owner: SequenceGraph | EdgeSet) -> int:
    """Integers in the distinct tensors of a graph."""
    found: dict[int, int] = {}

    def visit(value: object) -> None:
        for member in vars(value).values():
            if isinstance(member, EdgeSet):
                visit(member)
            elif isinstance(member, Tensor):
                found[id(member)] = member.numel()

    visit(owner)
    return sum(found.values())


def test_repr() -> None:
    assert repr(own_graph()) == (
        "SequenceGraph(2 graphs, 4 nodes (item 3, image 1), 9 edges (7 homogeneous, "
        "6 heterogeneous), cpu)"
    )


def test_sizes_do_not_depend_on_which_types_are_there() -> None:
    graph = draw_builder(0, missing=1.0)(draw_histories(0))
    assert graph.type_ptr.shape == (4,)
    assert graph.id_bounds[1:] == (0, 0)
    assert graph.heterogeneous.num_edges == graph.num_nodes  # `self` alone


def test_homogeneous_and_heterogeneous_share_out_the_edges() -> None:
    graph = draw_graph(1)
    ends = graph.node_type[graph.edge_index]
    inside = (ends[0] == ends[1]).nonzero().squeeze(1)
    across = ((ends[0] != ends[1]) | (graph.edge_type == 0)).nonzero().squeeze(1)
    assert torch.equal(graph.homogeneous.edge_id, inside)
    assert torch.equal(graph.heterogeneous.edge_id, across)
    for edges in (graph.homogeneous, graph.heterogeneous):
        assert torch.equal(edges.index, graph.edge_index[0, edges.edge_id])
        assert torch.equal(edges.centre, graph.edge_index[1, edges.edge_id])
        assert edges.relation is not None
        assert torch.equal(edges.relation, graph.edge_type[edges.edge_id])
        assert int(edges.relation.max()) < edges.num_relations


@pytest.mark.parametrize("made", ["built", "collated", "moved", "by hand"])
def test_kernels_go_over_the_nodes_history_by_history(made: str) -> None:
    graph = own_graph() if made == "by hand" else draw_graph(2)
    if made == "collated":
        graph = SequenceGraph.collate([draw_graph(3), graph])
    elif made == "moved":
        graph = pickle.loads(pickle.dumps(graph.to("cpu")))
    for edges in (graph.edges, graph.homogeneous, graph.heterogeneous):
        assert edges.transpose is not None
        for side in (edges, edges.transpose):
            assert side.order is not None
            assert sorted(side.order.tolist()) == list(range(graph.num_nodes))
            assert (graph.batch[side.order].diff() >= 0).all()
    assert EdgeSet.from_edge_index(graph.edge_index, graph.num_nodes).order is None


class TestValidate:
    @staticmethod
    def changed(graph: SequenceGraph, path: str, value: Any) -> SequenceGraph:
        """The graph with one field, perhaps of an edge set, replaced."""
        name, _, rest = path.partition(".")
        if not rest:
            return replace(graph, **{name: value})
        inner = getattr(graph, name)
        parts = rest.split(".")
        if len(parts) == 2:
            turned = replace(inner.transpose, **{parts[1]: value})
            return replace(graph, **{name: replace(inner, transpose=turned)})
        return replace(graph, **{name: replace(inner, **{rest: value})})

    @pytest.mark.parametrize("seed", range(3))
    def test_what_is_made_here_is_valid(self, seed: int) -> None:
        graph = draw_graph(seed)
        assert graph.validate() is graph
        graph[0].validate()
        SequenceGraph.collate([graph, graph]).validate()

    @pytest.mark.parametrize(
        "path",
        [
            *("node_type", "batch", "edge_type", "step_ptr", "step_node", "occurrence_node"),
            *("occurrence_ptr", "type_ptr"),
            *(
                f"{edges}.{field}"
                for edges in ("edges", "homogeneous", "heterogeneous", "step_edges")
                for field in ("ptr", "index", "centre", "edge_id", "transpose.edge_id")
            ),
            *("edges.relation", "homogeneous.relation", "heterogeneous.relation"),
            *("edges.order", "homogeneous.order", "heterogeneous.transpose.order"),
            "step_edges.transpose.index",
        ],
    )
    def test_any_number_that_is_off_is_named(self, path: str) -> None:
        graph = draw_graph(0)
        value: Any = graph
        for name in path.split("."):
            value = getattr(value, name)
        wrong = value.clone()
        place = len(wrong) // 2
        wrong[place] += 1
        # What is wrong may show first in what goes with it.
        beside = {"node_type": "edge_type|batch", "batch": "edge_index", "step_ptr": "step_node"}
        names = f"{path}|{beside.get(path, path)}".replace(".", "[.]")
        with pytest.raises(ValueError, match=rf"^({names})[\[:]"):
            self.changed(graph, path, wrong).validate()

    @pytest.mark.parametrize(
        ("path", "change", "error", "words"),
        [
            ("num_graphs", lambda _: -1, ValueError, "num_graphs: expected at least 0, got -1"),
            ("num_graphs", lambda _: 9, ValueError, r"step_ptr: expected shape \[10\], got \[6\]"),
            ("num_positions", lambda n: n + 1, ValueError, r"num_positions: expected \d, got \d"),
            ("id_bounds", lambda b: b[:2], ValueError, r"id_bounds: expected \(.*\), got \("),
            ("schema", lambda _: None, TypeError, "schema: expected a GraphSchema"),
            ("node_id", lambda t: t.int(), TypeError, "node_id: expected torch.int64, got .*int32"),
            ("node_id", lambda t: t - 100, ValueError, r"node_id\[0\]: expected 0 or more"),
            ("node_id", lambda t: t[1:], ValueError, r"batch: expected shape \[\d+\]"),
            ("node_type", lambda t: t.flip(0), ValueError, r"node_type\[\d+\]: nodes must be ord"),
            ("batch", lambda t: t.flip(0), ValueError, r"batch\[\d+\]: nodes of one type must be"),
            ("edge_index", lambda t: t.flip(1), ValueError, r"edge_index\[1\]\[\d+\]: edges must"),
            ("edge_index", lambda t: t[:1], ValueError, r"edge_index: expected shape \[2, \*\]"),
            ("edge_index", lambda t: t + 1000, ValueError, r"edge_index\[0\]\[0\]: expected 0 to"),
            ("edge_type", lambda t: t + 100, ValueError, r"edge_type\[0\]: expected 0 to 9"),
            ("edge_type", lambda t: t * 0, ValueError, r"edge_type\[\d+\]: relation 'self' does"),
            ("edge_attr", lambda _: torch.rand(3), ValueError, "edge_attr: expected one row for"),
            ("type_ptr", lambda t: t.to("meta"), ValueError, "type_ptr: expected it on cpu, got"),
            ("edges.ptr", lambda t: t.to("meta"), ValueError, "edges.ptr: expected it on cpu, got"),
            ("edges.relation", lambda _: None, ValueError, "edges.relation: expected a Tensor, go"),
            (
                "edges.transpose",
                lambda _: None,
                ValueError,
                "edges.transpose: expected an EdgeSet, got None",
            ),
            ("edges.num_relations", lambda _: 3, ValueError, "edges.num_relations: expected 10, "),
            ("homogeneous.index", lambda t: t[1:], ValueError, "homogeneous.index: expected shap"),
        ],
    )
    def test_what_is_wrong_is_said(
        self, path: str, change: Any, error: type[Exception], words: str
    ) -> None:
        graph = draw_graph(0)
        value: Any = graph
        for name in path.split("."):
            value = getattr(value, name)
        with pytest.raises(error, match=words):
            self.changed(graph, path, change(value)).validate()

    def test_neighbours_out_of_order(self) -> None:
        graph = draw_graph(0)
        order = torch.arange(graph.num_edges)
        order[:2] = order[:2].flip(0)
        assert graph.edge_index[1, 0] == graph.edge_index[1, 1]
        wrong = replace(graph, edge_index=graph.edge_index[:, order])
        with pytest.raises(ValueError, match=r"edge_index\[0\]\[1\]: edges of one centre must be"):
            wrong.validate()

    def test_a_graph_of_another_schema(self) -> None:
        wrong = replace(draw_graph(0), schema=GraphSchema(("item", "text", "image", "sound")))
        with pytest.raises(ValueError, match=r"edge_type\[\d+\]: relation|type_ptr: expected"):
            wrong.validate()


def test_narrow_integers_are_indices_like_any_other() -> None:
    edge_index = torch.tensor([[0, 1], [1, 0]], dtype=torch.int8)
    assert EdgeSet.from_edge_index(edge_index, 200).num_centres == 200
    with pytest.raises(ValueError, match=r"edge_index\[0\]\[0\]: expected 0 to 299, got -1"):
        EdgeSet.from_edge_index(-1 - edge_index, 300)
    with pytest.raises(
        ValueError, match=r"num_nodes: expected a number or \(neighbours, centres\)"
    ):
        EdgeSet.from_edge_index(edge_index, (5, 2, 1))  # type: ignore[arg-type]


def test_graphs_whose_edges_carry_other_shapes_do_not_collate() -> None:
    def graph(*shape: int) -> SequenceGraph:
        edges = torch.tensor([[0, 1], [1, 0]])
        relations = torch.tensor([1, 2])
        return SequenceGraph.from_edges(
            GraphSchema(("item",)),
            torch.zeros(2).long(),
            edges,
            relations,
            edge_attr=torch.zeros(2, *shape),
        )

    with pytest.raises(ValueError, match=r"graphs\[1\].edge_attr: expected rows of \[3\]"):
        SequenceGraph.collate([graph(3), graph(4)])
