"""How a layer joins its two attentions: one after the other in both orders, or side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.nn import Linear, Module, ReLU, Sequential

from mmgraph import _checks as check
from mmgraph.graph import SequenceGraph
from mmgraph.nn.attention import HeterogeneousAttention, HomogeneousAttention
from mmgraph.schema import GraphSchema

ORDERS = ("both", "homogeneous-first", "heterogeneous-first")
_STEPS = ("project_scores", "project_values", "attend")
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


class UpdateGate(Module):
    r"""A soft choice, per node, between two candidate states (MMSR, Eq. 16 and 17).

    .. math::
        \beta_i = \mathrm{softmax}\big(\mathrm{MLP}([a_i ; b_i])\big) \in \mathbb R^2, \qquad
        x_i = \beta_{i0}\, a_i + \beta_{i1}\, b_i

    with an MLP ``2 channels -> channels -> 2`` and ReLU. The softmax is the released code's.

    Args:
        channels: size of a node's state.
        device: of the parameters.
        dtype: of the parameters.

    Shape:
        ``a`` and ``b`` ``[N, channels]`` to the mixed state ``[N, channels]`` and the weights
        ``[N, 2]``; behind :class:`AsynchronousUpdate`, column 0 is homogeneous first.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if the sizes do not fit.
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
        self.mlp = Sequential(
            Linear(2 * channels, channels, device=device, dtype=dtype),
            ReLU(inplace=True),
            Linear(channels, 2, device=device, dtype=dtype),
        )

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        for module in self.mlp:
            if isinstance(module, Linear):
                module.reset_parameters()

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        check.shape("a", a, (None, self.channels), "nodes, channels")
        check.shape("b", b, (a.shape[0], self.channels), "nodes and channels of a")
        weights = self.mlp(torch.cat([a, b], dim=1)).softmax(dim=1)
        # Under autocast the weights come in its type, and each candidate in its operator's.
        dtype = torch.promote_types(a.dtype, b.dtype)
        return torch.lerp(b.to(dtype), a.to(dtype), weights[:, :1].to(dtype)), weights

    def extra_repr(self) -> str:
        return f"channels={self.channels}"


class _TwoOperators(Module):
    """What joins a homogeneous and a heterogeneous operator."""

    def __init__(
        self, homogeneous: Callable[..., Tensor], heterogeneous: Callable[..., Tensor]
    ) -> None:
        super().__init__()
        for name, operator in (("homogeneous", homogeneous), ("heterogeneous", heterogeneous)):
            if not callable(operator):
                raise TypeError(f"{name}: expected an operator, got {type(operator).__name__}")
        self.homogeneous = homogeneous
        self.heterogeneous = heterogeneous
        self._shares_value = _one_value(homogeneous, heterogeneous)

    def reset_parameters(self) -> None:
        """Draw all parts' parameters anew, of those that have ``reset_parameters``.

        Value matrices that were shared are so again.
        """
        for part in self.children():
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()
        owner: Any = self.homogeneous
        other: Any = self.heterogeneous
        if not getattr(owner, "_owns_value", True):
            owner, other = other, owner
        # An operator that has taken another's place since may have none, or one of its own.
        apart = all(getattr(part, "_owns_value", False) for part in (owner, other))
        both = all(getattr(part, "value", None) is not None for part in (owner, other))
        if self._shares_value and both and not apart:
            other.value = owner.value


