"""What the training loop, the evaluation and the commands ask of a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from examples.mmsr.protocol import Instances


class Recommender(nn.Module, ABC):
    """Histories to scores of every item: products of a history's vector and the items'.

    A model says how instances become its input, in the loader, and how the two kinds of vector are
    made.
    """

    @abstractmethod
    def prepare(self, instances: Instances) -> Any:
        """The input for some instances; called in the loader, on the CPU."""

    @abstractmethod
    def encode(self, inputs: Any) -> Tensor:
        """One vector per history, ``[B, channels]``."""

    @abstractmethod
    def item_vectors(self) -> Tensor:
        """One vector per item of the catalogue, ``[num_items, channels]``."""

    def forward(self, inputs: Any) -> Tensor:
        """Scores of every item after each history, ``[B, num_items]``."""
        return self.encode(inputs) @ self.item_vectors().T

    def score(self, instances: Instances) -> Tensor:
        """Scores as the metrics want them; the model should be in evaluation mode."""
        with torch.inference_mode():
            scores: Tensor = self(self.prepare(instances))
            return scores
