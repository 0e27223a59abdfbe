"""Modalities that are missing from some steps of the histories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from examples.mmsr.protocol import Instances


@dataclass(frozen=True)
class MissingConfig:
    """What is dropped from histories; candidates keep it.

    Args:
        modalities: which; each is dropped on its own.
        share: of the steps, that lose it.
        seed: of the draw.

    Raises:
        ValueError: the share is not between 0 and 1.
    """

    modalities: tuple[str, ...] = ()
    share: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share: expected a number between 0 and 1, got {self.share}")

    def absent(self, instances: Instances) -> dict[str, np.ndarray]:
        """Where modalities are dropped: by modality ``[steps]``, in the order of the histories.

        A draw depends on the seed, the modality and the step's place in the data set alone, so
        that a step looks the same in every prefix and every epoch.
        """
        if not self.modalities or not self.share:
            return {}
        positions, _ = instances.steps()
        limit = np.uint64(min(int(self.share * 2**64), 2**64 - 1))
        return {
            modality: _mixed(positions, f"{self.seed} {modality}") <= limit
            for modality in self.modalities
        }


def _mixed(numbers: np.ndarray, key: str) -> np.ndarray:
    """Numbers to 64 random bits each: SplitMix64 (Steele et al., 2014), begun at the key."""
    start = np.frombuffer(key.encode().ljust(8, b" ")[:64], np.uint8).astype(np.uint64)
    state = np.uint64(0)
    with np.errstate(over="ignore"):
        for byte in start:
            state = _finish(state + byte + np.uint64(0x9E3779B97F4A7C15))
        return _finish(numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + state)


def _finish(bits: np.ndarray | np.uint64) -> np.ndarray | np.uint64:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
