"""Recommenders of sequences to compare with, on PyTorch's own layers."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from examples.mmsr.items import ItemFeatures
from examples.mmsr.protocol import Instances
from examples.mmsr.recommender import Recommender
from examples.mmsr.successors import SuccessorScore

PARTS = 4
"""A batch is encoded in so many, of alike lengths."""


@dataclass(frozen=True)
class SequentialConfig:
    """The sizes of a sequential recommender.

    Args:
        channels: width of every state.
        layers: of the GRU or the Transformer.
        heads: of its attention.
        dropout: on inputs and inside layers.
        max_length: only the last so many steps of a history count.
    """

    channels: int = 128
    layers: int = 1
    heads: int = 2
    dropout: float = 0.4
    max_length: int = 50


@dataclass
class Sequences:
    """Histories in a padded batch.

    Args:
        items: ``[B, L]``, oldest first, then padding (item 0).
        length: ``[B]``.
        absent: by modality ``[B, L]``, where it is dropped.
    """

    items: Tensor
    length: Tensor
    absent: dict[str, Tensor]

    @property
    def padding(self) -> Tensor:
        """``[B, L]``, true behind each history's end."""
        return torch.arange(self.items.shape[1], device=self.items.device) >= self.length[:, None]

    def last(self, states: Tensor) -> Tensor:
        """The states ``[B, L, C]`` at each history's last step, ``[B, C]``."""
        rows = torch.arange(len(states), device=states.device)
        return states[rows, self.length - 1]

    def rows(self, rows: Tensor) -> Sequences:
        """Some of the histories, padded no further than the longest of them."""
        length = self.length[rows]
        longest = max([1, *length.tolist()])
        return Sequences(
            self.items[rows, :longest],
            length,
            {modality: absent[rows, :longest] for modality, absent in self.absent.items()},
        )

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Sequences:
        """The same on another device."""
        return Sequences(
            self.items.to(device, non_blocking=non_blocking),
            self.length.to(device, non_blocking=non_blocking),
            {m: rows.to(device, non_blocking=non_blocking) for m, rows in self.absent.items()},
        )


class Sequential(Recommender):
    """What the sequential recommenders share: an item table, padded batches, dropout.

    Args:
        num_items: the size of the catalogue.
        config: sizes.
        side: features that enter the model, or None.
        features: what items' features add to their vectors as candidates, or None.
        successors: what counted successors add to the scores, or None.
    """

    def __init__(
        self,
        num_items: int,
        config: SequentialConfig,
        side: ItemFeatures | None = None,
        features: ItemFeatures | None = None,
        successors: SuccessorScore | None = None,
    ) -> None:
        super().__init__()
        self.config, self.side, self.features = config, side, features
        self.successors = successors
        self.items = nn.Embedding(num_items, config.channels)
        nn.init.normal_(self.items.weight, std=config.channels**-0.5)
        self.dropout = nn.Dropout(config.dropout)

    def prepare(self, instances: Instances) -> Sequences:
        longest = self.config.max_length
        recent = Instances(
            instances.items,
            instances.user,
            np.maximum(instances.start, instances.target - longest),
            instances.target,
        )
        positions, offsets = recent.steps()
        length = np.diff(offsets)
        rows = np.repeat(np.arange(len(recent)), length)
        columns = np.arange(len(positions)) - np.repeat(offsets[:-1], length)

        def padded(values: np.ndarray) -> Tensor:
            out = np.zeros((len(recent), int(length.max(initial=1))), values.dtype)
            out[rows, columns] = values
            return torch.from_numpy(out)

        absent = self.missing.absent(recent)
        return Sequences(
            padded(instances.items[positions]),
            torch.from_numpy(length),
            {modality: padded(dropped) for modality, dropped in absent.items()},
        )

    def encode(self, inputs: Sequences) -> Tensor:
        # Those of alike lengths go together: most are short, and on a CPU a step of padding costs
        # as much as one of a history.
        order = inputs.length.argsort()
        states = [self.last_state(inputs.rows(rows)) for rows in order.chunk(PARTS)]
        return torch.cat(states).index_select(0, order.argsort())

    @abstractmethod
    def last_state(self, inputs: Sequences) -> Tensor:
        """One vector per history, ``[B, channels]``."""

    def item_vectors(self) -> Tensor:
        vectors = self.items.weight
        return vectors if self.features is None else self.features.join(vectors)


class GRU4Rec(Sequential):
    """A GRU over the items; its last state is the history.

    Source: Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR
    2016, arXiv 1511.06939; with late fusion a GRU for each modality too, whose last states are
    joined by a linear map, after the parallel networks of Hidasi et al., RecSys 2016.
    """

    def __init__(
        self,
        num_items: int,
        config: SequentialConfig,
        side: ItemFeatures | None = None,
        features: ItemFeatures | None = None,
        successors: SuccessorScore | None = None,
    ) -> None:
        super().__init__(num_items, config, side, features, successors)
        channels = config.channels
        count = 1 if side is None else 1 + len(side.modalities)
        self.grus = nn.ModuleList(
            nn.GRU(channels, channels, config.layers, batch_first=True) for _ in range(count)
        )
        self.join = nn.Linear(count * channels, channels) if count > 1 else nn.Identity()

    def last_state(self, inputs: Sequences) -> Tensor:
        streams = [self.items(inputs.items)]
        if self.side is not None:
            streams += self.side.parts(inputs.items, inputs.absent)
        states = [
            inputs.last(gru(self.dropout(stream))[0])
            for gru, stream in zip(self.grus, streams, strict=True)
        ]
        joined: Tensor = self.join(torch.cat(states, 1))
        return joined


