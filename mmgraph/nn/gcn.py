"""Graph convolution."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from mmgraph import _checks as check
from mmgraph.graph import SequenceGraph
from mmgraph.kernels import aggregate
from mmgraph.nn._edges import Edges, check_edges, select_edges
from mmgraph.nn._init import Factory
from mmgraph.nn._inputs import check_states


class GCN(Module):
    r"""Graph convolution, as PyG's ``GCNConv``; the graph brings the self-loops.

    .. math::
        x' = D^{-1/2} A D^{-1/2} X W + b, \qquad D_{ii} = |\mathcal N(i)|

    Source: Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional Networks",
    ICLR 2017, arXiv 1609.02907.

    Args:
        channels: size of a node's state.
        edges: ``"all"``, ``"homogeneous"`` or ``"heterogeneous"``.
        device: of the parameters.
        dtype: of the parameters.

    Attributes:
        weight: ``[channels, channels]``, ``[in, out]``: ``x @ weight``.
        bias: ``[channels]``.

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
        factory = Factory(device=device, dtype=dtype)
        self.channels, self.edges = channels, edges
        self.weight = Parameter(torch.empty(channels, channels, **factory))
        self.bias = Parameter(torch.empty(channels, **factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        torch.nn.init.xavier_uniform_(self.weight)
        torch.nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, graph: SequenceGraph) -> Tensor:
        check_states(x, graph, self.channels)
        edges = select_edges(graph, self.edges)
        # The weight of an edge is a product of its ends': scale rows, not edges.
        norm = edges.ptr.diff().clamp(min=1).to(x.dtype).rsqrt().unsqueeze(1)
        messages = norm * (x @ self.weight)
        return norm * aggregate(messages.unsqueeze(1), edges).squeeze(1) + self.bias

    def extra_repr(self) -> str:
        return f"channels={self.channels}, edges={self.edges!r}"
