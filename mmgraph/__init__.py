"""Modular graph-neural-network layers for multimodal sequences."""

from mmgraph import kernels, nn
from mmgraph.builder import SequenceGraphBuilder
from mmgraph.codebook import ModalityCodebook
from mmgraph.graph import EdgeSet, SequenceGraph
from mmgraph.kernels import backend_report, use_backend
from mmgraph.schema import GraphSchema

__version__ = "0.1.0"

__all__ = [
    "EdgeSet",
    "GraphSchema",
    "ModalityCodebook",
    "SequenceGraph",
    "SequenceGraphBuilder",
    "backend_report",
    "kernels",
    "nn",
    "use_backend",
]
