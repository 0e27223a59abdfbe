"""Dual attention: over the edges inside each modality, and over those between modalities."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from mmgraph import _checks as check
from mmgraph.graph import EdgeSet, SequenceGraph
from mmgraph.kernels import edge_attention, segment_matmul
from mmgraph.nn._edges import edge_dropout
from mmgraph.nn._init import Factory, uniform_
from mmgraph.nn._inputs import check_schema, check_states
from mmgraph.schema import GraphSchema

Scores = TypeVar("Scores")


class _TypedAttention(Module, Generic[Scores]):
    """What the two attentions share: their sizes, the typed products and the call."""

    scores_on_values = False
    """Whether ``project_scores`` and ``project_values`` are one product; a subclass in which
    either of them is another says so itself where they still are."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        says = next(base for base in cls.__mro__ if "scores_on_values" in vars(base))
        steps = ("project_scores", "project_values")
        if any(getattr(cls, step) is not getattr(says, step) for step in steps):
            cls.scores_on_values = False

    def __init__(
        self,
        channels: int,
        schema: GraphSchema,
        heads: int,
        value: Parameter | None,
        negative_slope: float,
        dropout: float,
        factory: Factory,
    ) -> None:
        super().__init__()
        check.heads(channels, heads)
        check.instance("schema", schema, GraphSchema)
        check.number("negative_slope", negative_slope)
        check.probability("dropout", dropout)
        self.channels, self.schema, self.heads = channels, schema, heads
        self.negative_slope, self.dropout = negative_slope, dropout
        self._owns_value = value is None
        if value is None:
            value = Parameter(torch.empty(schema.num_types, channels, channels, **factory))
        check.instance("value", value, Parameter)
        check.shape("value", value, (schema.num_types, channels, channels), "types, in, out")
        self.value = value

    def project_values(self, value_state: Tensor, graph: SequenceGraph) -> Tensor:
        """``W_V,t x``: ``[N, channels]`` to ``[N, heads, channels / heads]``."""
        return self._project(value_state, self.value, graph)

    def project_scores(self, score_state: Tensor, graph: SequenceGraph) -> Scores:
        raise NotImplementedError

    def attend(
        self, scores: Scores, values: Tensor, graph: SequenceGraph, return_attention: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        raise NotImplementedError

    def forward(
        self,
        score_state: Tensor,
        value_state: Tensor | SequenceGraph | None = None,
        graph: SequenceGraph | None = None,
        return_attention: bool = False,
    ) -> Any:
        check.boolean("return_attention", return_attention)
        if graph is None:  # called as a block
            value_state, graph = None, cast(SequenceGraph, value_state)
        check.instance("graph", graph, SequenceGraph)
        scores = self.project_scores(score_state, graph)
        aggregated = score_state if value_state is None else cast(Tensor, value_state)
        if self.scores_on_values and aggregated is score_state:
            values: Any = scores
        else:
            values = self.project_values(aggregated, graph)
        return self.attend(scores, values, graph, return_attention)

    def _project(self, x: Tensor, weight: Tensor, graph: SequenceGraph) -> Tensor:
        check_schema(graph, self.schema)
        check_states(x, graph, self.channels)
        return segment_matmul(x, graph.type_ptr, weight).view(-1, self.heads, self._head_channels)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        edges: EdgeSet,
        relation_weight: Tensor | None,
        return_attention: bool,
    ) -> Tensor | tuple[Tensor, Tensor]:
        out, alpha = edge_attention(
            query,
            key,
            value,
            edges,
            relation_weight=relation_weight,
            negative_slope=self.negative_slope,
            edge_scale=edge_dropout(self, value, edges),
            return_weights=True,
        )
        out = out.flatten(1)
        return (out, alpha) if return_attention else out

    @property
    def _head_channels(self) -> int:
        return self.channels // self.heads

    def extra_repr(self) -> str:
        return (
            f"channels={self.channels}, heads={self.heads}, modalities={self.schema.modalities}, "
            f"negative_slope={self.negative_slope}, dropout={self.dropout}"
        )


