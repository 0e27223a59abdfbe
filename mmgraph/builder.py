"""From histories to a graph, compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmgraph import _checks as check
from mmgraph.graph import EdgeSet, SequenceGraph
from mmgraph.schema import GraphSchema

Ints = NDArray[np.int64]
Histories = Sequence[Any] | Tensor | NDArray[Any] | tuple[Any, Any]


class SequenceGraphBuilder:
    r"""Histories in, a :class:`SequenceGraph` out.

    A history's nodes are its distinct items and, per further modality, the distinct codes of its
    steps. Inside a modality, the nodes of adjacent steps are joined: seen from the centre, the
    neighbour is ``next``, ``previous``, or ``both`` where the pair occurs in both directions.
    Nodes of different modalities that belong to the same step are matched with each other, both
    ways (``a>b``). Every node has one ``self`` edge and is never its own next. A missing modality
    has no node, and nothing is joined across it. This is the graph of MMSR (`Adaptive
    Multi-Modalities Fusion in Sequential Recommendation Systems`, CIKM 2023, section 3).

    Building is compiled and linear in the matches it visits; it starts no threads, so a builder
    works in the workers of a ``DataLoader``, forked or spawned. It pickles. The graph is made on
    the CPU.

    Args:
        schema: the modalities; the first is the item itself.
        codes: for each further modality, the items' codes, a LongTensor or an array
            ``[num_items, k]`` of numbers from 0, copied; -1 = missing, and a code that is repeated
            in a row counts once. ``k`` may differ between modalities. ``None``: every call brings
            the codes of its steps.
        num_items: items are below it; by default the number of rows of ``codes``, and without
            codes there is no bound.
        max_length: only the last ``max_length`` steps of a history count; all by default.

    Raises:
        TypeError: if an argument has another type, or codes are not integers.
        ValueError: if a modality is unknown, lacks its codes or is the first one, codes are not
            two-dimensional, are below -1, or disagree on the number of items.

    Example:
        >>> schema = GraphSchema(("item", "image"))
        >>> builder = SequenceGraphBuilder(schema, codes={"image": torch.tensor([[0], [1], [0]])})
        >>> builder([[0, 1, 2], [1]])
        SequenceGraph(2 graphs, 7 nodes (item 4, image 3), 21 edges (13 homogeneous,
        15 heterogeneous), cpu)
    """

    def __init__(
        self,
        schema: GraphSchema,
        codes: Mapping[str, Tensor] | None = None,
        *,
        num_items: int | None = None,
        max_length: int | None = None,
    ) -> None:
        check.instance("schema", schema, GraphSchema)
        if num_items is not None:
            num_items = check.positive("num_items", num_items)
        if max_length is not None:
            max_length = check.positive("max_length", max_length)
        self.schema = schema
        self.max_length = max_length
        self._others = schema.modalities[1:]
        tables: list[Ints] = []
        if codes is not None:
            self._check_names("codes", codes)
            missing = [name for name in self._others if name not in codes]
            if missing:
                raise ValueError(
                    f"codes: expected one entry for each of {self._others}, "
                    f"got none for {missing[0]!r}"
                )
            for name in self._others:
                if hasattr(codes[name], "codes"):
                    raise TypeError(
                        f"codes[{name!r}]: expected integers [items, k], got "
                        f"{type(codes[name]).__name__}; give its .codes"
                    )
                if getattr(codes[name], "ndim", 2) == 1:
                    raise ValueError(
                        f"codes[{name!r}]: expected 2 dimensions, [items, k], got shape "
                        f"{list(codes[name].shape)}; one code for each item is codes[:, None]"
                    )
                table = _array(f"codes[{name!r}]", codes[name], 2, "iu")
                _check_codes(f"codes[{name!r}]", table)
                if num_items is None:
                    num_items = table.shape[0]
                elif table.shape[0] != num_items:
                    raise ValueError(
                        f"codes[{name!r}]: expected one row per item, {num_items} in all, "
                        f"got shape {list(table.shape)}"
                    )
                tables.append(table)
        self.num_items = num_items
        self._has_codes = codes is not None or not self._others
        self._table, self._column_ptr = _joined(tables)
        types = range(schema.num_types)
        self._relation = np.array(
            [[schema.cross_relation_id(t, u) if t != u else 0 for u in types] for t in types],
            np.int64,
        )

    def __call__(
        self,
        histories: Histories,
        *,
        present: Mapping[str, Any] | None = None,
        codes: Mapping[str, Any] | None = None,
    ) -> SequenceGraph:
        """Build the graph of a batch of histories.

        Args:
            histories: a list of sequences of items (lists, tuples, arrays or tensors); a padded
                LongTensor ``[B, L]`` with -1 before or after each history; a jagged nested
                tensor; or a tuple ``(values, offsets [B + 1])`` of two tensors or arrays (which
                is what a tuple of two histories would be taken for). Items count from 0, which is
                no padding. An empty history is a graph without nodes.
            present: for any further modality, a boolean for each step of the histories: false
                where that modality is missing.
            codes: for any further modality, the codes of each step, which replace the items'
                codes: ``[steps, k]``, with any ``k``.

        What is given per step follows the histories as given, before ``max_length`` cuts them:
        all steps, history after history, in one tensor (padding left out), or in the form of the
        histories: a list with one entry per history, ``[B, L, ...]`` for a padded batch.

        Returns:
            The graph, on the CPU.

        Raises:
            TypeError: if something does not have the form above, or holds no integers.
            ValueError: if an item is out of range, padding stands inside a history, offsets do
                not fit the values, a modality is unknown or the first one, or what is given per
                step has another number of steps.
        """
        values, offsets, padding = _flattened(histories)
        self._check_items(values, offsets)
        table, column_ptr, item_rows = self._step_table(values, offsets, padding, present, codes)
        first, last = offsets[:-1], offsets[1:]
        if self.max_length is not None:
            first = np.maximum(first, last - self.max_length)
        return self._build(values, first, last, table, column_ptr, item_rows)

    def _build(
        self,
        values: Ints,
        first: Ints,
        last: Ints,
        table: Ints,
        column_ptr: Ints,
        item_rows: bool,
    ) -> SequenceGraph:
        from mmgraph._build import adjacency, fill

        rows = np.empty(0, np.int64) if item_rows else np.arange(values.size)
        table, column_ptr, relation = map(_read_only, (table, column_ptr, self._relation))
        found = adjacency(values, rows, first, last, table, column_ptr, item_rows)
        counts, bounds, ids, _, inside = found[:5]
        lengths = last - first
        num_graphs = first.size
        nodes, steps, occurrences, edges = ids.size, found[8].size, found[6].size, found[7].size
        homogeneous = int(inside.sum())
        heterogeneous = edges - homogeneous + nodes
        sizes = [
            *(nodes, nodes, nodes, nodes),
            *(num_graphs + 1, steps, steps, steps),
            *(nodes + 1, steps, steps, steps),
            *(nodes + 1, occurrences, occurrences),
            *(nodes + 1, (2, edges), edges, edges, edges),
            *(nodes + 1, *(homogeneous,) * 5),
            *(nodes + 1, *(heterogeneous,) * 5),
        ]
        made = [torch.empty(size, dtype=torch.int64, device="cpu") for size in sizes]
        fill(
            counts,
            *found[2:],
            lengths,
            relation,
            *(tensor.numpy() for tensor in made),
        )
        (node_id, node_type, batch, order) = made[:4]
        (step_ptr, step_node, step_batch, step_id) = made[4:8]
        (by_item_ptr, by_item_graph, by_item_node, by_item_step) = made[8:12]
        (occurrence_ptr, occurrence_node, occurrence_position) = made[12:15]
        (ptr, edge_index, edge_type, edge_id, reverse) = made[15:20]
        index, centre = edge_index

        def symmetric(num_relations: int, *parts: Tensor) -> EdgeSet:
            ptr, index, centre, relation, ids, back = parts
            transpose = EdgeSet(ptr, index, centre, back, order=order)
            return EdgeSet(ptr, index, centre, ids, relation, num_relations, transpose, order)

        num_relations = self.schema.num_relations
        type_ptr = torch.zeros(self.schema.num_types + 1, dtype=torch.int64, device="cpu")
        np.cumsum(counts.sum(axis=0), out=type_ptr.numpy()[1:])
        return SequenceGraph(
            schema=self.schema,
            num_graphs=num_graphs,
            node_id=node_id,
            node_type=node_type,
            batch=batch,
            type_ptr=type_ptr,
            edge_index=edge_index,
            edge_type=edge_type,
            step_ptr=step_ptr,
            step_node=step_node,
            occurrence_ptr=occurrence_ptr,
            occurrence_node=occurrence_node,
            occurrence_position=occurrence_position,
            edges=symmetric(num_relations, ptr, index, centre, edge_type, edge_id, reverse),
            homogeneous=symmetric(self.schema.homogeneous_relations[-1] + 1, *made[20:26]),
            heterogeneous=symmetric(num_relations, *made[26:32]),
            step_edges=EdgeSet(
                step_ptr,
                step_node,
                step_batch,
                step_id,
                transpose=EdgeSet(
                    by_item_ptr,
                    by_item_graph,
                    by_item_node,
                    by_item_step,
                    sources=None if num_graphs == nodes else num_graphs,
                ),
            ),
            id_bounds=tuple(bounds.tolist()),
            num_positions=int(lengths.max()) if num_graphs else 0,
        )

    def _step_table(
        self,
        values: Ints,
        offsets: Ints,
        padding: NDArray[np.bool_] | None,
        present: Mapping[str, Any] | None,
        codes: Mapping[str, Any] | None,
    ) -> tuple[Ints, Ints, bool]:
        """The codes to read: a row per item, or per step where the call brings anything."""
        present = {} if present is None else present
        codes = {} if codes is None else codes
        for name, given in (("present", present), ("codes", codes)):
            self._check_names(name, given)
        if not self._has_codes:
            missing = [name for name in self._others if name not in codes]
            if missing:
                raise ValueError(
                    f"codes: the builder has none, so expected the steps' codes for each of "
                    f"{self._others}, got none for {missing[0]!r}"
                )
        if not present and not codes:
            return self._table, self._column_ptr, True
        tables = []
        for number, name in enumerate(self._others):
            if name in codes:
                table = _per_step(
                    f"codes[{name!r}]", codes[name], offsets, padding, 2, "[steps, k]"
                )
                _check_codes(f"codes[{name!r}]", table)
            else:
                columns = slice(*self._column_ptr[number : number + 2])
                table = self._table[values, columns]
            if name in present:
                mask = _per_step(
                    f"present[{name!r}]", present[name], offsets, padding, 1, "[steps]"
                )
                table = np.where(mask[:, None], table, -1)
            tables.append(table)
        return *_joined(tables), False

    def _check_names(self, argument: str, given: Mapping[str, Any]) -> None:
        if not isinstance(given, Mapping):
            raise TypeError(
                f"{argument}: expected a mapping from modalities, got {type(given).__name__}"
            )
        for name in given:
            if name == self.schema.modalities[0]:
                raise ValueError(
                    f"{argument}[{name!r}]: the first modality is the sequence's own and always "
                    f"there; expected one of {self._others}"
                )
            if name not in self._others:
                raise ValueError(
                    f"{argument}[{name!r}]: no such modality; expected one of {self._others}"
                )

    def _check_items(self, values: Ints, offsets: Ints) -> None:
        if not values.size:
            return
        # One more than an id must be a number, too: it is what a graph's `id_bounds` hold.
        bound = _LARGEST if self.num_items is None else self.num_items
        if values.min() >= 0 and values.max() < bound:
            return
        bad = (values < 0) | (values >= bound)
        step = int(bad.argmax())
        history = int(np.searchsorted(offsets, step, side="right")) - 1
        within = step - int(offsets[history])
        wanted = "0 or more" if values[step] < 0 and self.num_items is None else f"0 to {bound - 1}"
        raise ValueError(
            f"histories[{history}], step {within}: expected an item from {wanted}, "
            f"got {int(values[step])}"
        )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.schema}, num_items={self.num_items}, "
            f"max_length={self.max_length})"
        )


def _check_codes(name: str, table: Ints) -> None:
    if table.size and (table.min() < -1 or table.max() == _LARGEST):
        row, column = np.argwhere((table < -1) | (table == _LARGEST))[0]
        raise ValueError(
            f"{name}[{row}, {column}]: expected a code of 0 or more, below {_LARGEST}, or -1 for "
            f"a missing one, got {int(table[row, column])}"
        )


def _joined(tables: list[Ints]) -> tuple[Ints, Ints]:
    """All modalities' codes side by side in a copy, and where each modality's columns begin."""
    widths = [table.shape[1] for table in tables]
    joined = np.concatenate(tables, axis=1) if tables else np.zeros((0, 0), np.int64)
    return np.ascontiguousarray(joined), np.cumsum([0, *widths])


def _read_only(array: Ints) -> Ints:
    """As compiled code takes every array that it only reads.

    What was compiled for one that may be written takes no other, such as the mapped file that
    joblib makes of a large table for its workers.
    """
    view = array.view()
    view.flags.writeable = False
    return view


def _flattened(histories: Histories) -> tuple[Ints, Ints, NDArray[np.bool_] | None]:
    """Histories in any of their forms as values, offsets and, of a padded batch, its steps."""
    if isinstance(histories, tuple):
        if len(histories) != 2 or not all(isinstance(x, Tensor | np.ndarray) for x in histories):
            kinds = ", ".join(type(x).__name__ for x in histories[:3])
            kinds += ", ..." * (len(histories) > 3)
            raise TypeError(
                "histories: a tuple is (values, offsets), two tensors or arrays, got one of "
                f"{len(histories)} entries ({kinds}); give several histories as a list"
            )
        values = _array("values", histories[0], 1, "iu")
        offsets = _array("offsets", histories[1], 1, "iu")
        # As numbers: an operation of PyTorch could start its threads.
        check.segment_bounds("offsets", torch.from_numpy(offsets), values.size)
        return values, offsets, None
    if isinstance(histories, Tensor) and histories.is_nested:
        return *_unnested("histories", histories, 1), None
    if isinstance(histories, Tensor | np.ndarray):
        return _unpadded(_array("histories", histories, 2, "iu"))
    if isinstance(histories, str | bytes | bytearray) or not isinstance(histories, Sequence):
        raise TypeError(
            "histories: expected a list of sequences, a padded tensor, a jagged nested tensor or "
            f"a tuple (values, offsets), got {type(histories).__name__}"
        )
    return *_listed("histories", histories, 1, "iu"), None


_KINDS = {"iu": "integers", "b": "booleans"}
_LARGEST = np.iinfo(np.int64).max


def _array(name: str, value: Any, dim: int, kinds: str) -> NDArray[Any]:
    """A contiguous, writable array of one of NumPy's kinds, without a copy where it is one."""
    if isinstance(value, Tensor):
        if value.is_nested or value.layout != torch.strided:
            kind = "nested" if value.is_nested else str(value.layout)
            raise TypeError(f"{name}: expected a plain tensor, got a {kind} one")
        if value.numel() and (value.is_floating_point() or value.is_complex()):
            kind = str(value.dtype).removeprefix("torch.")
            raise TypeError(f"{name}: expected {_KINDS[kinds]}, got {kind}")
        value = (value if value.numel() else value.bool()).detach().cpu().numpy()
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected a plain array, got a masked one")
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{name}: expected {dim} dimensions of even sizes: {error}") from None
    if array.size == 0:  # as of `torch.tensor([])`, whose type says nothing
        array = array.astype(np.bool_ if kinds == "b" else np.int64)
    if array.dtype.kind not in kinds:
        raise TypeError(f"{name}: expected {_KINDS[kinds]}, got {array.dtype}")
    if array.ndim != dim:
        raise ValueError(f"{name}: expected {dim} dimensions, got shape {list(array.shape)}")
    if kinds == "iu":
        if array.dtype == np.uint64 and array.max(initial=0) > _LARGEST:
            place = np.unravel_index(int((array > _LARGEST).argmax()), array.shape)
            raise ValueError(
                f"{name}[{', '.join(map(str, place))}]: expected at most {_LARGEST}, "
                f"got {array[place]}"
            )
        array = array.astype(np.int64, copy=False)
    required: NDArray[Any] = np.require(array, requirements=["C", "W"])
    return required


