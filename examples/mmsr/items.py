"""Item vectors that know the items' features, for candidates and for histories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional as F

from examples.mmsr.configuration import LATER
from examples.mmsr.data import Dataset


@dataclass(frozen=True)
class ScoreConfig:
    """What enters a model's scores beside the products of its histories and item embeddings.

    Args:
        features: whether an item's vector, as a candidate, has its features' projection added.
        components: each modality's features are reduced to so many principal components, but for
            attributes in ``similar``, which keep their width.
        id_dropout: probability that a candidate's embedding is left out of its vector in a training
            step, beside features, so that these learn to do without it.
        lags: steps between which successors are counted, such as [1, 2, 3, -1]; none by default.
        tied: whether the same projection of features enters the items of histories, too: MMSR's
            item nodes, or the inputs of recommenders that features enter.
        similar: steps from the end of a history whose features' likeness to a candidate's is
            weighed each on its own, beside the mean over all steps, those beyond a model's
            ``max_length`` included; 0 for none of it.
    """

    features: bool = False
    components: int = 96
    id_dropout: float = 0.0
    lags: tuple[int, ...] = ()
    tied: bool = field(default=False, metadata=LATER)
    similar: int = field(default=0, metadata=LATER)

    def __post_init__(self) -> None:
        if self.components < 1:
            raise ValueError(f"components: expected at least 1, got {self.components}")
        if not 0 <= self.id_dropout < 1:
            raise ValueError(f"id_dropout: expected at least 0 and below 1, got {self.id_dropout}")
        if self.similar < 0:
            raise ValueError(f"similar: expected a number of steps, got {self.similar}")
        if self.tied and not self.features:
            raise ValueError("tied: expected features beside it, got none")


class ItemFeatures(nn.Module):
    r"""The part of an item's vector that its features give.

    .. math:: f(y) = \sum_{\text{modality } m \text{ of } y} W_m\, z_m(y)

    with :math:`z_m` centred features of unit mean length, reduced to their principal components. A
    modality that an item lacks adds nothing.

    Args:
        features: by modality ``[num_items, width]``, as :func:`reduced` makes them.
        channels: of an item's vector.
        id_dropout: probability that :meth:`join` leaves out an item's embedding in training.

    Raises:
        ValueError: there is no modality.
    """

    def __init__(
        self, features: Mapping[str, Tensor], channels: int, id_dropout: float = 0.0
    ) -> None:
        super().__init__()
        if not features:
            raise ValueError("features: expected those of at least one modality, got none")
        self.modalities, self.id_dropout = tuple(features), id_dropout
        for number, rows in enumerate(features.values()):
            self.register_buffer(f"features_{number}", rows, persistent=False)
        self.projections = nn.ModuleList(
            nn.Linear(rows.shape[1], channels, bias=False) for rows in features.values()
        )
        for projection in self.projections:
            nn.init.normal_(projection.weight, std=0.05)

    def forward(
        self, items: Tensor | None = None, absent: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Vectors of the items, of all of them by default.

        Args:
            items: ``[...]``, which.
            absent: by modality ``[...]``, where it is missing whatever the item has.

        Returns:
            ``[..., channels]``.
        """
        first, *others = self.parts(items, absent)
        for part in others:
            first = first + part
        return first

    def join(self, embeddings: Tensor) -> Tensor:
        """Vectors of all items as candidates: their features' and their embeddings, summed.

        In training whole embeddings are left out at random, as Volkovs et al. do for users and
        items ("DropoutNet", NIPS 2017).

        Args:
            embeddings: ``[num_items, channels]``.
        """
        ones = embeddings.new_ones(len(embeddings), 1)
        kept = F.dropout(ones, self.id_dropout, self.training and self.id_dropout > 0)
        return torch.addcmul(self(), kept, embeddings)

    def parts(
        self, items: Tensor | None = None, absent: Mapping[str, Tensor] | None = None
    ) -> list[Tensor]:
        """The same before the sum, modality by modality."""
        parts = []
        for (name, rows), projection in zip(self.rows().items(), self.projections, strict=True):
            part = projection(rows if items is None else F.embedding(items, rows))
            if absent is not None and name in absent:
                part = part.masked_fill(absent[name].unsqueeze(-1), 0)
            parts.append(part)
        return parts

    def rows(self) -> dict[str, Tensor]:
        """The features by modality."""
        return {m: self.get_buffer(f"features_{i}") for i, m in enumerate(self.modalities)}


def reduced(data: Dataset, components: int) -> dict[str, Tensor]:
    """The features of a data set for :class:`ItemFeatures`."""
    return {modality: _reduce(rows, components) for modality, rows in data.features.items()}


def _reduce(features: np.ndarray | sparse.csr_array, components: int) -> Tensor:
    """Centred principal components of unit mean length; zeros where the modality is missing.

    Args:
        features: ``[items, width]``, rows of NaN, or empty ones of a sparse matrix, being missing.
        components: at most so many columns.
    """
    dense = features if isinstance(features, np.ndarray) else features.toarray()
    rows = torch.from_numpy(dense).double()
    missing = rows.isnan().any(1) if isinstance(features, np.ndarray) else ~rows.any(1)
    known = rows[~missing]
    if not len(known):
        return torch.zeros(len(rows), min(components, rows.shape[1]))
    known = known - known.mean(0)
    if components < known.shape[1]:
        _, directions = torch.linalg.eigh(known.T @ known)
        known = known @ directions[:, -components:]
    result = known.new_zeros(len(rows), known.shape[1])
    length = known.norm(dim=1).mean()
    result[~missing] = known / length if length > 0 else known  # zeros where all rows are alike
    return result.float()


def weighed(attributes: sparse.csr_array) -> sparse.csr_array:
    """Multi-hot rows for :class:`~examples.mmsr.similarity.SimilarityScore`.

    Each attribute counts by ``log(items / items that have it)``, its inverse document frequency
    (Spärck Jones, 1972): a shared brand says more than a shared category, and what all items have
    says nothing.
    """
    held = np.bincount(attributes.indices, minlength=attributes.shape[1])
    frequency = attributes.shape[0] / np.maximum(held, 1)
    rows = attributes.astype(np.float64)
    rows.data *= np.log(frequency)[attributes.indices]
    return rows
