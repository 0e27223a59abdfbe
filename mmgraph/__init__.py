"""Modular graph-neural-network layers for multimodal sequences."""

from mmgraph import kernels, nn, plot
from mmgraph.builder import SequenceGraphBuilder
from mmgraph.codebook import Codes, ModalityCodebook
from mmgraph.graph import EdgeSet, SequenceGraph
from mmgraph.introspect import reached_nodes
from mmgraph.kernels import backend_report, use_backend
from mmgraph.loader import GraphCollator
from mmgraph.schema import GraphSchema

__version__ = "0.1.0"

__all__ = [
    "Codes",
    "EdgeSet",
    "GraphCollator",
    "GraphSchema",
    "ModalityCodebook",
    "SequenceGraph",
    "SequenceGraphBuilder",
    "backend_report",
    "kernels",
    "nn",
    "plot",
    "reached_nodes",
    "use_backend",
]