def _unpadded(padded: Ints) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    mask = padded != -1
    # One side only: a row is one run of steps that begins or ends with the row.
    starts = mask.copy()
    starts[:, 1:] &= ~mask[:, :-1]
    runs = starts.sum(axis=1)
    if padded.shape[1]:
        inner = (runs > 1) | ((runs == 1) & ~mask[:, 0] & ~mask[:, -1])
        if inner.any():
            row = int(inner.argmax())
            where = "between steps" if runs[row] > 1 else "on both sides"
            raise ValueError(f"histories[{row}]: expected padding (-1) on one side, got it {where}")
    return padded[mask], np.concatenate([[0], mask.sum(axis=1).cumsum()]), mask


def _unnested(name: str, nested: Any, dim: int, kinds: str = "iu") -> tuple[Any, Ints]:
    """A nested tensor, whose own methods `Tensor` does not declare, as one array and offsets."""
    if nested.layout != torch.jagged:
        raise TypeError(
            f"{name}: expected a nested tensor with layout=torch.jagged, got {nested.layout}"
        )
    if nested.dim() != dim + 1:
        raise ValueError(f"{name}: expected {dim + 1} dimensions, got {nested.dim()}")
    if isinstance(nested.size(1), int):
        raise ValueError(f"{name}: expected steps in the dimension that is jagged, the second")
    # Not by unbind, whose operations could start PyTorch's threads.
    values = _array(name, nested.values(), dim, kinds)
    starts, holes = nested.offsets().cpu().numpy(), nested.lengths()
    lengths = np.diff(starts) if holes is None else holes.cpu().numpy()
    ends = np.concatenate([[0], lengths.cumsum()])
    if holes is None:
        return values[starts[0] : starts[-1]], ends
    return values[
        np.arange(ends[-1]) + np.repeat(starts[: lengths.size] - ends[:-1], lengths)
    ], ends


