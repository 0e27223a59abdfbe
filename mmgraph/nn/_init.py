"""How parameters are made and drawn."""

from __future__ import annotations

import math
from typing import TypedDict

import torch
from torch import Tensor


class Factory(TypedDict):
    """Where and of which type a layer's parameters are made."""

    device: torch.device | str | None
    dtype: torch.dtype | None


def uniform_(tensor: Tensor, channels: int) -> Tensor:
    """MMSR's initialisation: uniform in ``(-1/sqrt(channels), 1/sqrt(channels))``."""
    bound = 1.0 / math.sqrt(channels)
    with torch.no_grad():
        return tensor.uniform_(-bound, bound)
