"""A recommender without a network: counted successors and alike features, weighed by training."""

from __future__ import annotations

import torch
from torch import Tensor

from examples.mmsr.protocol import Instances
from examples.mmsr.recommender import Recommender
from examples.mmsr.successors import SuccessorScore


class Evidence(Recommender):
    """Scores of ``successors`` and ``similarity`` alone: every history's vector is zero.

    Args:
        num_items: the size of the catalogue.
        successors: what counted successors add to the scores, or None.
    """

    nothing: Tensor

    def __init__(self, num_items: int, successors: SuccessorScore | None = None) -> None:
        super().__init__()
        self.successors = successors
        self.register_buffer("nothing", torch.zeros(num_items, 1), persistent=False)

    def prepare(self, instances: Instances) -> Tensor:
        return torch.zeros(len(instances), 1)

    def encode(self, inputs: Tensor) -> Tensor:
        return inputs.to(self.nothing.dtype)

    def item_vectors(self) -> Tensor:
        return self.nothing
