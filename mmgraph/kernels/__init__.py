"""Message passing over an :class:`~mmgraph.EdgeSet`: tensors in, tensors out.

Every operation takes rows ``[N, H, C]`` (nodes, heads, channels) and an edge set, whose order is
that of every per-edge tensor ``[E', H]``. Index ``i`` is a centre, ``j`` its neighbour,
:math:`\\mathcal N(i)` the centre's edges.
"""

from mmgraph.kernels.dispatch import backend_report, use_backend
from mmgraph.kernels.ops import aggregate, edge_attention, edge_softmax, segment_matmul

__all__ = [
    "aggregate",
    "backend_report",
    "edge_attention",
    "edge_softmax",
    "segment_matmul",
    "use_backend",
]
