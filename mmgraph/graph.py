"""Many histories as one flat, typed graph, and its families of edges in CSR form."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, SupportsIndex, TypeVar

import torch
from torch import Tensor

from mmgraph import _checks as check
from mmgraph._packing import pack, unpack
from mmgraph.schema import GraphSchema


@dataclass(eq=False, repr=False)
class EdgeSet:
    r"""One family of edges, grouped by centre (compressed sparse rows).

    The neighbours of centre ``i`` are ``index[ptr[i]:ptr[i + 1]]``. Make one with
    :meth:`from_edge_index`; a :class:`SequenceGraph` carries four.

    Attributes:
        ptr: ``[N + 1]``, where each centre's edges begin.
        index: ``[E']``, each edge's neighbour (source).
        centre: ``[E']``, each edge's centre (target): ``ptr`` written out.
        edge_id: ``[E']``, each edge's position in the list that the set was made from: the
            graph's edges, the columns of ``edge_index``, or the set that this one transposes.
        relation: ``[E']``, each edge's relation, or ``None`` where edges carry none.
        num_relations: a bound: every relation is below it.
        transpose: the same edges grouped by neighbour, whose ``index`` is the centre, or ``None``
            in a set that is itself a transpose. A symmetric set shares all but ``edge_id`` (each
            edge's reverse) with its transpose, which keeps no ``relation``: read the set's own at
            ``transpose.edge_id``.
        sources: the number of nodes that may be neighbours, where neither ``transpose`` tells it
            nor it is the number of centres: in a transpose between two sets of nodes.
        order: ``[N]``, the centres so that those with neighbours in common follow each other,
            which is how kernels go over them; ``None`` where nothing is known of that. A
            :class:`SequenceGraph` gives its nodes history by history.
    """

    ptr: Tensor
    index: Tensor
    centre: Tensor
    edge_id: Tensor
    relation: Tensor | None = None
    num_relations: int = 0
    transpose: EdgeSet | None = None
    order: Tensor | None = None
    sources: int | None = None

    @classmethod
    def from_edge_index(
        cls,
        edge_index: Tensor,
        num_nodes: int | tuple[int, int],
        relation: Tensor | None = None,
    ) -> EdgeSet:
        """Edges as PyG writes them, in any order, parallel ones kept.

        Args:
            edge_index: ``[2, E]``, row 0 the neighbour (source), row 1 the centre (target).
            num_nodes: the number of nodes, or ``(neighbours, centres)`` where the two ends are
                different sets of nodes.
            relation: ``[E]``, each edge's relation, not negative.

        Returns:
            The set, edges sorted by centre; edges of one centre keep the order they came in.

        Raises:
            TypeError: if a tensor does not hold integers.
            ValueError: if a shape or device does not fit or an index is out of range.
        """
        both = num_nodes if isinstance(num_nodes, tuple) else (num_nodes, num_nodes)
        if len(both) != 2:
            raise ValueError(
                f"num_nodes: expected a number or (neighbours, centres), got {num_nodes}"
            )
        sources, targets = both
        check.positive("num_nodes", sources, least=0)
        check.positive("num_nodes", targets, least=0)
        check.integers("edge_index", edge_index, (2, None))
        check.index_range("edge_index[0]", edge_index[0], sources)
        check.index_range("edge_index[1]", edge_index[1], targets)
        num_relations = 0
        if relation is not None:
            check.integers("relation", relation, (edge_index.shape[1],))
            check.same_device("relation", relation, edge_index.device, "edge_index")
            check.index_range("relation", relation, None)
            num_relations = int(relation.max()) + 1 if relation.numel() else 0
        index, centre = edge_index.long()
        order = torch.argsort(centre, stable=True)
        return cls._from_sorted(
            index[order],
            centre[order],
            order,
            None if relation is None else relation.long()[order],
            num_relations,
            sources,
            targets,
        )

    @classmethod
    def _from_sorted(
        cls,
        index: Tensor,
        centre: Tensor,
        edge_id: Tensor,
        relation: Tensor | None,
        num_relations: int,
        sources: int,
        targets: int,
        order: Tensor | None = None,
    ) -> EdgeSet:
        reverse = torch.argsort(index, stable=True)
        transpose = cls(
            ptr=ptr_of(index, sources),
            index=centre[reverse],
            centre=index[reverse],
            edge_id=reverse,
            order=order,
            sources=None if sources == targets else targets,
        )
        return cls(
            ptr=ptr_of(centre, targets),
            index=index,
            centre=centre,
            edge_id=edge_id,
            relation=relation,
            num_relations=num_relations,
            transpose=transpose,
            order=order,
        )

    @property
    def num_edges(self) -> int:
        """Number of edges."""
        return self.index.shape[0]

    @property
    def num_centres(self) -> int:
        """Number of centres (targets), with or without edges."""
        return self.ptr.shape[0] - 1

    @property
    def num_neighbours(self) -> int:
        """Number of nodes that may be neighbours (sources), with or without edges."""
        if self.transpose is not None:
            return self.transpose.num_centres
        return self.num_centres if self.sources is None else self.sources

    @property
    def device(self) -> torch.device:
        """Where the edges live."""
        return self.ptr.device

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> EdgeSet:
        """The same edges on another device."""
        check.device("device", device)
        return _map_tensors(self, lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> EdgeSet:
        """The same edges in page-locked memory."""
        return _map_tensors(self, Tensor.pin_memory)

    def __repr__(self) -> str:
        relations = f", {self.num_relations} relations" if self.relation is not None else ""
        return f"EdgeSet({self.num_centres} centres, {self.num_edges} edges{relations})"


@dataclass(eq=False, repr=False)
class SequenceGraph:
    r"""A batch of histories as one graph over the nodes of all modalities.

    :class:`SequenceGraphBuilder` makes it from histories, :meth:`from_edges` from edges of one's
    own. Nodes are ordered by type and then by graph, so that a type's nodes are a slice; edges
    are sorted by centre and, inside a centre, by neighbour. Node states are not causal, since
    ``next`` and ``both`` look ahead: one graph scores one prefix. Copies (:meth:`to`, a pickle)
    carry the attributes below and no others.

    Attributes:
        schema: names of node types and relations.
        num_graphs: number of histories ``B``, empty ones included.
        node_id: ``[N]``, each node's id inside its modality.
        node_type: ``[N]``, each node's modality.
        batch: ``[N]``, each node's history.
        type_ptr: ``[T + 1]``, where each type's nodes begin; always on the CPU.
        edge_index: ``[2, E]``, row 0 the neighbour (source), row 1 the centre (target).
        edge_type: ``[E]``, each edge's relation.
        edge_attr: ``[E, ...]`` or ``None``, what the user's own edges carry.
        step_ptr: ``[B + 1]``, where each history's kept steps begin.
        step_node: ``[S]``, each kept step's item node.
        occurrence_ptr: ``[N + 1]``, where each node's occurrences begin.
        occurrence_node: ``[O]``, the node of each occurrence, sorted.
        occurrence_position: ``[O]``, the step of each occurrence, 0 = the first kept one.
        edges: all edges as an :class:`EdgeSet`, ``self`` once.
        homogeneous: the edges whose two ends have one type, ``self`` included.
        heterogeneous: the edges between types, and ``self``.
        step_edges: each history as a centre whose neighbours are its steps' item nodes, for
            readouts through :func:`mmgraph.kernels.aggregate`.
        id_bounds: per type, one more than the largest node id (0 without nodes); plain integers.
        num_positions: the number of steps of the longest kept history, or one more than the
            largest position that ``from_edges`` was given beyond it; a plain integer.
    """

    schema: GraphSchema
    num_graphs: int
    node_id: Tensor
    node_type: Tensor
    batch: Tensor
    type_ptr: Tensor
    edge_index: Tensor
    edge_type: Tensor
    step_ptr: Tensor
    step_node: Tensor
    occurrence_ptr: Tensor
    occurrence_node: Tensor
    occurrence_position: Tensor
    edges: EdgeSet
    homogeneous: EdgeSet
    heterogeneous: EdgeSet
    step_edges: EdgeSet
    id_bounds: tuple[int, ...]
    num_positions: int
    edge_attr: Tensor | None = None

    @classmethod
    def from_edges(
        cls,
        schema: GraphSchema,
        node_type: Tensor,
        edge_index: Tensor,
        edge_type: Tensor,
        *,
        node_id: Tensor | None = None,
        batch: Tensor | None = None,
        num_graphs: int | None = None,
        edge_attr: Tensor | None = None,
        step_node: Tensor | None = None,
        step_ptr: Tensor | None = None,
        occurrence_node: Tensor | None = None,
        occurrence_position: Tensor | None = None,
        add_self: bool = True,
    ) -> SequenceGraph:
        """A graph of the user's own edges, which may be parallel and need not be symmetric.

        Args:
            schema: names the node types and relations.
            node_type: ``[N]``, nodes ordered by type and then by graph.
            edge_index: ``[2, E]`` in any order, row 0 the neighbour, row 1 the centre.
            edge_type: ``[E]``, relation ids of the schema.
            node_id: ``[N]``, ids inside each modality; counted from 0 per type by default.
            batch: ``[N]``, each node's graph; one graph by default.
            num_graphs: number of graphs; one more than the largest in ``batch`` by default.
            edge_attr: ``[E, ...]``, carried along; zero on the ``self`` edges added here.
            step_node: ``[S]``, the item node of each step; without it there are no steps, and
                readouts over steps give zeros.
            step_ptr: ``[B + 1]``, where each graph's steps begin; needed with ``step_node`` where
                there is more than one graph.
            occurrence_node: ``[O]``, the node of each occurrence in a history; by default each
                item node occurs at its steps.
            occurrence_position: ``[O]``, the step of each occurrence.
            add_self: give a ``self`` edge to every node that has none.

        Raises:
            TypeError: if a tensor does not hold integers.
            ValueError: if a shape or device does not fit, an index is out of range, nodes are out
                of order, an edge joins two graphs, or a built-in relation does not fit its edge's
                types.
        """
        check.instance("schema", schema, GraphSchema)
        check.boolean("add_self", add_self)
        check.integers("node_type", node_type, (None,))
        num_nodes, device = node_type.shape[0], node_type.device
        for name, given in (
            ("edge_index", edge_index),
            ("edge_type", edge_type),
            ("node_id", node_id),
            ("batch", batch),
            ("edge_attr", edge_attr),
            ("step_node", step_node),
            ("step_ptr", step_ptr),
            ("occurrence_node", occurrence_node),
            ("occurrence_position", occurrence_position),
        ):
            if isinstance(given, Tensor):
                check.same_device(name, given, device, "node_type")
        node_type = node_type.long()
        check.index_range("node_type", node_type, schema.num_types)
        if batch is None:
            batch = torch.zeros_like(node_type)
            num_graphs = 1 if num_graphs is None else num_graphs
        check.integers("batch", batch, (num_nodes,))
        batch = batch.long()
        if num_graphs is None:
            num_graphs = int(batch.max()) + 1 if num_nodes else 0
        check.positive("num_graphs", num_graphs, least=0)
        check.index_range("batch", batch, num_graphs)
        check.non_decreasing("node_type", node_type, "nodes must be ordered by type")
        check.non_decreasing(
            "batch",
            node_type * max(num_graphs, 1) + batch,
            "nodes of one type must be ordered by graph",
        )
        type_ptr = ptr_of(node_type, schema.num_types)
        if node_id is None:
            node_id = torch.arange(num_nodes, device=device) - type_ptr[node_type]
        check.integers("node_id", node_id, (num_nodes,))
        check.index_range("node_id", node_id, None)

        check.integers("edge_index", edge_index, (2, None))
        check.index_range("edge_index[0]", edge_index[0], num_nodes)
        check.index_range("edge_index[1]", edge_index[1], num_nodes)
        num_edges = edge_index.shape[1]
        check.integers("edge_type", edge_type, (num_edges,))
        check.index_range("edge_type", edge_type, schema.num_relations)
        if edge_attr is not None:
            check.rows("edge_attr", edge_attr, num_edges, "one row for each edge")
        edge_index, edge_type = edge_index.long(), edge_type.long()
        _check_relations(schema, node_type, batch, edge_index, edge_type)

        if add_self:
            alone = torch.ones(num_nodes, dtype=torch.bool, device=device)
            alone[edge_index[1][edge_type == 0]] = False
            nodes = alone.nonzero().squeeze(1)
            edge_index = torch.cat([edge_index, nodes.expand(2, -1)], dim=1)
            edge_type = torch.cat([edge_type, torch.zeros_like(nodes)])
            if edge_attr is not None:
                zeros = edge_attr.new_zeros((nodes.shape[0], *edge_attr.shape[1:]))
                edge_attr = torch.cat([edge_attr, zeros])
        order = torch.argsort(edge_index[1] * max(num_nodes, 1) + edge_index[0], stable=True)

        step_node, step_ptr = _check_steps(step_node, step_ptr, batch, num_graphs, type_ptr)
        if occurrence_node is None:
            if occurrence_position is not None:
                raise ValueError("occurrence_node: expected one per occurrence_position, got None")
            occurrence_node = step_node
            occurrence_position = torch.arange(step_node.shape[0], device=device) - (
                step_ptr[:-1].repeat_interleave(step_ptr.diff())
            )
        check.integers("occurrence_node", occurrence_node, (None,))
        check.index_range("occurrence_node", occurrence_node, num_nodes)
        if occurrence_position is None:
            raise ValueError("occurrence_position: expected one per occurrence_node, got None")
        check.integers("occurrence_position", occurrence_position, tuple(occurrence_node.shape))
        check.index_range("occurrence_position", occurrence_position, None)
        by_node = torch.argsort(occurrence_position, stable=True)
        by_node = by_node[torch.argsort(occurrence_node[by_node], stable=True)]

        return cls._assemble(
            schema=schema,
            num_graphs=num_graphs,
            node_id=node_id.long(),
            node_type=node_type,
            batch=batch,
            edge_index=edge_index[:, order],
            edge_type=edge_type[order],
            edge_attr=None if edge_attr is None else edge_attr[order],
            step_ptr=step_ptr,
            step_node=step_node,
            occurrence_node=occurrence_node.long()[by_node],
            occurrence_position=occurrence_position.long()[by_node],
        )

    def with_edges(
        self, edge_index: Tensor, edge_type: Tensor, *, edge_attr: Tensor | None = None
    ) -> SequenceGraph:
        """A graph with further edges, everything else as it is here.

        Args:
            edge_index: ``[2, E']`` in any order, row 0 the neighbour, row 1 the centre.
            edge_type: ``[E']``, relation ids of the schema.
            edge_attr: ``[E', ...]``; edges for which there is none, here or there, have zeros.

        Raises:
            TypeError: if a tensor does not hold integers.
            ValueError: if a shape or device does not fit, an index is out of range, an edge joins
                two graphs, or a built-in relation does not fit its edge's types.
        """
        check.integers("edge_index", edge_index, (2, None))
        num_edges = edge_index.shape[1]
        check.integers("edge_type", edge_type, (num_edges,))
        given = {"edge_index": edge_index, "edge_type": edge_type}
        if edge_attr is not None:
            check.rows("edge_attr", edge_attr, num_edges, "one row for each edge")
            given["edge_attr"] = edge_attr
        for name, value in given.items():
            check.same_device(name, value, self.device, "the graph")
        like = edge_attr if self.edge_attr is None else self.edge_attr
        if like is not None:
            size = like.shape[1:]
            if edge_attr is None:
                edge_attr = like.new_zeros((num_edges, *size))
            if edge_attr.shape[1:] != size:
                raise ValueError(
                    f"edge_attr: expected rows of shape {list(size)}, as the graph's are, "
                    f"got {list(edge_attr.shape[1:])}"
                )
            own = self.edge_attr
            own = like.new_zeros((self.num_edges, *size)) if own is None else own
            edge_attr = torch.cat([edge_attr, own])
        # The new ones first, so that what is refused is counted as it was given.
        return self.from_edges(
            self.schema,
            self.node_type,
            torch.cat([edge_index.long(), self.edge_index], dim=1),
            torch.cat([edge_type.long(), self.edge_type]),
            node_id=self.node_id,
            batch=self.batch,
            num_graphs=self.num_graphs,
            edge_attr=edge_attr,
            step_node=self.step_node,
            step_ptr=self.step_ptr,
            occurrence_node=self.occurrence_node,
            occurrence_position=self.occurrence_position,
            add_self=False,
        )

    @classmethod
    def _assemble(
        cls,
        *,
        schema: GraphSchema,
        num_graphs: int,
        node_id: Tensor,
        node_type: Tensor,
        batch: Tensor,
        edge_index: Tensor,
        edge_type: Tensor,
        edge_attr: Tensor | None,
        step_ptr: Tensor,
        step_node: Tensor,
        occurrence_node: Tensor,
        occurrence_position: Tensor,
    ) -> SequenceGraph:
        """Derive everything else from sorted nodes, edges, steps and occurrences."""
        num_nodes, device = node_type.shape[0], node_type.device
        index, centre = edge_index
        same_type = node_type[index] == node_type[centre]
        # A loop that a user names otherwise than `self` is an edge like any other.
        is_self = edge_type == 0
        order = torch.argsort(batch, stable=True)

        def edge_set(chosen: Tensor | None, num_relations: int) -> EdgeSet:
            if chosen is None:
                ids = torch.arange(index.shape[0], device=device)
                neighbours, centres, relation = index, centre, edge_type
            else:
                ids = chosen.nonzero().squeeze(1)
                neighbours, centres, relation = index[ids], centre[ids], edge_type[ids]
            return EdgeSet._from_sorted(
                neighbours, centres, ids, relation, num_relations, num_nodes, num_nodes, order
            )

        type_ptr = ptr_of(node_type, schema.num_types).cpu()
        step_batch = torch.arange(num_graphs, device=device).repeat_interleave(
            step_ptr.diff(), output_size=step_node.shape[0]
        )
        steps = torch.arange(step_node.shape[0], device=device)
        bounds = type_ptr.tolist()
        return cls(
            schema=schema,
            num_graphs=num_graphs,
            node_id=node_id,
            node_type=node_type,
            batch=batch,
            type_ptr=type_ptr,
            edge_index=edge_index,
            edge_type=edge_type,
            edge_attr=edge_attr,
            step_ptr=step_ptr,
            step_node=step_node,
            occurrence_ptr=ptr_of(occurrence_node, num_nodes),
            occurrence_node=occurrence_node,
            occurrence_position=occurrence_position,
            edges=edge_set(None, schema.num_relations),
            # Only those of `homogeneous_relations` occur: a bound of 4 unless some were appended.
            homogeneous=edge_set(same_type, schema.homogeneous_relations[-1] + 1),
            heterogeneous=edge_set(~same_type | is_self, schema.num_relations),
            step_edges=EdgeSet._from_sorted(
                step_node, step_batch, steps, None, 0, num_nodes, num_graphs
            ),
            id_bounds=tuple(
                int(node_id[a:b].max()) + 1 if b > a else 0 for a, b in pairwise(bounds)
            ),
            num_positions=max(
                int(occurrence_position.max()) + 1 if occurrence_position.numel() else 0,
                int(step_ptr.diff().max()) if num_graphs else 0,
            ),
        )

    @classmethod
    def collate(cls, graphs: Sequence[SequenceGraph]) -> SequenceGraph:
        """Many graphs as one, their histories in the order given.

        Collating the graphs of single histories gives what the builder gives for all at once.

        Raises:
            TypeError: if an element is not a :class:`SequenceGraph`.
            ValueError: if there is no graph, or schemas, devices, or the presence or shape of
                ``edge_attr`` differ.
        """
        graphs = list(graphs)
        if not graphs:
            raise ValueError("graphs: expected at least one graph, got none")
        first = graphs[0]
        for position, graph in enumerate(graphs):
            check.instance(f"graphs[{position}]", graph, SequenceGraph)
            for name in ("schema", "device"):
                expected, got = getattr(first, name), getattr(graph, name)
                if got != expected:
                    raise ValueError(f"graphs[{position}].{name}: expected {expected}, got {got}")
            widths = [
                None if g.edge_attr is None else g.edge_attr.shape[1:] for g in (first, graph)
            ]
            if None in widths and widths != [None, None]:
                raise ValueError(
                    f"graphs[{position}].edge_attr: expected every graph to have it, or none"
                )
            if widths[0] != widths[1]:
                raise ValueError(
                    f"graphs[{position}].edge_attr: expected rows of {list(widths[0] or ())}, as "
                    f"before, got rows of {list(widths[1] or ())}"
                )
        device = first.device
        node_type = torch.cat([graph.node_type for graph in graphs])
        # Nodes come graph by graph: a stable sort by type leaves them by type and then by graph.
        order = torch.argsort(node_type, stable=True)
        new_node = torch.empty_like(order)
        new_node[order] = torch.arange(order.shape[0], device=device)

        def shifted(tensors: list[Tensor], sizes: list[int]) -> Tensor:
            offsets = [0]
            for size in sizes[:-1]:
                offsets.append(offsets[-1] + size)
            return torch.cat([t + o for t, o in zip(tensors, offsets, strict=True)], dim=-1)

        nodes = [graph.num_nodes for graph in graphs]
        edge_index = new_node[shifted([graph.edge_index for graph in graphs], nodes)]
        by_centre = torch.argsort(edge_index[1], stable=True)
        occurrence_node = new_node[shifted([graph.occurrence_node for graph in graphs], nodes)]
        by_node = torch.argsort(occurrence_node, stable=True)
        steps = [graph.step_node.shape[0] for graph in graphs]
        step_ptr = shifted([graph.step_ptr[:-1] for graph in graphs], steps)
        edge_attr = None
        if first.edge_attr is not None:
            edge_attr = torch.cat([g.edge_attr for g in graphs if g.edge_attr is not None])
            edge_attr = edge_attr[by_centre]
        return cls._assemble(
            schema=first.schema,
            num_graphs=sum(graph.num_graphs for graph in graphs),
            node_id=torch.cat([graph.node_id for graph in graphs])[order],
            node_type=node_type[order],
            batch=shifted([g.batch for g in graphs], [g.num_graphs for g in graphs])[order],
            edge_index=edge_index[:, by_centre],
            edge_type=torch.cat([graph.edge_type for graph in graphs])[by_centre],
            edge_attr=edge_attr,
            step_ptr=torch.cat([step_ptr, step_ptr.new_tensor([sum(steps)])]),
            step_node=new_node[shifted([graph.step_node for graph in graphs], nodes)],
            occurrence_node=occurrence_node[by_node],
            occurrence_position=torch.cat([g.occurrence_position for g in graphs])[by_node],
        )

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return self.node_id.shape[0]

    @property
    def num_edges(self) -> int:
        """Number of edges, ``self`` counted once."""
        return self.edge_type.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the graph lives."""
        return self.node_id.device

    def steps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Node states back in the order of the histories.

        Args:
            x: ``[N, ...]``, one row per node.

        Returns:
            ``values [S, ...]``, the item node's row at each kept step, and ``offsets [B + 1]``.
        """
        check.rows("x", x, self.num_nodes, "one row per node")
        check.same_device("x", x, self.device, "the graph")
        return x[self.step_node], self.step_ptr

    def padded_steps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Node states as a padded batch of sequences, for a GRU or a Transformer on top.

        Args:
            x: ``[N, ...]``, one row per node.

        Returns:
            ``padded [B, L, ...]``, zeros after each history's end, ``L`` being
            ``num_positions``, and ``mask [B, L]``, true on steps: a Transformer's
            ``src_key_padding_mask`` is ``~mask``.
        """
        values, offsets = self.steps(x)
        length = torch.arange(self.num_positions, device=self.device)
        mask = length < offsets.diff().unsqueeze(1)
        step = (offsets[:-1].unsqueeze(1) + length).clamp(max=max(values.shape[0] - 1, 0))
        if values.shape[0] == 0:
            return values.new_zeros((*mask.shape, *values.shape[1:])), mask
        shape = (*mask.shape, *(1 for _ in values.shape[1:]))
        return values[step].masked_fill(~mask.view(shape), 0), mask

    def __len__(self) -> int:
        return self.num_graphs

    def __getitem__(self, index: SupportsIndex) -> SequenceGraph:
        """The graph of one history; negative indices count from the end."""
        if isinstance(index, bool) or not hasattr(index, "__index__"):
            raise TypeError(f"index: expected an int, got {type(index).__name__}")
        index = operator.index(index)
        if not -self.num_graphs <= index < self.num_graphs:
            raise IndexError(f"index: expected one of {self.num_graphs} graphs, got {index}")
        index %= self.num_graphs
        # Nodes are sorted by type and then by graph, edges by centre, occurrences by node: a
        # graph's are a run for each type.
        ends = torch.tensor([index, index + 1], device=self.device)
        types = pairwise(self.type_ptr.tolist())
        runs = torch.stack([a + torch.searchsorted(self.batch[a:b], ends) for a, b in types])
        nodes = _counted(runs)
        edges = _counted(self.edges.ptr[runs])
        occurrences = _counted(self.occurrence_ptr[runs])
        steps = self.step_ptr[index : index + 2]
        first, last = steps.tolist()
        return self._assemble(
            schema=self.schema,
            num_graphs=1,
            node_id=self.node_id[nodes],
            node_type=self.node_type[nodes],
            batch=torch.zeros_like(nodes),
            edge_index=torch.searchsorted(nodes, self.edge_index[:, edges]),
            edge_type=self.edge_type[edges],
            edge_attr=None if self.edge_attr is None else self.edge_attr[edges],
            step_ptr=steps - first,
            step_node=torch.searchsorted(nodes, self.step_node[first:last]),
            occurrence_node=torch.searchsorted(nodes, self.occurrence_node[occurrences]),
            occurrence_position=self.occurrence_position[occurrences],
        )

    def __iter__(self) -> Iterator[SequenceGraph]:
        return (self[index] for index in range(self.num_graphs))

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> SequenceGraph:
        """The same graph on another device (``type_ptr`` stays on the CPU)."""
        check.device("device", device)
        return _map_tensors(self, lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> SequenceGraph:
        """The same graph in page-locked memory, for a loader with ``pin_memory=True``."""
        return _map_tensors(self, Tensor.pin_memory)

    def __getstate__(self) -> dict[str, Any]:
        packed, fields_ = pack(self, EdgeSet)
        return {"packed": packed, "fields": fields_}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(unpack(state["packed"], state["fields"], EdgeSet))

    def validate(self) -> SequenceGraph:
        """Check every invariant, for graphs made or changed by hand.

        Returns:
            The graph itself.

        Raises:
            TypeError: if a field is of another type.
            ValueError: naming the field, the first offending index and what was expected.
        """
        from mmgraph._validate import validate_graph

        validate_graph(self)
        return self

    def __repr__(self) -> str:
        counts = self.type_ptr.diff().tolist()
        types = ", ".join(f"{n} {c}" for n, c in zip(self.schema.modalities, counts, strict=True))
        return (
            f"SequenceGraph({self.num_graphs} graphs, {self.num_nodes} nodes ({types}), "
            f"{self.num_edges} edges ({self.homogeneous.num_edges} homogeneous, "
            f"{self.heterogeneous.num_edges} heterogeneous), {self.device})"
        )


def ptr_of(sorted_or_not: Tensor, size: int) -> Tensor:
    """Row pointers ``[size + 1]`` of a list of row numbers, which need not be sorted."""
    ptr = sorted_or_not.new_zeros(size + 1)
    torch.cumsum(torch.bincount(sorted_or_not, minlength=size), 0, out=ptr[1:])
    return ptr


_Mapped = TypeVar("_Mapped", EdgeSet, SequenceGraph)


def _counted(runs: Tensor) -> Tensor:
    """The numbers of runs ``[R, 2]`` (begin, end), one run after another."""
    return torch.cat([torch.arange(a, b, device=runs.device) for a, b in runs.tolist()])


def _map_tensors(value: _Mapped, move: Callable[[Tensor], Tensor]) -> _Mapped:
    """Map every tensor but `type_ptr`; a tensor held twice is moved once and stays shared."""
    moved: dict[int, Tensor] = {}

    def mapped(owner: Any) -> Any:
        changes: dict[str, Any] = {}
        for field in fields(owner):
            member = getattr(owner, field.name)
            if isinstance(member, Tensor) and field.name != "type_ptr":
                if id(member) not in moved:
                    moved[id(member)] = move(member)
                changes[field.name] = moved[id(member)]
            elif isinstance(member, EdgeSet):
                changes[field.name] = mapped(member)
        return replace(owner, **changes)

    result: _Mapped = mapped(value)
    return result


def _check_relations(
    schema: GraphSchema, node_type: Tensor, batch: Tensor, edge_index: Tensor, edge_type: Tensor
) -> None:
    index, centre = edge_index
    check.first_bad(
        batch[index] != batch[centre],
        lambda e: (
            f"edge_index[:, {e}]: expected both ends in one graph, got graphs "
            f"{int(batch[index[e]])} and {int(batch[centre[e]])}"
        ),
    )
    types = range(schema.num_types)
    expected = torch.tensor(
        [[schema.cross_relation_id(a, b) if a != b else -1 for b in types] for a in types],
        device=edge_index.device,
    )[node_type[centre], node_type[index]]
    built_in = edge_type < schema.num_relations - len(schema.appended_relations)
    wrong = torch.where(expected < 0, edge_type > 3, edge_type != expected) & built_in
    wrong |= (edge_type == 0) & (index != centre)

    def message(e: int) -> str:
        ends = [schema.modalities[int(node_type[n])] for n in (centre[e], index[e])]
        return (
            f"edge_type[{e}]: relation {schema.relations[int(edge_type[e])]!r} does not fit an "
            f"edge of centre {int(centre[e])} ({ends[0]}) and neighbour {int(index[e])} ({ends[1]})"
        )

    check.first_bad(wrong, message)


def _check_steps(
    step_node: Tensor | None,
    step_ptr: Tensor | None,
    batch: Tensor,
    num_graphs: int,
    type_ptr: Tensor,
) -> tuple[Tensor, Tensor]:
    if step_node is None:
        if step_ptr is not None:
            raise ValueError("step_node: expected one node per step of step_ptr, got None")
        return batch.new_zeros(0), batch.new_zeros(num_graphs + 1)
    check.integers("step_node", step_node, (None,))
    check.index_range("step_node", step_node, int(type_ptr[1]))
    if step_ptr is None:
        if num_graphs != 1:
            raise ValueError(f"step_ptr: expected [{num_graphs + 1}] offsets, got None")
        step_ptr = batch.new_tensor([0, step_node.shape[0]])
    check.offsets("step_ptr", step_ptr, step_node.shape[0], num_graphs)
    step_node, step_ptr = step_node.long(), step_ptr.long()
    owner = torch.arange(num_graphs, device=batch.device).repeat_interleave(step_ptr.diff())
    check.first_bad(
        batch[step_node] != owner,
        lambda s: (
            f"step_node[{s}]: expected a node of graph {int(owner[s])}, "
            f"got node {int(step_node[s])} of graph {int(batch[step_node[s]])}"
        ),
    )
    return step_node, step_ptr
