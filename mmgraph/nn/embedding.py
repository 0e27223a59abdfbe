"""From a graph's nodes to their first states."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import Linear, Module, ModuleDict, Parameter
from torch.nn import functional as F

from mmgraph import _checks as check
from mmgraph.graph import SequenceGraph
from mmgraph.nn._init import Factory, uniform_
from mmgraph.nn._inputs import check_schema
from mmgraph.schema import GraphSchema


class CodeCentres:
    r"""Says that a modality's codes are embedded by a learned table that starts from the centres.

    The centres are scaled by one factor into :math:`\pm 1/\sqrt{\text{channels}}`, the range of
    all other weights, as in MMSR's released code.

    Args:
        centres: ``[num_codes, channels]``, such as :attr:`mmgraph.ModalityCodebook.centres`.

    Raises:
        TypeError: if the centres are not floating-point numbers.
        ValueError: if they are not a matrix of finite numbers.
    """

    def __init__(self, centres: Tensor) -> None:
        _finite_matrix("centres", centres)
        self.centres = centres.detach()


class FrozenFeatures:
    r"""Says that a modality's nodes are fixed feature vectors behind a learned projection.

    .. math::
        e_n = W_m f_n

    With :attr:`codes` for the builder each item's own vector is its node: MMSR without codes. A row
    of NaN is a missing vector, which is no node there; where an id leads to it, it embeds as zeros.

    Args:
        features: ``[num_rows, width]``; the embedding keeps them as a buffer outside of its
            ``state_dict``, which ``reset_parameters`` and ``load_state_dict`` fill again after
            ``to_empty``. ``DistributedDataParallel`` sends buffers to all processes in each step
            unless it is told not to, by ``forward_sync_buffers=False`` or, in a PyTorch that does
            not know this, ``broadcast_buffers=False``.

    Attributes:
        codes: LongTensor ``[num_rows, 1]`` on the CPU, each row's own number, -1 where its vector
            is missing. It is what :class:`mmgraph.SequenceGraphBuilder` takes as ``codes``.

    Raises:
        TypeError: if the features are not floating-point numbers.
        ValueError: if they are not a matrix, or a row is neither finite nor missing as a whole.
    """

    def __init__(self, features: Tensor) -> None:
        _finite_matrix("features", features, missing_rows=True)
        self.features = features.detach().nan_to_num(0.0)
        own = torch.arange(features.shape[0], device="cpu")
        self.codes = own.masked_fill(features.isnan().any(dim=1).cpu(), -1).unsqueeze(1)


class NodeEmbedding(Module):
    r"""The first state of every node: what it is, of which type, and where it occurs.

    .. math::
        h_i^0 = W [e_i ; e_{type(i)} ; e_{pos(i)}]

    where :math:`e_{pos(i)}` is the mean over every position at which the node occurs. The product
    is taken apart, :math:`W = [W_e\, W_t\, W_p]`, so that types and positions are projected once
    per table row.

    Source: Hu et al., "Adaptive Multi-Modalities Fusion in Sequential Recommendation Systems",
    CIKM 2023, arXiv 2308.15980.

    Args:
        schema: the node types.
        tables: per modality the number of ids (a learned table), :class:`CodeCentres` (a learned
            table that starts from them), or :class:`FrozenFeatures` (a learned projection).
        channels: size of a node's state.
        max_length: number of positions; may be ``None`` without position embeddings.
        use_type: whether to embed the type.
        use_position: whether to embed positions.
        device: of the parameters.
        dtype: of the parameters.

    Attributes:
        tables: a module per modality, in the schema's order. It is called as ``table(ids)`` for
            the rows ``[len(ids), channels]`` of some ids and as ``table(None)`` for all; another
            with that call and a ``reset_parameters`` may take its place. A graph's ids are held
            against its ``num_ids``, where it has one.
        type_embedding: ``[T, channels]``, or ``None``.
        position_embedding: ``[max_length, channels]``, or ``None``.
        weight: :math:`W`, ``[channels, 3 channels]`` (``[out, in]``), narrower without types or
            positions.

    Shape:
        a :class:`~mmgraph.SequenceGraph` to ``[num_nodes, channels]``.

    Note:
        The position embeddings have no second and no forward-mode derivatives: their mean is
        PyTorch's ``embedding_bag``.

        Under ``torch.compile`` a graph's ids and positions are not held against the tables, and
        every table is read for every node: leave this module out of what is compiled where that
        matters.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if a modality has no table or a table no modality, the centres' width is not
            ``channels``, a graph is on another device, or its ids or positions lie beyond the
            tables.
    """

    def __init__(
        self,
        schema: GraphSchema,
        tables: Mapping[str, int | CodeCentres | FrozenFeatures],
        channels: int,
        max_length: int | None = None,
        *,
        use_type: bool = True,
        use_position: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check.instance("schema", schema, GraphSchema)
        channels = check.positive("channels", channels)
        check.boolean("use_type", use_type)
        check.boolean("use_position", use_position)
        if not isinstance(tables, Mapping):
            raise TypeError(
                f"tables: expected a mapping from modalities, got {type(tables).__name__}"
            )
        if set(tables) != set(schema.modalities):
            raise ValueError(
                f"tables: expected one for each of {schema.modalities}, got {tuple(tables)}"
            )
        if max_length is not None:
            max_length = check.positive("max_length", max_length)
        elif use_position:
            raise ValueError("max_length: expected the number of positions, got None")
        factory = Factory(device=device, dtype=dtype)
        self.schema, self.channels, self.max_length = schema, channels, max_length
        self.tables = ModuleDict(
            {_key(m): _table(m, tables[m], channels, factory) for m in schema.modalities}
        )
        self.type_embedding = (
            Parameter(torch.empty(schema.num_types, channels, **factory)) if use_type else None
        )
        self.position_embedding = (
            Parameter(torch.empty(max_length, channels, **factory))
            if use_position and max_length is not None
            else None
        )
        parts = 1 + use_type + use_position
        self.weight = Parameter(torch.empty(channels, parts * channels, **factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew; tables with centres or features start from them again."""
        for table in self._tables.values():
            table.reset_parameters()
        for parameter in (self.type_embedding, self.position_embedding, self.weight):
            if parameter is not None:
                uniform_(parameter, self.channels)

    def table(self, modality: str) -> Tensor:
        """What every id of a modality is embedded by, before :math:`W`: ``[num_ids, channels]``.

        Raises:
            ValueError: if there is no such modality.
        """
        self.schema.type_id(modality)
        rows: Tensor = self.tables[_key(modality)](None)
        return rows

    def forward(self, graph: SequenceGraph) -> Tensor:
        self._check(graph)
        weights = list(torch.split(self.weight, self.channels, dim=1))
        x = F.linear(self._rows(graph), weights.pop(0))
        if self.type_embedding is not None:
            x = x + F.linear(self.type_embedding, weights.pop(0)).index_select(0, graph.node_type)
        if self.position_embedding is not None:
            x = x + F.embedding_bag(
                graph.occurrence_position,
                F.linear(self.position_embedding, weights.pop(0)),
                graph.occurrence_ptr,
                mode="mean",
                include_last_offset=True,
            )
        return x

    @property
    def _tables(self) -> dict[str, _Learned | _Projected]:
        return cast("dict[str, _Learned | _Projected]", self.tables)

    def _rows(self, graph: SequenceGraph) -> Tensor:
        """Every node's row of its type's table."""
        tables = self._tables.values()
        if not torch.compiler.is_compiling():
            bounds = graph.type_ptr.tolist()
            ends = zip(tables, bounds[:-1], bounds[1:], strict=True)
            return torch.cat([table(graph.node_id[a:b]) for table, a, b in ends])
        # The slices' sizes would be compiled in: let every table be read for every node.
        rows = self.weight.new_zeros(graph.num_nodes, self.channels)
        for node_type, table in enumerate(tables):
            mine = graph.node_type == node_type
            rows = torch.where(mine.unsqueeze(1), table(graph.node_id.where(mine, 0)), rows)
        return rows

    def _check(self, graph: SequenceGraph) -> None:
        check_schema(graph, self.schema)
        check.same_device("graph", graph.node_id, self.weight.device, "the embedding")
        if torch.compiler.is_compiling():  # a batch's bounds would be compiled in
            return
        tables = zip(self.schema.modalities, self._tables.values(), graph.id_bounds, strict=True)
        for modality, table, bound in tables:
            size = getattr(table, "num_ids", None)
            if size is not None and bound > size:
                raise ValueError(
                    f"graph: expected {modality} ids below {size}, the size of its table, "
                    f"got {bound - 1}"
                )
        if self.position_embedding is not None and graph.num_positions > (self.max_length or 0):
            raise ValueError(
                f"graph: expected histories of at most max_length = {self.max_length} steps, got "
                f"one of {graph.num_positions}; cut them by the builder's max_length"
            )

    def extra_repr(self) -> str:
        return (
            f"channels={self.channels}, max_length={self.max_length}, "
            f"use_type={self.type_embedding is not None}, "
            f"use_position={self.position_embedding is not None}"
        )


