"""How alike a candidate's features are to a history's, as a part of the score.

A recommender whose item vectors hold features has to learn from its first step that alike things
are bought together. Here that is in the score from the start, and training weighs it: by modality,
and by how far from the end of the history the step stands.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
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
        absent: ``[steps, modalities]``, where a modality is missing whatever the item has.
    """

    items: Tensor
    history: Tensor
    distance: Tensor
    share: Tensor
    absent: Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> SimilarityRows:
        """The same on another device."""
        parts = (part.to(device, non_blocking=non_blocking) for part in self._parts())
        return SimilarityRows(*parts)

    def of(self, rows: slice) -> SimilarityRows:
        """The steps of these histories alone."""
        inside = (self.history >= rows.start) & (self.history < rows.stop)
        steps = SimilarityRows(*(part[inside] for part in self._parts()))
        steps.history -= rows.start
        return steps

    def _parts(self) -> tuple[Tensor, ...]:
        return self.items, self.history, self.distance, self.share, self.absent


class SimilarityScore(nn.Module):
    r"""What alike features add to the score of an item ``y`` after a history ``x_1 .. x_n``.

    .. math::
        s(y) = \sum_m \Big[\sum_{l=1}^{L} a_{m,l} \cos\big(z_m(x_{n+1-l}), z_m(y)\big)
            + \frac{b_m}{n} \sum_{i=1}^{n} \cos\big(z_m(x_i), z_m(y)\big)\Big]

    over the whole history, however few of its steps the recommender reads, with :math:`z_m` an
    item's features of modality ``m``, whose cosine with anything is 0 where the item, or the
    history's step, lacks the modality. The weights are learned; over ``M`` modalities they start
    from :math:`a_{m,l} = 2 / (M l)` and :math:`b_m = 2 / M`.

    Args:
        features: by modality ``[num_items, width]``, dense or sparse.
        steps: L.

    Raises:
        ValueError: there is no modality, or ``steps`` is not positive.
    """

    def __init__(self, features: Mapping[str, Tensor | sparse.csr_array], steps: int) -> None:
        super().__init__()
        if not features:
            raise ValueError("features: expected those of at least one modality, got none")
        if steps < 1:
            raise ValueError(f"steps: expected a positive number, got {steps}")
        self.features, self.steps = dict(features), steps
        self.cosines = nn.ModuleList(
            DenseCosines(rows) if isinstance(rows, Tensor) else SparseCosines(rows)
            for rows in features.values()
        )
        start = 2 / torch.tensor([*range(1, steps + 1), 1]) / len(features)
        self.weight = nn.Parameter(start.repeat(len(features), 1))  # the last column is b

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
            torch.from_numpy(np.stack([absent.get(m, nowhere) for m in self.features], axis=1)),
        )

    def forward(self, scores: Tensor, rows: SimilarityRows) -> Tensor:
        """The scores ``[B, num_items]`` with what the histories' features add to them."""
        near, everywhere = F.pad(self.weight[:, :-1].T, (0, 0, 0, 1)), self.weight[:, -1]
        weights = near[rows.distance.clamp(max=self.steps)]
        weights = torch.addcmul(weights, rows.share.to(weights).unsqueeze(1), everywhere)
        weights = weights.masked_fill(rows.absent, 0)
        # In half precision sums would round to ties, and sparse products have no gradient.
        with torch.autocast(scores.device.type, enabled=False):
            for cosines, weight in zip(self.cosines, weights.unbind(1), strict=True):
                scores = scores + cosines(rows.items, rows.history, weight, len(scores))
        return scores

    def recipe(self) -> dict[str, Any]:
        """Plain values and tensors that :meth:`from_recipe` takes."""
        features: dict[str, Any] = {}
        for modality, rows in self.features.items():
            features[modality] = rows
            if not isinstance(rows, Tensor):
                arrays = (rows.data, rows.indices, rows.indptr)
                features[modality] = [*(torch.from_numpy(a.copy()) for a in arrays), rows.shape]
        return {"features": features, "steps": self.steps}

    @classmethod
    def from_recipe(cls, recipe: dict[str, Any]) -> SimilarityScore:
        """The similarities of a recipe, with the weights that training starts from."""
        features: dict[str, Tensor | sparse.csr_array] = {}
        for modality, rows in recipe["features"].items():
            if not isinstance(rows, Tensor):
                *arrays, shape = rows
                rows = sparse.csr_array(tuple(a.numpy() for a in arrays), shape=shape)
            features[modality] = rows
        return cls(features, recipe["steps"])

    def extra_repr(self) -> str:
        return f"modalities={tuple(self.features)}, steps={self.steps}"


class Cosines(nn.Module, ABC):
    """Weighed cosines of histories' steps with all items, in one modality."""

    @abstractmethod
    def forward(self, items: Tensor, history: Tensor, weight: Tensor, count: int) -> Tensor:
        """Their sums over each history's steps, ``[count, num_items]``.

        Args:
            items: ``[steps]``.
            history: ``[steps]``, whose step it is.
            weight: ``[steps]``.
            count: of histories.
        """


class DenseCosines(Cosines):
    """Of features in a matrix.

    Args:
        features: ``[num_items, width]``; a row of zeros is like nothing.
    """

    unit: Tensor

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.register_buffer("unit", F.normalize(features, dim=1), persistent=False)

    def forward(self, items: Tensor, history: Tensor, weight: Tensor, count: int) -> Tensor:
        parts = F.embedding(items, self.unit) * weight.unsqueeze(1)
        queries = parts.new_zeros(count, parts.shape[1]).index_add(0, history, parts)
        return queries @ self.unit.T


class SparseCosines(Cosines):
    """Of few features among many, such as attributes.

    Args:
        features: ``[num_items, width]``; an empty row is like nothing.
    """

    begin: Tensor
    index: Tensor
    value: Tensor

    def __init__(self, features: sparse.csr_array) -> None:
        super().__init__()
        length = np.sqrt((features * features).sum(axis=1))
        length[length == 0] = 1
        self.shape = features.shape
        sizes = np.diff(features.indptr)
        item = np.repeat(np.arange(len(sizes)), sizes)
        # As plain tensors: DistributedDataParallel does not take a sparse buffer.
        arrays = {
            "begin": features.indptr.astype(np.int64),
            "index": np.stack([item, features.indices]).astype(np.int64),
            "value": (features.data / length[item]).astype(np.float32),
        }
        for name, array in arrays.items():
            self.register_buffer(name, torch.from_numpy(array), persistent=False)

    def forward(self, items: Tensor, history: Tensor, weight: Tensor, count: int) -> Tensor:
        width = self.shape[1]
        begin = self.begin[items]
        size = self.begin[items + 1] - begin
        step = torch.repeat_interleave(size)
        within = torch.arange(len(step), device=step.device) - (size.cumsum(0) - size)[step]
        entry = begin[step] + within
        place = self.index[1, entry] * count + history[step]
        queries = weight.new_zeros(width * count)
        queries = queries.index_add(0, place, weight[step] * self.value[entry])
        unit = torch.sparse_coo_tensor(
            self.index, self.value, self.shape, is_coalesced=True, check_invariants=False
        )
        # Transposed here, once: adding the view to the scores takes several times as long.
        return torch.sparse.mm(unit, queries.view(width, count)).T.contiguous()
