"""GraphSAGE with the mean of the neighbours."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Linear, Module

from mmgraph import _checks as check
from mmgraph.graph import SequenceGraph
from mmgraph.kernels import aggregate
from mmgraph.nn._edges import Edges, check_edges, select_edges
from mmgraph.nn._inputs import check_states


class GraphSAGE(Module):
    r"""GraphSAGE's mean aggregator, as PyG's ``SAGEConv``.

    .. math::
        x'_i = W_1 \operatorname{mean}_{j \in \mathcal N(i)} x_j + b + W_2 x_i

    Source: Hamilton, Ying and Leskovec, "Inductive Representation Learning on Large Graphs",
    NeurIPS 2017, arXiv 1706.02216.

    Args:
        channels: size of a node's state.
        edges: ``"all"``, ``"homogeneous"`` or ``"heterogeneous"``; ``self`` is in each.
        device: of the parameters.
        dtype: of the parameters.

    Attributes:
        neighbours: the linear map :math:`W_1, b`.
        root: the linear map :math:`W_2`.

    Shape:
        ``x`` ``[N, channels]`` to ``[N, channels]``.

    Raises:
        TypeError: if an argument is not of its kind.
        ValueError: if ``edges`` is unknown or a size does not fit.
    """

    def __init__(
        self,
        channels: int,
        edges: Edges = "all",
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check.positive("channels", channels)
        check_edges(edges)
        self.channels, self.edges = channels, edges
        self.neighbours = Linear(channels, channels, device=device, dtype=dtype)
        self.root = Linear(channels, channels, bias=False, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        self.neighbours.reset_parameters()
        self.root.reset_parameters()

    def forward(self, x: Tensor, graph: SequenceGraph) -> Tensor:
        check_states(x, graph, self.channels)
        mean = aggregate(x.unsqueeze(1), select_edges(graph, self.edges), reduce="mean")
        out: Tensor = self.neighbours(mean.squeeze(1)) + self.root(x)
        return out

    def extra_repr(self) -> str:
        return f"channels={self.channels}, edges={self.edges!r}"
