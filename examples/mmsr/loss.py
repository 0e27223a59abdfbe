"""Cross-entropy over the whole catalogue, in pieces where its logits would not fit."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from examples.mmsr.recommender import Batch, Recommender

LARGEST = 2**27
"""More logits than this are made piece by piece."""


def cross_entropy(
    model: Recommender, batch: Batch, label_smoothing: float = 0.0, largest: int = LARGEST
) -> Tensor:
    """The sum over a batch of the targets' negative log-likelihood over all items.

    Pieces of plain products go through PyTorch's linear cross-entropy (2.13), which finds the
    gradients on its way forward. It knows no other scores, no label smoothing and no autocast:
    there, and in an older PyTorch, pieces are made again for their gradients.

    Args:
        model: which scores.
        batch: what, and the targets.
        label_smoothing: how much of the probability belongs to all items alike.
        largest: at most so many logits exist at a time, or one history's.
    """

    def of(vectors: Tensor, histories: Tensor, rows: slice) -> Tensor:
        scores = model.scores(histories, vectors, batch, rows)
        return F.cross_entropy(
            scores, batch.targets[rows], reduction="sum", label_smoothing=label_smoothing
        )

    histories, vectors = model.encode(batch.inputs), model.item_vectors()
    size = max(1, largest // max(len(vectors), 1))
    if len(batch) <= size:
        return of(vectors, histories, slice(0, len(batch)))
    if not label_smoothing and _plain(model, histories, vectors):
        options = nn.LinearCrossEntropyOptions(batch_chunk_size=size)
        return F.linear_cross_entropy(
            histories, vectors, batch.targets, reduction="sum", options=options
        )
    total = histories.new_zeros(())
    for begin in range(0, len(batch), size):
        rows = slice(begin, min(begin + size, len(batch)))
        piece = checkpoint(of, vectors, histories[rows], rows, use_reentrant=False)
        assert isinstance(piece, Tensor)
        total = total + piece
    return total


def _plain(model: Recommender, histories: Tensor, vectors: Tensor) -> bool:
    """Whether PyTorch's linear cross-entropy takes these scores, and there is one."""
    return (
        hasattr(nn, "LinearCrossEntropyOptions")
        and model.successors is None
        and model.similarity is None
        and type(model).scores is Recommender.scores
        and histories.dtype == vectors.dtype
        and not torch.is_autocast_enabled(histories.device.type)
    )
