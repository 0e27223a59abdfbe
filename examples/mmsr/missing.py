"""Modalities that are missing from some steps of the histories."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from examples.mmsr.configuration import LATER
from examples.mmsr.protocol import Instances

Which = Literal["each", "one", "all"]


@dataclass(frozen=True)
class MissingConfig:
    """What is dropped from histories; candidates keep it.

    Args:
        modalities: those that may be dropped.
        share: of the steps that lose something.
        seed: of the draw.
        which: of several modalities. ``"each"``: every one from a share of the steps of its own;
            ``"one"``: from a share of the steps, one of them each time, evenly drawn; ``"all"``:
            from these steps, all of them.

    Raises:
        ValueError: the share is not between 0 and 1, or ``which`` is another word.
    """

    modalities: tuple[str, ...] = ()
    share: float = 0.0
    seed: int = 0
    which: Which = field(default="each", metadata=LATER)

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share: expected a number between 0 and 1, got {self.share}")
        if self.which not in get_args(Which):
            raise ValueError(f"which: expected one of {get_args(Which)}, got {self.which!r}")

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> MissingConfig:
        """The configuration of which these are the fields, as JSON keeps them."""
        return cls(**{**plain, "modalities": tuple(plain["modalities"])})

    def absent(self, instances: Instances) -> dict[str, np.ndarray]:
        """Where modalities are dropped: by modality ``[steps]``, in the order of the histories.

        A draw depends on the configuration and the step's place in the data set alone, so that a
        step looks the same in every prefix and every epoch.
        """
        if not self.modalities or not self.share:
            return {}
        positions, _ = instances.steps()
        if self.which == "each":
            return {name: self._drawn(positions, name) for name in self.modalities}
        dropped = self._drawn(positions, "steps")
        if self.which == "all":
            return dict.fromkeys(self.modalities, dropped)
        one = _mixed(positions, f"{self.seed} one") % np.uint64(len(self.modalities))
        return {name: dropped & (one == place) for place, name in enumerate(self.modalities)}

    def _drawn(self, positions: np.ndarray, key: str) -> np.ndarray:
        """A share of the positions, as a mask."""
        limit = np.uint64(min(int(self.share * 2**64), 2**64 - 1))
        return _mixed(positions, f"{self.seed} {key}") <= limit


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