class HomogeneousAttention(_TypedAttention[Tensor]):
    r"""Attention inside each modality, one scoring vector per relation (MMSR, Eq. 12 and 14).

    .. math::
        e_{ij} &= a_{r_{ij}} \cdot (W_{V,t_i} s_i \odot W_{V,t_j} s_j) \\
        o_i &= \sum_{j \in \mathcal N_{ho}(i)}
            \mathrm{softmax}_j\big(\mathrm{LeakyReLU}(e_{ij})\big)\, W_{V,t_j} v_j

    over the graph's homogeneous edges, for a state ``s`` that is scored on and a state ``v`` that
    is aggregated. Channels are split over ``heads``. Called as ``attention(s, v, graph)``; as a
    block, ``attention(x, graph)``, where both are one; or in three steps: :meth:`project_scores`,
    :meth:`project_values`, :meth:`attend`.

    Source: Hu et al., "Adaptive Multi-Modalities Fusion in Sequential Recommendation Systems",
    CIKM 2023, arXiv 2308.15980.

    Args:
        channels: size of a node's state.
        schema: node types and relations.
        heads: number of heads, a divisor of ``channels``.
        value: the value matrices of another attention, to share them; its own by default. Like
            any tied parameters, they come apart in ``to_empty`` and in
            ``load_state_dict(assign=True)``: tie them again afterwards.
        negative_slope: slope of the LeakyReLU.
        dropout: probability of dropping an edge's weight in training.
        device: of the parameters.
        dtype: of the parameters.

    Attributes:
        value: ``[T, channels, channels]``, a matrix ``[in, out]`` per node type: ``x @ value[t]``.
        relation: ``[R, heads, channels / heads]``, a vector per homogeneous relation: ``self``,
            ``next``, ``previous``, ``both``, then appended ones.

    Shape:
        ``score_state`` and ``value_state``, the same by default, ``[N, channels]`` to
        ``[N, channels]``; with ``return_attention=True`` also the weights ``[E', heads]`` in the
        order of ``graph.homogeneous``.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if a size does not fit, or the graph's schema is another one.
    """

    scores_on_values = True

    def __init__(
        self,
        channels: int,
        schema: GraphSchema,
        heads: int = 1,
        *,
        value: Parameter | None = None,
        negative_slope: float = 0.1,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        factory = Factory(device=device, dtype=dtype)
        super().__init__(channels, schema, heads, value, negative_slope, dropout, factory)
        relations = len(schema.homogeneous_relations)
        self.relation = Parameter(torch.empty(relations, heads, self._head_channels, **factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew; shared value matrices are left to their owner."""
        uniform_(self.relation, self.channels)
        if self._owns_value:
            uniform_(self.value, self.channels)

    def project_scores(self, score_state: Tensor, graph: SequenceGraph) -> Tensor:
        """``W_V,t s``: ``[N, channels]`` to ``[N, heads, channels / heads]``."""
        return self.project_values(score_state, graph)

    def attend(
        self, scores: Tensor, values: Tensor, graph: SequenceGraph, return_attention: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Score the projected states, and sum the projected values by the weights."""
        check.boolean("return_attention", return_attention)
        edges, relation = graph.homogeneous, self._by_relation_id()
        return self._attend(scores, scores, values, edges, relation, return_attention)

    def _by_relation_id(self) -> Tensor:
        """``relation`` with rows of zeros at the ids of relations between modalities."""
        appended = len(self.schema.appended_relations)
        if not appended:
            return self.relation
        between = self.schema.num_relations - self.relation.shape[0]
        built_in, own = self.relation[:-appended], self.relation[-appended:]
        gap = self.relation.new_zeros(between, *self.relation.shape[1:])
        return torch.cat([built_in, gap, own])


class HeterogeneousAttention(_TypedAttention[tuple[Tensor, Tensor]]):
    r"""Attention between modalities, by queries and keys per type (MMSR, Eq. 13 and 14).

    .. math::
        e_{ij} &= (W_{Q,t_i} s_i) \cdot (W_{K,t_j} s_j) \\
        o_i &= \sum_{j \in \mathcal N_{he}(i)}
            \mathrm{softmax}_j\big(\mathrm{LeakyReLU}(e_{ij})\big)\, W_{V,t_j} v_j

    over the graph's heterogeneous edges (``self`` among them), without :math:`1/\sqrt d`, for a
    state ``s`` that is scored on and a state ``v`` that is aggregated. Channels are split over
    ``heads``. Called as ``attention(s, v, graph)``; as a block, ``attention(x, graph)``, where both
    are one; or in three steps: :meth:`project_scores`, :meth:`project_values`, :meth:`attend`.

    Source: Hu et al., "Adaptive Multi-Modalities Fusion in Sequential Recommendation Systems",
    CIKM 2023, arXiv 2308.15980.

    Args:
        channels: size of a node's state.
        schema: node types and relations.
        heads: number of heads, a divisor of ``channels``.
        value: the value matrices of another attention, to share them; its own by default. Like
            any tied parameters, they come apart in ``to_empty`` and in
            ``load_state_dict(assign=True)``: tie them again afterwards.
        negative_slope: slope of the LeakyReLU.
        dropout: probability of dropping an edge's weight in training.
        device: of the parameters.
        dtype: of the parameters.

    Attributes:
        query, key, value: ``[T, channels, channels]``, a matrix ``[in, out]`` per node type:
            ``x @ query[t]``.

    Shape:
        ``score_state`` and ``value_state``, the same by default, ``[N, channels]`` to
        ``[N, channels]``; with ``return_attention=True`` also the weights ``[E', heads]`` in the
        order of ``graph.heterogeneous``.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if a size does not fit, or the graph's schema is another one.
    """

    def __init__(
        self,
        channels: int,
        schema: GraphSchema,
        heads: int = 1,
        *,
        value: Parameter | None = None,
        negative_slope: float = 0.1,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        factory = Factory(device=device, dtype=dtype)
        super().__init__(channels, schema, heads, value, negative_slope, dropout, factory)
        self.query = Parameter(torch.empty(schema.num_types, channels, channels, **factory))
        self.key = Parameter(torch.empty(schema.num_types, channels, channels, **factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew; shared value matrices are left to their owner."""
        uniform_(self.query, self.channels)
        uniform_(self.key, self.channels)
        if self._owns_value:
            uniform_(self.value, self.channels)

    def project_scores(self, score_state: Tensor, graph: SequenceGraph) -> tuple[Tensor, Tensor]:
        """``W_Q,t s`` and ``W_K,t s``: each ``[N, heads, channels / heads]``."""
        query = self._project(score_state, self.query, graph)
        return query, self._project(score_state, self.key, graph)

    def attend(
        self,
        scores: tuple[Tensor, Tensor],
        values: Tensor,
        graph: SequenceGraph,
        return_attention: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Score queries against keys, and sum the projected values by the weights."""
        check.boolean("return_attention", return_attention)
        query, key = scores
        return self._attend(query, key, values, graph.heterogeneous, None, return_attention)