def _listed(name: str, rows: Sequence[Any], dim: int, kinds: str) -> tuple[Any, Ints]:
    """A list of sequences, one per history, as one array and offsets."""
    if dim == 1 and all(type(row) in (list, tuple) for row in rows):
        lengths = [len(row) for row in rows]
        flat: list[Any] = list(chain.from_iterable(rows))
        try:
            array = np.array(flat)
        except (ValueError, OverflowError):
            array = np.empty(0, object)
        fits = array.dtype.kind in kinds and array.dtype != np.uint64
        if not flat or (array.ndim == 1 and fits):
            array = array.astype(np.bool_ if kinds == "b" else np.int64, copy=False)
            return array, np.cumsum([0, *lengths])
    # Arrays, tensors, or something wrong: row by row, to name the first that is.
    arrays: list[NDArray[Any]] = []
    for number, row in enumerate(rows):
        if (
            not isinstance(row, Sequence | np.ndarray | Tensor)
            or isinstance(row, str | bytes | bytearray)
            or getattr(row, "ndim", 1) == 0
        ):
            raise TypeError(
                f"{name}[{number}]: expected a sequence of steps, got {type(row).__name__}"
            )
        if isinstance(row, Sequence):
            row = [step.tolist() if isinstance(step, Tensor) else step for step in row]
        # An empty history has no steps to see a width in.
        array = _array(f"{name}[{number}]", row, dim if len(row) else np.ndim(row), kinds)
        if len(array):
            if arrays and array.shape[1:] != arrays[0].shape[1:]:
                raise ValueError(
                    f"{name}[{number}]: expected rows of {list(arrays[0].shape[1:])}, as before, "
                    f"got shape {list(array.shape)}"
                )
            arrays.append(array)
    values = np.concatenate(arrays) if arrays else np.empty((0,) * dim, np.int64)
    return values.astype(np.bool_ if kinds == "b" else np.int64, copy=False), np.cumsum(
        [0, *map(len, rows)]
    )


