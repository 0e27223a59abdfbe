"""What a trained gate does: its weights where they reach the loss, and what each order is worth.

The gate mixes two candidate states, homogeneous first and heterogeneous first. Three questions are
asked of a trained model: how the weights fall (:func:`read`); how it does when the weights are
fixed instead (:func:`forced`); and how much of each candidate is the node's own state, untouched
by any neighbour (also :func:`read`).
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import mmgraph
from examples.mmsr.metrics import rank_all, summarise
from examples.mmsr.model import MMSR
from examples.mmsr.protocol import Instances
from mmgraph import plot, reached_nodes
from mmgraph.introspect import ReadNodes
from mmgraph.nn import AsynchronousUpdate

WEIGHTS = {"homogeneous-first": 1.0, "even": 0.5, "heterogeneous-first": 0.0}


class FixedGate(nn.Module):
    """A gate that always says the same.

    Args:
        first: the weight of homogeneous first.
    """

    def __init__(self, first: float) -> None:
        super().__init__()
        self.first = first

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        weights = a.new_tensor([self.first, 1 - self.first]).expand(len(a), 2)
        return weights[:, :1] * a + weights[:, 1:] * b, weights


def forced(model: MMSR, instances: Instances, batch_size: int = 512) -> dict[str, dict[str, float]]:
    """Metrics with the last layer's gate as trained (``"gate"``), and with its weights fixed.

    Args:
        model: with a gate in its last layer, in evaluation mode.
        instances: whose targets to rank.
        batch_size: histories ranked at a time.
    """
    metrics = {"gate": summarise(rank_all(model.score, instances, batch_size))}
    for name, first in WEIGHTS.items():
        fixed = copy.deepcopy(model)
        last = copy.deepcopy(fixed.encoder.layers[-1])  # the others' too, where layers are shared
        last.gate = FixedGate(first)
        fixed.encoder.layers[-1] = last
        metrics[name] = summarise(rank_all(fixed.score, instances, batch_size))
    return metrics


def readable(model: MMSR) -> bool:
    """Whether a model has what :func:`read` reads."""
    last = model.encoder.layers[-1]
    has_gate = isinstance(last, AsynchronousUpdate) and last.gate is not None
    return has_gate and model.config.readout != "recent"


def read(model: MMSR, instances: Instances, batch_size: int = 512) -> dict[str, float]:
    """What the last layer's gate and attention do at the nodes that the readout reads.

    Only there do they reach the loss: at the last item's node behind ``last``, at every step's item
    node behind the others, but for ``recent``, which :func:`readable` leaves out.

    Args:
        model: in evaluation mode, whose last layer is an :class:`mmgraph.nn.AsynchronousUpdate`
            with a gate.
        instances: whose graphs to read.
        batch_size: histories at a time.

    Returns:
        ``mean`` and standard deviation (``spread``) of the weight on homogeneous first over all
        these nodes, and for each order's second pass the mean attention of a node to itself
        (``self, homogeneous-first`` and ``self, heterogeneous-first``).
    """
    layer = model.encoder.layers[-1]
    assert isinstance(layer, AsynchronousUpdate)
    nodes: ReadNodes = "last" if model.config.readout == "last" else "steps"
    first, own_hohe, own_heho = [], [], []
    with torch.inference_mode():
        for begin in range(0, len(instances), batch_size):
            graph = model.prepare(instances[begin : begin + batch_size])
            x, weights = _last_layer(model, graph)
            reached = reached_nodes(graph, 1, nodes)[0]
            first.append(weights[reached, 0])
            ho, he = layer.homogeneous, layer.heterogeneous
            for own, one, two, edges in (
                (own_hohe, ho, he, graph.heterogeneous),
                (own_heho, he, ho, graph.homogeneous),
            ):
                _, attention = two(one(x, graph), graph, return_attention=True)
                itself = (edges.index == edges.centre) & reached[edges.centre]
                own.append(attention[itself].mean(1))
    gates = torch.cat(first)
    return {
        "mean": float(gates.mean()),
        "spread": float(gates.std(correction=0)),
        "self, homogeneous-first": float(torch.cat(own_hohe).mean()),
        "self, heterogeneous-first": float(torch.cat(own_heho).mean()),
    }


def draw(model: MMSR, instances: Instances, path: Path) -> None:
    """Draw in which order a trained model's nodes fuse, over some histories."""
    import matplotlib.pyplot as plt

    graph = model.prepare(instances)
    with torch.inference_mode():
        _, gates = model.encoder(model.first_states(graph), graph, return_gates=True)
    figure = plot.fusion_order(graph, gates).get_figure(root=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _last_layer(model: MMSR, graph: mmgraph.SequenceGraph) -> tuple[Tensor, Tensor]:
    """The last layer's input, and its gate's weights ``[N, 2]``."""
    inputs: list[Tensor] = []

    def note(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        inputs.append(arguments[0])

    # A hook, because residuals and norms stand between layers.
    hook = model.encoder.layers[-1].register_forward_pre_hook(note)
    try:
        _, gates = model.encoder(model.first_states(graph), graph, return_gates=True)
    finally:
        hook.remove()
    return inputs[-1], gates[-1]
