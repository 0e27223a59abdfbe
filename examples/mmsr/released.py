"""The layer that MMSR's authors released, composed from mmgraph's attention steps.

It differs from the paper's layer in three points: one matrix per node type serves as query, key
and value; the second passes are scored on other states; and the gate judges each candidate by
itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import mmgraph
from mmgraph.nn import HeterogeneousAttention, HomogeneousAttention


class ScalarGate(nn.Module):
    r"""A gate that judges each candidate by itself.

    .. math::
        \beta_i = \mathrm{softmax}\big(f(a_i), f(b_i)\big), \qquad
        x_i = \beta_{i0}\, a_i + \beta_{i1}\, b_i

    Args:
        channels: size of a node's state; :math:`f` is an MLP ``channels -> channels -> 1``.

    Shape:
        two candidates ``[N, channels]`` to the mixed state and the weights ``[N, 2]``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, 1))

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        weights = torch.cat([self.mlp(a), self.mlp(b)], dim=1).softmax(dim=1)
        return weights[:, :1] * a + weights[:, 1:] * b, weights


class ReleasedUpdate(nn.Module):
    r"""The released layer, with :math:`p = W_{t} x` the only projection.

    .. math::
        x^{hohe} &= \mathrm{he}(p, p, p) \quad
            \text{(scored on the untouched projections, so that no first pass is left)} \\
        x^{heho} &= \mathrm{ho}(x^{hohe}, p) \quad
            \text{(scored on the first pass's result, which is not projected again)} \\
        x' &= \mathrm{gate}(x^{hohe}, x^{heho})

    Args:
        channels: size of a node's state.
        schema: node types and relations.
        heads: number of heads of each attention.
        dropout: of the attention weights, in training.

    Shape:
        ``x`` ``[N, channels]`` to ``[N, channels]``; with ``return_gate=True`` also the gate's
        weights ``[N, 2]``, column 0 = homogeneous first.
    """

    def __init__(
        self, channels: int, schema: mmgraph.GraphSchema, heads: int = 1, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.homogeneous = HomogeneousAttention(channels, schema, heads, dropout=dropout)
        self.heterogeneous = HeterogeneousAttention(
            channels, schema, heads, value=self.homogeneous.value, dropout=dropout
        )
        self.heterogeneous.query = self.heterogeneous.key = self.homogeneous.value
        self.gate = ScalarGate(channels)

    def forward(
        self, x: Tensor, graph: mmgraph.SequenceGraph, return_gate: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        projected = self.homogeneous.project_values(x, graph)
        hohe = self.heterogeneous.attend((projected, projected), projected, graph)
        heho = self.homogeneous.attend(hohe.view_as(projected), projected, graph)
        mixed, weights = self.gate(hohe, heho)
        return (mixed, weights) if return_gate else mixed