class AsynchronousUpdate(_TwoOperators):
    r"""MMSR's layer: both attentions one after the other, in both orders, joined by a gate.

    With :math:`\mathrm{ho}(s, v)` and :math:`\mathrm{he}(s, v)` scored on ``s`` and aggregating
    ``v``:

    .. math::
        x^{hohe} &= \mathrm{he}(\mathrm{ho}(x, x), x)
            \quad \text{towards late fusion} \\
        x^{heho} &= \mathrm{ho}(\mathrm{he}(x, x), x)
            \quad \text{towards early fusion} \\
        x' &= \mathrm{gate}(x^{hohe}, x^{heho})

    The second pass aggregates the layer's untouched input; ``invasive=True`` lets it aggregate the
    first pass's result.

    Each operator is any callable ``operator(score_state, value_state, graph)``. One that does not
    read ``score_state``, as a graph convolution, leaves the pass before it without effect unless
    ``invasive=True``. Where both have the
    three steps ``project_scores``, ``project_values`` and ``attend``, these are called in its
    place, and every state is projected by every matrix once: with a shared value matrix that makes
    six products per type. An operator with hooks, or with a ``forward`` of its own above steps that
    it inherits, is called as a whole.

    Source: Hu et al., "Adaptive Multi-Modalities Fusion in Sequential Recommendation Systems",
    CIKM 2023, arXiv 2308.15980.

    Args:
        homogeneous: the operator over the edges inside a modality.
        heterogeneous: the operator over the edges between modalities.
        gate: ``gate(a, b) -> (x, weights)``; needed for ``order="both"`` and only there.
        order: ``"both"``, ``"homogeneous-first"`` or ``"heterogeneous-first"``.
        invasive: whether the second pass aggregates the first pass's result.

    Shape:
        ``x`` ``[N, channels]`` to ``[N, channels]``; with ``return_gate=True`` also the gate's
        weights ``[N, 2]``, column 0 = homogeneous first.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if ``order`` is unknown, the gate is missing or superfluous, or its weights are
            asked for where there is none.
    """

    def __init__(
        self,
        homogeneous: Callable[..., Tensor],
        heterogeneous: Callable[..., Tensor],
        gate: Module | None = None,
        order: Literal["both", "homogeneous-first", "heterogeneous-first"] = "both",
        invasive: bool = False,
    ) -> None:
        super().__init__(homogeneous, heterogeneous)
        if order not in ORDERS:
            raise ValueError(f"order: expected one of {ORDERS}, got {order!r}")
        if gate is None and order == "both":
            raise ValueError("gate: expected a gate for order='both', got None")
        if gate is not None and order != "both":
            raise ValueError(f"gate: expected None for order={order!r}, which has one candidate")
        if gate is not None and not callable(gate):
            raise TypeError(f"gate: expected a module, got {type(gate).__name__}")
        check.boolean("invasive", invasive)
        self.gate = gate
        self.order, self.invasive = order, invasive

    @classmethod
    def from_channels(
        cls,
        channels: int,
        schema: GraphSchema,
        heads: int = 1,
        *,
        order: Literal["both", "homogeneous-first", "heterogeneous-first"] = "both",
        invasive: bool = False,
        negative_slope: float = 0.1,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Both attentions with shared value matrices, and the gate where ``order`` needs one.

        Args:
            channels: size of a node's state.
            schema: node types and relations.
            heads: number of heads of each attention.
            order: as in the class.
            invasive: as in the class.
            negative_slope: of the attentions' LeakyReLU.
            dropout: of the attention weights, in training.
            device: of the parameters; after ``to_empty``, ``reset_parameters`` shares the value
                matrices again.
            dtype: of the parameters.

        Raises:
            TypeError: if an argument is not of its kind.
            ValueError: if a size does not fit, or an argument is out of its range.
        """
        homogeneous, heterogeneous = _paired(
            channels, schema, heads, negative_slope, dropout, device, dtype
        )
        gate = UpdateGate(channels, device=device, dtype=dtype) if order == "both" else None
        return cls(homogeneous, heterogeneous, gate, order, invasive)

    def forward(
        self, x: Tensor, graph: SequenceGraph, return_gate: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        check.boolean("return_gate", return_gate)
        if return_gate and self.gate is None:
            raise ValueError(f"return_gate: expected False, as order={self.order!r} has no gate")
        ho, he = _pair_of_passes(self.homogeneous, self.heterogeneous, x, graph)
        if self.gate is None:
            first, second = (ho, he) if self.order == "homogeneous-first" else (he, ho)
            return second.after(first, self.invasive)
        mixed, weights = self.gate(he.after(ho, self.invasive), ho.after(he, self.invasive))
        return (mixed, weights) if return_gate else mixed

    def extra_repr(self) -> str:
        return f"order={self.order!r}, invasive={self.invasive}"


class SynchronousUpdate(_TwoOperators):
    r"""Both attentions side by side on the input, joined by a linear map (MMSR, Eq. 15).

    .. math::
        x' = W [\mathrm{ho}(x, x) ; \mathrm{he}(x, x)] + b

    Source: Hu et al., "Adaptive Multi-Modalities Fusion in Sequential Recommendation Systems",
    CIKM 2023, arXiv 2308.15980; its ablation.

    Args:
        homogeneous: the operator over the edges inside a modality.
        heterogeneous: the operator over the edges between modalities.
        channels: size of a node's state.
        device: of the parameters.
        dtype: of the parameters.

    Shape:
        ``x`` ``[N, channels]`` to ``[N, channels]``.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if a size does not fit.
    """

    def __init__(
        self,
        homogeneous: Callable[..., Tensor],
        heterogeneous: Callable[..., Tensor],
        channels: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(homogeneous, heterogeneous)
        check.positive("channels", channels)
        self.join = Linear(2 * channels, channels, device=device, dtype=dtype)

    @classmethod
    def from_channels(
        cls,
        channels: int,
        schema: GraphSchema,
        heads: int = 1,
        *,
        negative_slope: float = 0.1,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Both attentions with shared value matrices, and the linear map.

        Args:
            channels: size of a node's state.
            schema: node types and relations.
            heads: number of heads of each attention.
            negative_slope: of the attentions' LeakyReLU.
            dropout: of the attention weights, in training.
            device: of the parameters; after ``to_empty``, ``reset_parameters`` shares the value
                matrices again.
            dtype: of the parameters.

        Raises:
            TypeError: if an argument is not of its kind.
            ValueError: if a size does not fit, or an argument is out of its range.
        """
        homogeneous, heterogeneous = _paired(
            channels, schema, heads, negative_slope, dropout, device, dtype
        )
        return cls(homogeneous, heterogeneous, channels, device=device, dtype=dtype)

    def forward(self, x: Tensor, graph: SequenceGraph) -> Tensor:
        ho, he = _pair_of_passes(self.homogeneous, self.heterogeneous, x, graph)
        joined: Tensor = self.join(torch.cat([ho.first(), he.first()], dim=1))
        return joined


def _paired(
    channels: int,
    schema: GraphSchema,
    heads: int,
    negative_slope: float,
    dropout: float,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> tuple[HomogeneousAttention, HeterogeneousAttention]:
    """The two attentions of the paper, which share W_V."""
    heterogeneous = HeterogeneousAttention(
        channels,
        schema,
        heads,
        negative_slope=negative_slope,
        dropout=dropout,
        device=device,
        dtype=dtype,
    )
    homogeneous = HomogeneousAttention(
        channels,
        schema,
        heads,
        value=heterogeneous.value,
        negative_slope=negative_slope,
        dropout=dropout,
        device=device,
        dtype=dtype,
    )
    return homogeneous, heterogeneous


class _Pass:
    """One operator within a layer whose input is ``x``, simply called."""

    def __init__(self, operator: Callable[..., Any], x: Tensor, graph: SequenceGraph) -> None:
        self.operator, self.x, self.graph = operator, x, graph

    def first(self) -> Tensor:
        """The operator on the layer's input."""
        result: Tensor = self.operator(self.x, self.x, self.graph)
        return result

    def after(self, other: _Pass, invasive: bool) -> Tensor:
        """The operator as second pass, scored on what the other makes of the input."""
        state = other.first()
        result: Tensor = self.operator(state, state if invasive else self.x, self.graph)
        return result


class _SteppedPass(_Pass):
    """One operator with three steps, given its values of the input where another made them."""

    def __init__(
        self, operator: Any, x: Tensor, graph: SequenceGraph, values: Tensor | None
    ) -> None:
        super().__init__(operator, x, graph)
        self.values = operator.project_values(x, graph) if values is None else values

    def first(self) -> Tensor:
        operator: Any = self.operator
        if getattr(operator, "scores_on_values", False):
            scores = self.values
        else:
            scores = operator.project_scores(self.x, self.graph)
        result: Tensor = operator.attend(scores, self.values, self.graph)
        return result

    def after(self, other: _Pass, invasive: bool) -> Tensor:
        operator: Any = self.operator
        state = other.first()
        scores = operator.project_scores(state, self.graph)
        values = self.values
        if invasive and getattr(operator, "scores_on_values", False):
            values = scores
        elif invasive:
            values = operator.project_values(state, self.graph)
        result: Tensor = operator.attend(scores, values, self.graph)
        return result


def _pair_of_passes(
    homogeneous: Callable[..., Any],
    heterogeneous: Callable[..., Any],
    x: Tensor,
    graph: SequenceGraph,
) -> tuple[_Pass, _Pass]:
    if not (_in_steps(homogeneous) and _in_steps(heterogeneous)):
        return _Pass(homogeneous, x, graph), _Pass(heterogeneous, x, graph)
    ho = _SteppedPass(homogeneous, x, graph, None)
    shared = _one_product(homogeneous, heterogeneous)
    return ho, _SteppedPass(heterogeneous, x, graph, ho.values if shared else None)


def _in_steps(operator: Any) -> bool:
    """Whether an operator's three steps do what its call does."""
    if not all(callable(getattr(operator, step, None)) for step in _STEPS):
        return False
    if not isinstance(operator, Module):
        return True
    if "forward" in vars(operator) or any(getattr(operator, hooks) for hooks in _HOOKS):
        return False
    lineage = type(operator).__mro__
    forward, *steps = (_youngest(lineage, name) for name in ("forward", *_STEPS))
    return forward >= max(steps)


def _youngest(lineage: tuple[type, ...], name: str) -> int:
    """Where in a class's lineage, its own end first, a method is defined; its end if nowhere."""
    return next((i for i, cls in enumerate(lineage) if name in vars(cls)), len(lineage))


def _one_value(a: Any, b: Any) -> bool:
    """Whether both operators have the same value matrices."""
    matrix = getattr(a, "value", None)
    return matrix is not None and matrix is getattr(b, "value", None)


def _one_product(a: Any, b: Any) -> bool:
    """Whether both operators project values by the same matrices, in the same way."""
    return (
        _one_value(a, b)
        and getattr(a, "heads", None) == getattr(b, "heads", None)
        and getattr(type(a), "project_values", None) is getattr(type(b), "project_values", None)
    )
