"""Gated graph neural network."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import GRUCell, Module, Parameter

from mmgraph import _checks as check
from mmgraph.graph import SequenceGraph
from mmgraph.kernels import aggregate
from mmgraph.nn._edges import Edges, check_edges, select_edges
from mmgraph.nn._init import uniform_
from mmgraph.nn._inputs import check_states


class GGNN(Module):
    r"""Gated graph network, as PyG's ``GatedGraphConv`` with sums.

    .. math::
        m_i^l = \sum_{j \in \mathcal N(i)} x_j^l W_l, \qquad
        x_i^{l+1} = \mathrm{GRU}(m_i^l, x_i^l)

    for ``steps`` steps with a matrix each and one GRU cell.

    Source: Li et al., "Gated Graph Sequence Neural Networks", ICLR 2016, arXiv 1511.05493.

    Args:
        channels: size of a node's state.
        steps: number of steps inside the block.
        edges: ``"all"``, ``"homogeneous"`` or ``"heterogeneous"``; ``self`` is in each.
        device: of the parameters.
        dtype: of the parameters.

    Attributes:
        weight: ``[steps, channels, channels]``, a matrix ``[in, out]`` per step.
        cell: the GRU cell.

    Shape:
        ``x`` ``[N, channels]`` to ``[N, channels]``.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if ``edges`` is unknown or a size does not fit.
    """

    def __init__(
        self,
        channels: int,
        steps: int = 1,
        edges: Edges = "all",
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check.positive("channels", channels)
        check.positive("steps", steps)
        check_edges(edges)
        self.channels, self.steps, self.edges = channels, steps, edges
        self.weight = Parameter(torch.empty(steps, channels, channels, device=device, dtype=dtype))
        self.cell = GRUCell(channels, channels, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        uniform_(self.weight, self.channels)
        self.cell.reset_parameters()

    def forward(self, x: Tensor, graph: SequenceGraph) -> Tensor:
        check_states(x, graph, self.channels)
        edges, cell = select_edges(graph, self.edges), self.cell
        for weight in self.weight:
            # A sum of products is the product of the sum, and so W_l joins the cell's own matrix:
            # a product per step less.
            neighbours = aggregate(x.unsqueeze(1), edges).squeeze(1)
            joint = cell.weight_ih @ weight.T
            x = torch.gru_cell(neighbours, x, joint, cell.weight_hh, cell.bias_ih, cell.bias_hh)
        return x

    def extra_repr(self) -> str:
        return f"channels={self.channels}, steps={self.steps}, edges={self.edges!r}"
