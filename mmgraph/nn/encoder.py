"""A stack of propagation blocks."""

from __future__ import annotations

import copy
from collections.abc import Iterable

from torch import Tensor
from torch.nn import Dropout, Module, ModuleList

from mmgraph import _checks as check
from mmgraph.graph import SequenceGraph
from mmgraph.nn._inputs import check_states


class GraphEncoder(Module):
    r"""Blocks one after the other, with dropout, and optionally residual and norm.

    .. math::
        x^{l+1} = \mathrm{norm}_l\big(x^l + \mathrm{dropout}(\mathrm{block}_l(x^l))\big)

    where ``x^l`` is added with ``residual=True`` only, and the norm is the identity by default.
    Give one block several times to share its weights between layers.

    Args:
        layers: blocks ``block(x, graph) -> x``.
        dropout: probability of dropping a channel of a block's output, in training.
        residual: whether to add each block's input to its output.
        norm: a module over channels, such as ``torch.nn.LayerNorm(channels)``, copied for each
            layer.

    Shape:
        ``x`` ``[N, channels]`` to ``[N, channels]``; with ``return_gates=True`` also a list, one
        entry per layer, of gate weights ``[N, 2]`` (see :class:`AsynchronousUpdate`).

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if there is no layer or the dropout is no probability.

    Note:
        With ``return_gates=True`` every layer is called with ``return_gate=True``; one that has no
        gate raises.
    """

    def __init__(
        self,
        layers: Iterable[Module],
        *,
        dropout: float = 0.0,
        residual: bool = False,
        norm: Module | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(layers, Iterable):
            raise TypeError(f"layers: expected several blocks, got {type(layers).__name__}")
        layers = list(layers)
        if not layers:
            raise ValueError("layers: expected at least one block, got none")
        for position, layer in enumerate(layers):
            check.instance(f"layers[{position}]", layer, Module)
        check.probability("dropout", dropout)
        check.boolean("residual", residual)
        self.layers = ModuleList(layers)
        self.norms = None if norm is None else ModuleList(copy.deepcopy(norm) for _ in layers)
        self.dropout = Dropout(dropout)
        self.residual = residual

    def reset_parameters(self) -> None:
        """Draw all layers' and norms' parameters anew, of those that have ``reset_parameters``."""
        for module in (*self.layers, *(self.norms or ())):
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()

    def forward(
        self, x: Tensor, graph: SequenceGraph, return_gates: bool = False
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        check.boolean("return_gates", return_gates)
        check_states(x, graph)
        gates: list[Tensor] = []
        for position, layer in enumerate(self.layers):
            if return_gates:
                update, weights = layer(x, graph, return_gate=True)
                gates.append(weights)
            else:
                update = layer(x, graph)
            update = self.dropout(update)
            x = x + update if self.residual else update
            if self.norms is not None:
                x = self.norms[position](x)
        return (x, gates) if return_gates else x

    def extra_repr(self) -> str:
        return f"residual={self.residual}"
