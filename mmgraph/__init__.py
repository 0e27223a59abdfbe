"""Modular graph-neural-network layers for multimodal sequences."""

from mmgraph.graph import EdgeSet, SequenceGraph
from mmgraph.schema import GraphSchema

__version__ = "0.1.0"

__all__ = [
    "EdgeSet",
    "GraphSchema",
    "SequenceGraph",
]
