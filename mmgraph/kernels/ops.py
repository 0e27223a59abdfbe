"""The public operations: formulas, checks of the arguments, and the call of a backend."""

from __future__ import annotations

from typing import Literal, overload

from torch import Tensor

from mmgraph import _checks as check
from mmgraph.graph import EdgeSet
from mmgraph.kernels.dispatch import backend

_EDGES = "the edge set"


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

    Query, key and value may each have a row per relation, read at the edge's relation:
    :math:`q_{r_{ij} i}`, :math:`k_{r_{ij} j}`, :math:`v_{r_{ij} j}`.

    Args:
        query: ``[num_centres, H, C_k]``, or ``[R, num_centres, H, C_k]``.
        key: ``[num_neighbours, H, C_k]``, or ``[R, num_neighbours, H, C_k]``.
        value: ``[num_neighbours, H, C_v]``, or ``[R, num_neighbours, H, C_v]``.
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
        ValueError: if shapes, devices or the edges' relations do not fit.
    """
    check.instance("edges", edges, EdgeSet)
    check.boolean("return_weights", return_weights)
    if negative_slope is not None:
        check.number("negative_slope", negative_slope)
    sources = edges.num_neighbours
    _check_rows("query", query, edges, (edges.num_centres, None, None), "centres, heads, channels")
    heads, channels = query.shape[-2:]
    _check_rows(
        "key", key, edges, (sources, heads, channels), "neighbours, heads, channels of query"
    )
    _check_rows("value", value, edges, (sources, heads, None), "neighbours, heads, channels")
    if relation_weight is not None:
        check.shape("relation_weight", relation_weight, (None, heads, channels))
        check.same_device("relation_weight", relation_weight, edges.device, _EDGES)
        _check_relations("relation_weight", relation_weight, edges)
    for name, per_edge in (("edge_bias", edge_bias), ("edge_scale", edge_scale)):
        if per_edge is not None:
            check.shape(name, per_edge, (edges.num_edges, heads), "edges, heads")
            check.same_device(name, per_edge, edges.device, _EDGES)
    chosen = backend(query, key, value, relation_weight, edge_bias, edge_scale, edges=edges)
    out, weights = chosen.edge_attention(
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
        ValueError: if the shape or the device does not fit.
    """
    check.instance("edges", edges, EdgeSet)
    check.shape("scores", scores, (edges.num_edges, None), "edges, heads")
    check.same_device("scores", scores, edges.device, _EDGES)
    out: Tensor = backend(scores).edge_softmax(scores, edges)
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
        value: ``[num_neighbours, H, C]``, or ``[R, num_neighbours, H, C]``, read at the edge's
            relation.
        edges: the edges.
        weight: ``[E', H]``, or ``[E']`` for all heads alike; 1 by default.
        reduce: ``"sum"``, ``"mean"`` or ``"max"``.

    Returns:
        ``[num_centres, H, C]``.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if shapes, devices or the edges' relations do not fit, or ``reduce`` is
            unknown.
    """
    check.instance("edges", edges, EdgeSet)
    _check_rows(
        "value", value, edges, (edges.num_neighbours, None, None), "neighbours, heads, channels"
    )
    if reduce not in ("sum", "mean", "max"):
        raise ValueError(f"reduce: expected 'sum', 'mean' or 'max', got {reduce!r}")
    heads = value.shape[-2]
    if weight is not None:
        check.instance("weight", weight, Tensor)
        if weight.dim() == 1:
            weight = weight.unsqueeze(1).expand(-1, heads)
        check.shape("weight", weight, (edges.num_edges, heads), "edges, heads")
        check.same_device("weight", weight, edges.device, _EDGES)
    out: Tensor = backend(value, weight, edges=edges).aggregate(value, edges, weight, reduce)
    return out


def segment_matmul(x: Tensor, ptr: Tensor, weight: Tensor) -> Tensor:
    r"""One matrix product per segment of rows: the projection of every node by its type's matrix.

    .. math::
        y_n = x_n W_t \quad \text{for } \mathrm{ptr}_t \le n < \mathrm{ptr}_{t+1}

    Where :func:`torch.compile` meets the ``torch`` backend, every matrix is multiplied with as many
    rows as there are, zeros where they are another segment's.

    Args:
        x: ``[N, in]``, rows ordered by segment.
        ptr: ``[T + 1]`` on the CPU, where each segment begins, from 0 to ``N``.
        weight: ``[T, in, out]``.

    Returns:
        ``[N, out]``.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if shapes or devices do not fit, or ``ptr`` is not on the CPU or does not rise
            from 0 to N.
    """
    check.shape("x", x, (None, None), "rows, in")
    check.shape("weight", weight, (None, x.shape[1], None), "segments, in, out")
    check.same_device("weight", weight, x.device, "x")
    check.instance("ptr", ptr, Tensor)
    if ptr.device.type != "cpu":
        raise ValueError(f"ptr: expected a tensor on the CPU, got one on {ptr.device}")
    check.integers("ptr", ptr, (weight.shape[0] + 1,), "segments and one more")
    out: Tensor = backend(x, weight).segment_matmul(x, ptr, weight)
    return out


def _check_rows(
    name: str, rows: Tensor, edges: EdgeSet, shape: tuple[int | None, ...], meaning: str
) -> None:
    """Rows of nodes, or of relations and nodes, on the edges' device."""
    check.instance(name, rows, Tensor)
    check.same_device(name, rows, edges.device, _EDGES)
    if rows.dim() == 4:
        check.shape(name, rows, (None, *shape), f"relations, {meaning}")
        _check_relations(name, rows, edges)
    else:
        check.shape(name, rows, shape, meaning)


def _check_relations(name: str, given: Tensor, edges: EdgeSet) -> None:
    """What is given has something for each relation of the edges."""
    if edges.relation is None:
        raise ValueError(f"edges: expected relations, as {name} is given per relation, got none")
    if edges.num_relations > given.shape[0]:
        raise ValueError(
            f"{name}: expected at least {edges.num_relations} relations, got {given.shape[0]}"
        )
