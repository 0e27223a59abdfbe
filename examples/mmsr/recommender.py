"""What the training loop, the evaluation and the commands ask of a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from examples.mmsr.missing import MissingConfig
from examples.mmsr.protocol import Instances
from examples.mmsr.similarity import SimilarityRows, SimilarityScore
from examples.mmsr.successors import SuccessorRows, SuccessorScore


@dataclass
class Batch:
    """What a loader makes of some instances.

    Args:
        inputs: what the model encodes: a graph, padded sequences.
        targets: ``[B]``, the items to be predicted.
        successors: what was counted after the histories' last items, where the model asks for it.
        similar: the histories' steps, where the model asks how alike candidates are to them.
    """

    inputs: Any
    targets: Tensor
    successors: SuccessorRows | None = None
    similar: SimilarityRows | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same on another device."""

        def moved(part: Any) -> Any:
            return None if part is None else part.to(device, non_blocking=non_blocking)

        return Batch(*map(moved, (self.inputs, self.targets, self.successors, self.similar)))


class Recommender(nn.Module, ABC):
    """Histories to scores of every item.

    A score is the product of a history's vector and the item's, and what ``successors`` and
    ``similarity`` add to it. A model says how instances become its input, in the loader, and how
    the two kinds of vector are made.

    Attributes:
        successors: what counted successors add to the scores, or None.
        similarity: what alike features add to the scores, or None.
        missing: what is dropped from histories.
    """

    missing = MissingConfig()
    successors: SuccessorScore | None  # no default: one of the class would hide the submodule
    similarity: SimilarityScore | None

    def __init__(self) -> None:
        super().__init__()
        self.successors = self.similarity = None

    @abstractmethod
    def prepare(self, instances: Instances) -> Any:
        """The input for some instances; called in the loader, on the CPU."""

    @abstractmethod
    def encode(self, inputs: Any) -> Tensor:
        """One vector per history, ``[B, channels]``."""

    @abstractmethod
    def item_vectors(self) -> Tensor:
        """One vector per item of the catalogue, ``[num_items, channels]``."""

    def batch(self, instances: Instances, training: bool = False) -> Batch:
        """Instances as the model takes them; called in the loader, on the CPU.

        Args:
            instances: some of a data set's.
            training: leaves each instance's own transitions out of what is counted.
        """
        return Batch(
            self.prepare(instances),
            torch.from_numpy(instances.targets),
            None if self.successors is None else self.successors.look_up(instances, training),
            None
            if self.similarity is None
            else self.similarity.look_up(instances, self.missing.absent(instances)),
        )

    def forward(self, batch: Batch) -> Tensor:
        """Scores of every item after each history, ``[B, num_items]``."""
        histories = self.encode(batch.inputs)
        return self.scores(histories, self.item_vectors(), batch, slice(0, len(batch)))

    def scores(self, histories: Tensor, items: Tensor, batch: Batch, rows: slice) -> Tensor:
        """Scores from vectors.

        Args:
            histories: ``[rows, channels]``, those of some rows of the batch.
            items: ``[num_items, channels]``.
            batch: for the successors and the steps' features.
            rows: which rows.
        """
        scores = histories @ items.T
        whole = len(histories) == len(batch)
        if self.similarity is not None and batch.similar is not None:
            scores = self.similarity(scores, batch.similar if whole else batch.similar.of(rows))
        if self.successors is not None and batch.successors is not None:
            successors = batch.successors
            scores = self.successors(
                scores, successors if whole else successors.of(rows, len(items))
            )
        return scores

    def score(self, instances: Instances) -> Tensor:
        """Scores as the metrics want them; the model should be in evaluation mode."""
        with torch.inference_mode():
            scores: Tensor = self(self.batch(instances))
            return scores
