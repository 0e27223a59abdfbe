"""The table of cases that every backend runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mmgraph import EdgeSet


def draw_edges(
    centres: int, neighbours: int, edges: int, relations: int = 3, hub: bool = False
) -> EdgeSet:
    """Some centres without edges, parallel edges, and with `hub` all edges at one centre."""
    source = torch.randint(max(neighbours, 1), (edges,))
    target = torch.randint(max(centres, 1), (edges,))
    if hub:
        target[:] = centres - 1
    elif centres > 2:
        target[target == 1] = 0
    return EdgeSet.from_edge_index(
        torch.stack([source, target]),
        (neighbours, centres),
        torch.randint(max(relations, 1), (edges,)),
    )


@dataclass(frozen=True)
class Case:
    centres: int = 5
    neighbours: int = 4
    edges: int = 17
    heads: int = 1
    channels: tuple[int, int] = (4, 4)
    given: tuple[str, ...] = ()
    slope: float | None = None
    typed: str = ""
    relations: tuple[int, int, int] = (3, 3, 3)  # those of typed query, key, value
    dtype: torch.dtype = torch.float32
    hub: bool = False
    scores: float = 1.0
    mixed: bool = False
    no_gradient: tuple[str, ...] = ()

    def leading(self, of: str) -> tuple[int, ...]:
        """The dimension of relations of the query ("q"), key or value, where it is typed."""
        return (self.relations["qkv".index(of)],) if of in self.typed else ()


EVERY = ("weight", "bias", "scale")
CASES = {
    "plain": Case(),
    "everything": Case(heads=2, channels=(3, 5), given=EVERY, slope=0.1),
    "64 centres": Case(64, 64, 300, channels=(16, 16), given=EVERY, slope=0.1),
    "hub": Case(4, 9, 75, heads=2, channels=(4, 8), given=EVERY, slope=0.2, hub=True),
    "one centre, wide": Case(1, 3, 5, channels=(200, 1000), slope=0.1),
    "additive": Case(heads=3, channels=(2, 6), slope=0.2),
    "slope of zero": Case(slope=0.0),
    "bias": Case(given=("bias",)),
    "scale": Case(heads=2, given=("scale",)),
    "weight": Case(heads=2, given=("weight",)),
    "thousands": Case(300, 400, 5000, heads=2, channels=(20, 20), given=EVERY, slope=0.1),
    "thousands, one hub": Case(3, 400, 5000, given=("weight",), slope=0.1, hub=True),
    "more channels than a vector": Case(channels=(260, 130), given=EVERY, slope=0.1),
    "large scores": Case(scores=1e4),
    "no edges": Case(edges=0, given=EVERY, slope=0.1),
    "no centres": Case(centres=0, edges=0, given=EVERY),
    "no neighbours": Case(neighbours=0, edges=0),
    "no channels of values": Case(channels=(4, 0), given=("bias",)),
    "no heads": Case(heads=0, given=EVERY),
    "typed query": Case(typed="q", heads=2, given=("weight", "scale"), slope=0.1),
    "typed key": Case(typed="k", heads=2, given=("weight", "bias")),
    "typed value": Case(typed="v", given=("scale",)),
    "typed": Case(typed="qkv", heads=2, channels=(2, 6), given=EVERY, slope=0.2),
    "more keys than values": Case(typed="qkv", relations=(3, 5, 4), given=("bias",), slope=0.2),
    "more values than keys": Case(typed="kv", relations=(3, 3, 6), heads=2),
    "bfloat16": Case(dtype=torch.bfloat16, heads=2, given=EVERY, slope=0.1),
    "float16": Case(dtype=torch.float16, heads=2, given=EVERY, slope=0.1),
    "mixed types": Case(dtype=torch.bfloat16, given=EVERY, slope=0.1, mixed=True),
    "only values": Case(given=EVERY, no_gradient=("query", "key", *EVERY)),
    "only keys": Case(given=EVERY, slope=0.1, no_gradient=("query", "value", *EVERY)),
    "only bias": Case(given=("bias",), no_gradient=("query", "key", "value")),
}


AGGREGATES = {
    "plain": Case(),
    "heads": Case(heads=2, channels=(3, 3)),
    "weights": Case(heads=2, given=("weight",)),
    "64 centres": Case(64, 64, 300, channels=(16, 16), given=("weight",)),
    "hub": Case(4, 9, 75, hub=True, given=("weight",)),
    "typed": Case(typed="v", heads=2, given=("weight",)),
    "thousands": Case(300, 400, 5000, channels=(20, 20), given=("weight",)),
    "no edges": Case(edges=0),
    "bfloat16": Case(dtype=torch.bfloat16, heads=2, given=("weight",)),
    "float16": Case(dtype=torch.float16),
}
