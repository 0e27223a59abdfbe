"""Layers: from a graph's nodes to one vector per history.

A propagation block is ``block(x, graph) -> x`` over node states ``[N, channels]``; a readout is
``readout(x, graph) -> [num_graphs, channels]``.
"""

from mmgraph.nn.attention import HeterogeneousAttention, HomogeneousAttention
from mmgraph.nn.embedding import CodeCentres, FrozenFeatures, NodeEmbedding
from mmgraph.nn.encoder import GraphEncoder
from mmgraph.nn.gat import GAT
from mmgraph.nn.gcn import GCN
from mmgraph.nn.ggnn import GGNN
from mmgraph.nn.graph_sage import GraphSAGE
from mmgraph.nn.readout import (
    Last,
    Max,
    Mean,
    Recent,
    SoftAttention,
    register_readout,
    resolve_readout,
)
from mmgraph.nn.rgat import RGAT
from mmgraph.nn.update import AsynchronousUpdate, SynchronousUpdate, UpdateGate

__all__ = [
    "GAT",
    "GCN",
    "GGNN",
    "RGAT",
    "AsynchronousUpdate",
    "CodeCentres",
    "FrozenFeatures",
    "GraphEncoder",
    "GraphSAGE",
    "HeterogeneousAttention",
    "HomogeneousAttention",
    "Last",
    "Max",
    "Mean",
    "NodeEmbedding",
    "Recent",
    "SoftAttention",
    "SynchronousUpdate",
    "UpdateGate",
    "register_readout",
    "resolve_readout",
]