class _Learned(Module):
    """A learned row per id, which may start from code centres."""

    def __init__(
        self, num_ids: int, channels: int, centres: Tensor | None, factory: Factory
    ) -> None:
        super().__init__()
        self.num_ids, self.channels = num_ids, channels
        self.weight = Parameter(torch.empty(num_ids, channels, **factory))
        self._start = centres

    def reset_parameters(self) -> None:
        if self._start is None:
            uniform_(self.weight, self.channels)
            return
        largest = self._start.abs().max().clamp(min=torch.finfo(self._start.dtype).tiny)
        with torch.no_grad():
            self.weight.copy_(self._start / largest / math.sqrt(self.channels))

    def forward(self, ids: Tensor | None) -> Tensor:
        return self.weight if ids is None else F.embedding(ids, self.weight)

    def extra_repr(self) -> str:
        return f"{self.num_ids}, {self.channels}{'' if self._start is None else ', from centres'}"


class _Projected(Module):
    """Frozen rows behind a learned projection."""

    features: Tensor

    def __init__(self, source: FrozenFeatures, channels: int, factory: Factory) -> None:
        super().__init__()
        self.num_ids, width = source.features.shape
        self.projection = Linear(width, channels, bias=False, **factory)
        self._start = source.features
        features = source.features.to(self.projection.weight)
        self.register_buffer("features", features, persistent=False)
        self.register_load_state_dict_post_hook(_refill)  # type: ignore[no-untyped-call]

    def reset_parameters(self) -> None:
        self.projection.reset_parameters()
        with torch.no_grad():
            self.features.copy_(self._start)

    def forward(self, ids: Tensor | None) -> Tensor:
        rows = self.features if ids is None else self.features[ids]
        projected: Tensor = self.projection(rows)
        return projected


