"""The public operations: formulas, checks of the arguments, and the call of a backend."""

from __future__ import annotations

from typing import Literal, overload

from torch import Tensor

from mmgraph import _checks as check
from mmgraph.graph import EdgeSet
from mmgraph.kernels.dispatch import backend


@overload
def edge_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    edges: EdgeSet,
    *,
    relation_weight: Tensor | None = None,
    negative_slope: float | None = None,
    edge_bias: Tensor | None = None,
    edge_scale: Tensor | None = None,
    return_weights: Literal[False] = False,
) -> Tensor: ...
@overload
def edge_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    edges: EdgeSet,
    *,
    relation_weight: Tensor | None = None,
    negative_slope: float | None = None,
    edge_bias: Tensor | None = None,
    edge_scale: Tensor | None = None,
    return_weights: Literal[True],
) -> tuple[Tensor, Tensor]: ...
def edge_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    edges: EdgeSet,
    *,
    relation_weight: Tensor | None = None,
    negative_slope: float | None = None,
    edge_bias: Tensor | None = None,
    edge_scale: Tensor | None = None,
    return_weights: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Attention of every centre over its own neighbours.

    .. math::
        e_{ij} &= \mathrm{LeakyReLU}\Big(\sum_c q_{ic}\, k_{jc}\, w_{r_{ij} c}\Big) + b_{ij} \\
        \alpha_{ij} &= \frac{\exp e_{ij}}{\sum_{j' \in \mathcal N(i)} \exp e_{ij'}} \\
        o_i &= \sum_{j \in \mathcal N(i)} s_{ij}\, \alpha_{ij}\, v_j

    per head, with :math:`w = 1`, :math:`b = 0`, :math:`s = 1` where they are not given. Nothing
    divides by :math:`\sqrt{C_k}`. A centre without neighbours gets zeros. With ``query`` and
    ``key`` of two channels, :math:`(a_i, 1)` and :math:`(1, b_j)`, it is GAT's additive score.

    Args:
        query: ``[num_centres, H, C_k]``.
        key: ``[num_neighbours, H, C_k]``.
        value: ``[num_neighbours, H, C_v]``.
        edges: who attends to whom.
        relation_weight: ``[R, H, C_k]``, a vector per relation, as in MMSR's Eq. 12.
        negative_slope: slope of the LeakyReLU; without it the score is taken as it is.
        edge_bias: ``[E', H]``, added to the scores, such as Graphormer's spatial encodings.
        edge_scale: ``[E', H]``, multiplies the softmax, such as a dropout mask.
        return_weights: return :math:`\alpha` (before ``edge_scale``) too.

    Returns:
        ``[num_centres, H, C_v]``, and ``[E', H]`` with ``return_weights=True``.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if shapes do not fit, or the edges' relations do not fit ``relation_weight``.
    """
    check.instance("edges", edges, EdgeSet)
    check.boolean("return_weights", return_weights)
    check.shape("query", query, (edges.num_centres, None, None), "centres, heads, channels")
    heads, channels = query.shape[1:]
    sources = edges.num_neighbours
    check.shape("key", key, (sources, heads, channels), "neighbours, heads, channels of query")
    check.shape("value", value, (sources, heads, None), "neighbours, heads, channels")
    if relation_weight is not None:
        check.shape("relation_weight", relation_weight, (None, heads, channels))
        if edges.relation is None:
            raise ValueError("edges: expected relations, as relation_weight is given, got none")
        if edges.num_relations > relation_weight.shape[0]:
            raise ValueError(
                f"relation_weight: expected at least {edges.num_relations} relations, "
                f"got {relation_weight.shape[0]}"
            )
    for name, per_edge in (("edge_bias", edge_bias), ("edge_scale", edge_scale)):
        if per_edge is not None:
            check.shape(name, per_edge, (edges.num_edges, heads), "edges, heads")
    out, weights = backend().edge_attention(
        query, key, value, edges, relation_weight, negative_slope, edge_bias, edge_scale
    )
    return (out, weights) if return_weights else out


def edge_softmax(scores: Tensor, edges: EdgeSet) -> Tensor:
    r"""Softmax of edge scores over each centre's neighbours.

    .. math::
        \alpha_{ij} = \frac{\exp e_{ij}}{\sum_{j' \in \mathcal N(i)} \exp e_{ij'}}

    Args:
        scores: ``[E', H]`` in the edge set's order.
        edges: the edges.

    Returns:
        ``[E', H]``, in the same order.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if the shape does not fit.
    """
    check.instance("edges", edges, EdgeSet)
    check.shape("scores", scores, (edges.num_edges, None), "edges, heads")
    out: Tensor = backend().edge_softmax(scores, edges)
    return out


def aggregate(
    value: Tensor,
    edges: EdgeSet,
    weight: Tensor | None = None,
    reduce: Literal["sum", "mean", "max"] = "sum",
) -> Tensor:
    r"""Sum, mean or maximum of the neighbours' rows at every centre.

    .. math::
        o_i = \bigoplus_{j \in \mathcal N(i)} w_{ij}\, v_j

    The mean divides by the number of edges, whatever the weights. Of equal maxima the first edge
    gets the gradient. A centre without neighbours gets zeros.

    Args:
        value: ``[num_neighbours, H, C]``.
        edges: the edges.
        weight: ``[E', H]``, or ``[E']`` for all heads alike; 1 by default.
        reduce: ``"sum"``, ``"mean"`` or ``"max"``.

    Returns:
        ``[num_centres, H, C]``.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if a shape does not fit or ``reduce`` is unknown.
    """
    check.instance("edges", edges, EdgeSet)
    check.shape("value", value, (edges.num_neighbours, None, None), "neighbours, heads, channels")
    if reduce not in ("sum", "mean", "max"):
        raise ValueError(f"reduce: expected 'sum', 'mean' or 'max', got {reduce!r}")
    heads = value.shape[1]
    if weight is not None:
        check.instance("weight", weight, Tensor)
        if weight.dim() == 1:
            weight = weight.unsqueeze(1).expand(-1, heads)
        check.shape("weight", weight, (edges.num_edges, heads), "edges, heads")
    out: Tensor = backend().aggregate(value, edges, weight, reduce)
    return out


def segment_matmul(x: Tensor, ptr: Tensor, weight: Tensor) -> Tensor:
    r"""One matrix product per segment of rows: the projection of every node by its type's matrix.

    .. math::
        y_n = x_n W_t \quad \text{for } \mathrm{ptr}_t \le n < \mathrm{ptr}_{t+1}

    Args:
        x: ``[N, in]``, rows ordered by segment.
        ptr: ``[T + 1]`` on the CPU, where each segment begins, from 0 to ``N``.
        weight: ``[T, in, out]``.

    Returns:
        ``[N, out]``.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if shapes do not fit, or ``ptr`` is not on the CPU or does not run from 0 to N.
    """
    check.shape("x", x, (None, None), "rows, in")
    check.shape("weight", weight, (None, x.shape[1], None), "segments, in, out")
    check.instance("ptr", ptr, Tensor)
    if ptr.device.type != "cpu":
        raise ValueError(f"ptr: expected a tensor on the CPU, got one on {ptr.device}")
    check.offsets("ptr", ptr, x.shape[0], weight.shape[0])
    out: Tensor = backend().segment_matmul(x, ptr, weight)
    return out