class SASRec(Sequential):
    """A causal Transformer over the items; its last state is the history.

    Source: Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018, arXiv
    1808.09781; with early fusion the features are added to the items before the first layer.
    Positions count from the oldest step kept, where the authors' count back from the last.
    """

    def __init__(
        self,
        num_items: int,
        config: SequentialConfig,
        side: ItemFeatures | None = None,
        features: ItemFeatures | None = None,
        successors: SuccessorScore | None = None,
    ) -> None:
        super().__init__(num_items, config, side, features, successors)
        channels = config.channels
        self.positions = nn.Embedding(config.max_length, channels)
        nn.init.normal_(self.positions.weight, std=channels**-0.5)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                channels,
                config.heads,
                channels,
                config.dropout,
                batch_first=True,
                norm_first=True,
            )
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(channels)

    def last_state(self, inputs: Sequences) -> Tensor:
        x = self.items(inputs.items)
        if self.side is not None:
            x = x + self.side(inputs.items, inputs.absent)
        x = self.dropout(x + self.positions.weight[: x.shape[1]])
        # What is behind a history's end is later than its last step: the causal mask hides it.
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
        for layer in self.layers:
            x = layer(x, src_mask=mask, is_causal=True)
        normed: Tensor = self.norm(inputs.last(x))
        return normed


class DIFSR(Sequential):
    r"""Attention whose scores see items, features and positions apart, and whose values are items.

    .. math::
        e = \sum_{s \in \{item, position, modalities\}} \frac{Q_s x_s \cdot K_s x_s}{\sqrt d},
        \qquad x' = \mathrm{softmax}(e)\, V x_{item}

    with :math:`d` the width of a head. Layers are normed at their inputs, as SASRec's here, where
    the authors norm their outputs.

    Source: Xie et al., "Decoupled Side Information Fusion for Sequential Recommendation", SIGIR
    2022, arXiv 2204.11046, without its auxiliary loss on attributes.
    """

    def __init__(
        self,
        num_items: int,
        config: SequentialConfig,
        side: ItemFeatures,
        features: ItemFeatures | None = None,
        successors: SuccessorScore | None = None,
    ) -> None:
        super().__init__(num_items, config, side, features, successors)
        channels = config.channels
        self.positions = nn.Embedding(config.max_length, channels)
        nn.init.normal_(self.positions.weight, std=channels**-0.5)
        sources = 2 + len(side.modalities)
        self.layers = nn.ModuleList(_DecoupledLayer(config, sources) for _ in range(config.layers))
        self.norm = nn.LayerNorm(channels)

    def last_state(self, inputs: Sequences) -> Tensor:
        assert self.side is not None
        x = self.dropout(self.items(inputs.items))
        positions = self.positions.weight[: x.shape[1]].expand_as(x)
        others = [positions, *self.side.parts(inputs.items, inputs.absent)]
        others = [self.dropout(part) for part in others]
        for layer in self.layers:
            x = layer(x, others)
        normed: Tensor = self.norm(inputs.last(x))
        return normed


class _DecoupledLayer(nn.Module):
    def __init__(self, config: SequentialConfig, sources: int) -> None:
        super().__init__()
        channels = config.channels
        self.heads = config.heads
        self.norm = nn.LayerNorm(channels)
        self.scores = nn.ModuleList(nn.Linear(channels, 2 * channels) for _ in range(sources))
        self.value = nn.Linear(channels, channels)
        self.join = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(config.dropout)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, channels),
            nn.ReLU(),
            self.dropout,
            nn.Linear(channels, channels),
        )

    def forward(self, x: Tensor, others: list[Tensor]) -> Tensor:
        normed = self.norm(x)
        # The sum of the sources' products is the product of their queries and keys, joined.
        both = [of(part) for of, part in zip(self.scores, (normed, *others), strict=True)]
        pairs = [part.chunk(2, -1) for part in both]
        query = torch.cat([self._split(q) for q, _ in pairs], -1)
        key = torch.cat([self._split(k) for _, k in pairs], -1)
        attended = F.scaled_dot_product_attention(
            query,
            key,
            self._split(self.value(normed)),
            dropout_p=self.dropout.p if self.training else 0.0,
            is_causal=True,
            scale=(x.shape[-1] // self.heads) ** -0.5,  # a source's width, not that of all joined
        )
        x = x + self.dropout(self.join(attended.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.feed_forward(x))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