def _per_step(
    name: str,
    value: Any,
    offsets: Ints,
    padding: NDArray[np.bool_] | None,
    dim: int,
    shape: str,
) -> NDArray[Any]:
    """What is given per step, flat or in the form of the histories, as one row per step."""
    kinds = "b" if dim == 1 else "iu"
    steps = int(offsets[-1])
    array: NDArray[Any]
    lengths: Ints | None = None
    if isinstance(value, Tensor) and value.is_nested:
        array, ends = _unnested(name, value, dim, kinds)
        lengths = np.diff(ends)
    elif isinstance(value, Tensor | np.ndarray):
        if padding is not None and value.ndim == dim + 1:
            if tuple(value.shape[:2]) != padding.shape:
                raise ValueError(
                    f"{name}: expected the padded histories' {list(padding.shape)} as its first "
                    f"sizes, got shape {list(value.shape)}"
                )
            array = np.ascontiguousarray(_array(name, value, dim + 1, kinds)[padding])
        else:
            array = _array(name, value, dim, kinds)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        flat = dim == 1 and all(isinstance(step, int | np.integer | np.bool_) for step in value)
        if flat and (value or not steps):
            array = _array(name, value, 1, kinds)
        else:
            array, ends = _listed(name, value, dim, kinds)
            lengths = np.diff(ends)
    else:
        raise TypeError(f"{name}: expected a tensor {shape}, got {type(value).__name__}")
    if lengths is not None:
        wanted = np.diff(offsets)
        if lengths.size != wanted.size:
            raise ValueError(
                f"{name}: expected one entry per history, {wanted.size} in all, got {lengths.size}"
            )
        if (lengths != wanted).any():
            b = int((lengths != wanted).argmax())
            raise ValueError(
                f"{name}[{b}]: expected one row per step, {wanted[b]} in all, got {lengths[b]}"
            )
    if len(array) != steps:
        raise ValueError(
            f"{name}: expected {shape}, one row for each of the {steps} steps given, "
            f"got shape {list(array.shape)}"
        )
    return array
