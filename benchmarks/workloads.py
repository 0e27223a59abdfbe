"""What is measured on: seeded, named batches of histories, and their graphs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from mmgraph import GraphSchema, SequenceGraph, SequenceGraphBuilder


@dataclass(frozen=True)
class Workload:
    """Histories of length clip(Geometric(1/8) + 1, 2, 50), items drawn by rank^-0.8.

    Args:
        name: how the reports call it.
        num_graphs: histories.
        length: of every history; drawn by default.
        modalities: beside the items.
        codes: of each modality, K.
        k: codes per item and modality.
        num_items: the catalogue.
        channels: width of every state.
        seed: of everything drawn.
    """

    name: str
    num_graphs: int = 128
    length: int | None = None
    modalities: tuple[str, ...] = ("image", "text")
    codes: int = 30
    k: int = 3
    num_items: int = 12_000
    channels: int = 128
    seed: int = 0

    @property
    def schema(self) -> GraphSchema:
        return GraphSchema(("item", *self.modalities))

    @property
    def max_length(self) -> int:
        return self.length or 50

    def item_codes(self) -> dict[str, Tensor]:
        """``[num_items, k]`` per modality, uniform."""
        rng = np.random.default_rng((self.seed, 1))
        shape = (self.num_items, self.k)
        return {
            name: torch.from_numpy(rng.integers(0, self.codes, shape)) for name in self.modalities
        }

    def histories(self) -> list[list[int]]:
        rng = np.random.default_rng((self.seed, 0))
        if self.length is None:
            lengths = np.clip(rng.geometric(1 / 8, self.num_graphs) + 1, 2, 50)
        else:
            lengths = np.full(self.num_graphs, self.length)
        probability = np.arange(1, self.num_items + 1) ** -0.8
        items = rng.choice(self.num_items, lengths.sum(), p=probability / probability.sum())
        return [part.tolist() for part in np.split(items, lengths.cumsum()[:-1])]

    def builder(self) -> SequenceGraphBuilder:
        return SequenceGraphBuilder(self.schema, self.item_codes(), max_length=self.max_length)

    def graph(self) -> SequenceGraph:
        return _graph(self)

    def with_graphs(self, num_graphs: int, name: str | None = None) -> Workload:
        """The same with another number of histories, of which the first ones are not the same."""
        return replace(self, num_graphs=num_graphs, name=name or self.name)


@lru_cache(maxsize=1)
def _graph(workload: Workload) -> SequenceGraph:
    return workload.builder()(workload.histories())


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("paper"),
        Workload("released", codes=20, k=1),
        Workload("long", length=200),
        Workload("wide", modalities=("image", "text", "audio", "price")),
        Workload("large", num_graphs=17_700),  # 10 million edges
    )
}


def small(workload: Workload) -> Workload:
    """A workload's likeness that takes no time."""
    return replace(
        workload,
        num_graphs=6,
        length=workload.length and 20,
        num_items=100,
        codes=min(workload.codes, 8),
        channels=16,
    )
