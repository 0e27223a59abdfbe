"""Graphs for tests: drawn histories, and edges of every awkward kind."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

import mmgraph

SCHEMA = mmgraph.GraphSchema(("item", "image", "text"))
NUM_ITEMS, NUM_CODES = 20, 6


def draw_codes(seed: int, k: int = 2, missing: float = 0.2) -> dict[str, Tensor]:
    """Codes per item, some missing, the same way for the same seed."""
    rng = np.random.default_rng(seed)
    codes = {}
    for modality in SCHEMA.modalities[1:]:
        drawn = rng.integers(NUM_CODES, size=(NUM_ITEMS, k))
        drawn[rng.random(drawn.shape) < missing] = -1
        codes[modality] = torch.from_numpy(drawn)
    return codes


def draw_histories(seed: int, count: int = 5, longest: int = 8) -> list[list[int]]:
    """Histories with repeated items and steps back; lengths from 1."""
    rng = np.random.default_rng(seed)
    return [
        rng.integers(NUM_ITEMS // 2, size=rng.integers(1, longest + 1)).tolist()
        for _ in range(count)
    ]


def draw_builder(seed: int, **kwargs: float) -> mmgraph.SequenceGraphBuilder:
    return mmgraph.SequenceGraphBuilder(SCHEMA, codes=draw_codes(seed, **kwargs))


def draw_graph(seed: int, count: int = 5) -> mmgraph.SequenceGraph:
    return draw_builder(seed)(draw_histories(seed, count))


def node_keys(graph: mmgraph.SequenceGraph) -> list[tuple[int, int, int]]:
    """What identifies a node whatever its number: graph, type, id."""
    return list(
        zip(graph.batch.tolist(), graph.node_type.tolist(), graph.node_id.tolist(), strict=True)
    )
