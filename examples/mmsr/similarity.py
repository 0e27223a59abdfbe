"""How alike a candidate's features are to a history's, as a part of the score.

A recommender whose item vectors hold features has to learn from its first step that alike things
are bought together. Here that is in the score from the start, and training weighs it: by modality,
and by how far from the end of the history the step stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from examples.mmsr.protocol import Instances


@dataclass
class SimilarityRows:
    """The steps of some histories, one history after another.

    Args:
        items: ``[steps]``.
        history: ``[steps]``, whose step it is.
        distance: ``[steps]``, 0 for a history's last step, 1 for the one before it.
        share: ``[steps]``, one by the number of the history's steps.
        absent: ``[modalities, steps]``, where a modality is missing whatever the item has.
    """

    items: Tensor
    history: Tensor
    distance: Tensor
    share: Tensor
    absent: Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> SimilarityRows:
        """The same on another device."""
        parts = (self.items, self.history, self.distance, self.share, self.absent)
        return SimilarityRows(*(part.to(device, non_blocking=non_blocking) for part in parts))


class SimilarityScore(nn.Module):
    r"""What alike features add to the score of an item ``y`` after a history ``x_1 .. x_n``.

    .. math::
        s(y) = \sum_m \Big[\sum_{l=1}^{L} a_{m,l} \cos\big(z_m(x_{n+1-l}), z_m(y)\big)
            + \frac{b_m}{n} \sum_{i=1}^{n} \cos\big(z_m(x_i), z_m(y)\big)\Big]

    with :math:`z_m` an item's centred features of modality ``m``, whose cosine with anything is 0
    where the item, or the history's step, lacks the modality. The weights are learned; over ``M``
    modalities they start from :math:`a_{m,l} = 2 / (M l)` and :math:`b_m = 2 / M`.

    Args:
        features: by modality ``[num_items, width]``, as :func:`~examples.mmsr.items.reduced` makes
            them.
        steps: L.

    Raises:
        ValueError: there is no modality, or ``steps`` is not positive.
    """

    features: Tensor
    widths: Tensor

    def __init__(self, features: Mapping[str, Tensor], steps: int) -> None:
        super().__init__()
        if not features:
            raise ValueError("features: expected those of at least one modality, got none")
        if steps < 1:
            raise ValueError(f"steps: expected a positive number, got {steps}")
        self.modalities, self.steps = tuple(features), steps
        widths = torch.tensor([rows.shape[1] for rows in features.values()])
        self.register_buffer("widths", widths, persistent=False)
        unit = torch.cat([F.normalize(rows, dim=1) for rows in features.values()], dim=1)
        self.register_buffer("features", unit, persistent=False)
        start = 2 / torch.tensor([*range(1, steps + 1), 1]) / len(self.modalities)
        self.weight = nn.Parameter(start.repeat(len(self.modalities), 1))  # the last one is b

    def look_up(self, instances: Instances, absent: Mapping[str, np.ndarray]) -> SimilarityRows:
        """The steps of some instances' histories.

        Args:
            instances: some of a data set's.
            absent: by modality ``[steps]``, where it is dropped.
        """
        positions, offsets = instances.steps()
        lengths = np.diff(offsets)
        nowhere = np.zeros(len(positions), dtype=bool)
        return SimilarityRows(
            torch.from_numpy(instances.items[positions].astype(np.int64)),
            torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)),
            torch.from_numpy(np.repeat(instances.target, lengths) - 1 - positions),
            torch.from_numpy((1 / np.repeat(lengths, lengths)).astype(np.float32)),
            torch.from_numpy(np.stack([absent.get(m, nowhere) for m in self.modalities])),
        )

    def queries(self, rows: SimilarityRows, count: int) -> Tensor:
        """What the candidates' features are multiplied with, ``[count, width of all modalities]``.

        Args:
            rows: the steps.
            count: of histories.
        """
        near, everywhere = self.weight[:, :-1], self.weight[:, -1:]
        beyond = F.pad(near, (0, 1))[:, rows.distance.clamp(max=self.steps)]
        weights = (beyond + everywhere * rows.share).masked_fill(rows.absent, 0)
        parts = F.embedding(rows.items, self.features) * weights.T.repeat_interleave(
            self.widths, dim=1, output_size=self.features.shape[1]
        )
        return parts.new_zeros(count, parts.shape[1]).index_add(0, rows.history, parts)

    def forward(self, scores: Tensor, queries: Tensor) -> Tensor:
        """The scores ``[B, num_items]`` with what :meth:`queries` adds to them."""
        return scores + queries @ self.features.T

    def recipe(self) -> dict[str, object]:
        """Plain values and tensors that :meth:`from_recipe` takes."""
        parts = self.features.split(self.widths.tolist(), dim=1)
        features = {m: part.clone() for m, part in zip(self.modalities, parts, strict=True)}
        return {"features": features, "steps": self.steps}

    @classmethod
    def from_recipe(cls, recipe: dict[str, object]) -> SimilarityScore:
        """The similarities of a recipe, with the weights that training starts from."""
        return cls(**recipe)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        return f"modalities={self.modalities}, steps={self.steps}"
