"""Readouts: from node states to one vector per history, zeros for an empty one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from torch.nn import Linear, Module

from mmgraph import _checks as check
from mmgraph.graph import SequenceGraph
from mmgraph.kernels import aggregate
from mmgraph.nn._inputs import check_states

_READOUTS: dict[str, Callable[..., Any]] = {}

_R = TypeVar("_R", bound=Callable[..., Any])


def register_readout(name: str) -> Callable[[_R], _R]:
    """Register a class, or any function that makes a readout, under a name.

    Args:
        name: what :func:`resolve_readout` will find it by.

    Returns:
        A decorator that gives back what it decorates.

    Raises:
        TypeError: if the name is not a string.
        ValueError: if the name is taken.

    Example:
        >>> @register_readout("sum")
        ... class Sum(Module):
        ...     def forward(self, x, graph):
        ...         return aggregate(x.unsqueeze(1), graph.step_edges).squeeze(1)
    """
    check.instance("name", name, str)
    _check_new(name)

    def register(readout: _R) -> _R:
        _check_new(name)  # another decorator may have taken it by now
        _READOUTS[name] = readout
        return readout

    return register


def _check_new(name: str) -> None:
    if name in _READOUTS:
        raise ValueError(f"name: expected a new name, but {name!r} is registered already")


def resolve_readout(name: str, **kwargs: Any) -> Any:
    """Make a readout by its registered name.

    Args:
        name: ``"last"``, ``"mean"``, ``"max"``, ``"soft_attention"`` (with ``channels``),
            ``"recent"`` (with ``n``), or one registered by :func:`register_readout`.
        **kwargs: arguments of the readout.

    Raises:
        ValueError: if the name is unknown.
    """
    if name not in _READOUTS:
        raise ValueError(f"name: expected one of {sorted(_READOUTS)}, got {name!r}")
    return _READOUTS[name](**kwargs)


@register_readout("last")
class Last(Module):
    r"""The state of the last step's item node: :math:`g = x_{v_m}`.

    Shape:
        ``x`` ``[N, channels]`` to ``[num_graphs, channels]``.
    """

    def forward(self, x: Tensor, graph: SequenceGraph) -> Tensor:
        return _last(x, graph)


@register_readout("mean")
class Mean(Module):
    r"""The mean over steps: :math:`g = \frac1m \sum_{s=1}^m x_{v_s}`, repeated items repeatedly.

    Shape:
        ``x`` ``[N, channels]`` to ``[num_graphs, channels]``.
    """

    def forward(self, x: Tensor, graph: SequenceGraph) -> Tensor:
        return _over_steps(x, graph, reduce="mean")


@register_readout("max")
class Max(Module):
    r"""The maximum over steps, channel by channel: :math:`g_c = \max_s x_{v_s c}`.

    Shape:
        ``x`` ``[N, channels]`` to ``[num_graphs, channels]``.
    """

    def forward(self, x: Tensor, graph: SequenceGraph) -> Tensor:
        return _over_steps(x, graph, reduce="max")


@register_readout("recent")
class Recent(Module):
    r"""The mean of the last ``n`` steps, or of all where there are fewer.

    .. math::
        g = \frac{1}{\min(n, m)} \sum_{s > m - n} x_{v_s}

    Args:
        n: number of steps.

    Shape:
        ``x`` ``[N, channels]`` to ``[num_graphs, channels]``.

    Raises:
        TypeError: if ``n`` is no int.
        ValueError: if ``n`` is not positive.
    """

    def __init__(self, n: int) -> None:
        super().__init__()
        check.positive("n", n)
        self.n = n

    def forward(self, x: Tensor, graph: SequenceGraph) -> Tensor:
        check_states(x, graph)
        older = ~_is_recent(graph, self.n).unsqueeze(1)
        # Filled in, not weighed: 0 times infinity is no zero.
        steps = x.index_select(0, graph.step_node).masked_fill(older, 0)
        total = x.new_zeros(graph.num_graphs, x.shape[1])
        total = total.index_add(0, graph.step_edges.centre, steps)
        return total / graph.step_ptr.diff().clamp(1, self.n).unsqueeze(1)

    def extra_repr(self) -> str:
        return f"n={self.n}"


@register_readout("soft_attention")
class SoftAttention(Module):
    r"""SR-GNN's readout: the last step beside an attention over all steps.

    .. math::
        a_s &= u^\top \sigma(W_1 x_{v_m} + W_2 x_{v_s} + c) \\
        g &= W_3 \Big[x_{v_m} ; \sum_s a_s x_{v_s}\Big]

    The weights are not normalised. Source: Wu et al., "Session-based Recommendation with Graph
    Neural Networks", AAAI 2019, arXiv 1811.00855, Eq. 6 and 7.

    Args:
        channels: size of a node's state.
        device: of the parameters.
        dtype: of the parameters.

    Shape:
        ``x`` ``[N, channels]`` to ``[num_graphs, channels]``.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if a size does not fit.
    """

    def __init__(
        self,
        channels: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check.positive("channels", channels)
        self.channels = channels
        self.last = Linear(channels, channels, bias=False, device=device, dtype=dtype)
        self.step = Linear(channels, channels, device=device, dtype=dtype)
        self.score = Linear(channels, 1, bias=False, device=device, dtype=dtype)
        self.join = Linear(2 * channels, channels, bias=False, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        for module in (self.last, self.step, self.score, self.join):
            module.reset_parameters()

    def forward(self, x: Tensor, graph: SequenceGraph) -> Tensor:
        check_states(x, graph, self.channels)
        last = _last(x, graph)
        steps, _ = graph.steps(self.step(x))
        per_step = self.last(last).index_select(0, graph.step_edges.centre)
        weight = self.score((per_step + steps).sigmoid()).squeeze(1)
        joined: Tensor = self.join(torch.cat([last, _over_steps(x, graph, weight=weight)], dim=1))
        return joined

    def extra_repr(self) -> str:
        return f"channels={self.channels}"


def _last(x: Tensor, graph: SequenceGraph) -> Tensor:
    """The row of each history's last step, and of no other: 0 times infinity is no zero."""
    check_states(x, graph)
    first, end = graph.step_ptr[:-1], graph.step_ptr[1:]
    if graph.step_node.shape[0] == 0:  # zeros that are differentiable, as any result is
        return x[:0].sum(0).expand(graph.num_graphs, -1)
    nodes = graph.step_node.index_select(0, (end - 1).clamp(min=0))
    return x.index_select(0, nodes).masked_fill((first == end).unsqueeze(1), 0)


def _over_steps(
    x: Tensor,
    graph: SequenceGraph,
    weight: Tensor | None = None,
    reduce: Literal["sum", "mean", "max"] = "sum",
) -> Tensor:
    check_states(x, graph)
    return aggregate(x.unsqueeze(1), graph.step_edges, weight, reduce).squeeze(1)


def _is_recent(graph: SequenceGraph, n: int) -> Tensor:
    """Whether each step is among the last ``n`` of its history: ``[S]``."""
    step = torch.arange(graph.step_node.shape[0], device=graph.device)
    return step + n >= graph.step_ptr[1:].index_select(0, graph.step_edges.centre)