def _refill(module: Module, _: object) -> None:
    """Give a module its features back, which ``to_empty`` took and no ``state_dict`` holds."""
    assert isinstance(module, _Projected)
    like = module.projection.weight.detach()
    found = module.features
    if (found.device, found.dtype) != (like.device, like.dtype):  # loaded by `assign=True`
        module.features = module._start.to(like)
    else:
        found.copy_(module._start)


def _key(modality: str) -> str:
    """A modality's name as ModuleDict takes it: without a dot, and none of its own attributes."""
    if "." in modality or hasattr(ModuleDict(), modality):
        return ">" + modality.replace(".", ">")  # which stands in no other name
    return modality


def _table(
    modality: str,
    source: int | CodeCentres | FrozenFeatures,
    channels: int,
    factory: Factory,
) -> _Learned | _Projected:
    if isinstance(source, FrozenFeatures):
        dtype = factory["dtype"] or torch.get_default_dtype()
        _finite_matrix(f"tables[{modality!r}]", source.features.to(dtype))
        return _Projected(source, channels, factory)
    if isinstance(source, CodeCentres):
        num_ids, width = source.centres.shape
        if width != channels:
            raise ValueError(
                f"tables[{modality!r}]: expected centres of width channels = {channels}, got "
                f"{width}; fit the codebook with components={channels}"
            )
        return _Learned(num_ids, channels, source.centres, factory)
    if not isinstance(source, int | np.integer):
        raise TypeError(
            f"tables[{modality!r}]: expected a number of ids, CodeCentres or FrozenFeatures, got "
            f"{type(source).__name__}"
        )
    num_ids = check.positive(f"tables[{modality!r}]", source)
    return _Learned(num_ids, channels, None, factory)


def _finite_matrix(name: str, value: Tensor, *, missing_rows: bool = False) -> None:
    check.floating(name, value)
    check.shape(name, value, (None, None))
    if value.shape[0] == 0:
        raise ValueError(f"{name}: expected at least one row, got shape {list(value.shape)}")
    bad = ~value.isfinite().all(dim=1)
    if missing_rows:
        bad &= ~value.isnan().all(dim=1)
    expected = "finite numbers" + (" or a row of NaN" if missing_rows else "")
    check.first_bad(bad, lambda i: f"{name}[{i}]: expected {expected}, got {value[i].tolist()[:8]}")
