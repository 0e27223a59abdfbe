"""Seconds: of a call in a block of its own, and of calls in turn with cold caches."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

Call = Callable[[], object]
Scope = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Effort:
    """How long a block lasts.

    Args:
        warmups: calls before it; one of them that takes ``seconds`` is all.
        seconds: stop after so long,
        least: but not before so many calls,
        most: and at the latest after so many.
        cold: calls per formulation of the interleaved reading,
        evicted: and the bytes written before each of them, to fill the caches otherwise.
    """

    warmups: int
    seconds: float
    least: int
    most: int
    cold: int
    evicted: int


def once(call: Call) -> float:
    """Seconds of one call; what it returns is freed outside of them."""
    start = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - start
    del result
    return seconds


def block(call: Call, effort: Effort) -> list[float]:
    """Seconds of each call, in a block of calls to nothing else, after warm-ups."""
    with _without_collector():
        for _ in range(effort.warmups):
            first = once(call)
            if first > effort.seconds > 0:
                return [first]  # long enough to be its own warm-up
        times: list[float] = []
        while len(times) < effort.least or sum(times) < effort.seconds:
            times.append(once(call))
            if len(times) == effort.most:
                break
    return times


def in_turn(calls: Sequence[tuple[Scope, Call]], effort: Effort) -> list[float]:
    """Median seconds of each call, made in turn, each after the caches were filled otherwise."""
    other = np.zeros(effort.evicted, np.int8)
    times: list[list[float]] = [[] for _ in calls]
    with _without_collector():
        for _ in range(effort.cold):
            for (scope, call), mine in zip(calls, times, strict=True):
                other += 1
                with scope():
                    mine.append(once(call))
    return [float(np.median(mine)) for mine in times]


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _cache_bytes() -> int:
    """Of the last cache, 32 MB where the system does not tell."""
    try:
        with open("/sys/devices/system/cpu/cpu0/cache/index3/size", encoding="ascii") as file:
            return int(file.read().strip().removesuffix("K")) * 1024
    except (OSError, ValueError):
        return 32 * 2**20


FULL = Effort(warmups=3, seconds=1.0, least=5, most=200, cold=7, evicted=2 * _cache_bytes())
SMOKE = Effort(warmups=1, seconds=0.0, least=2, most=2, cold=1, evicted=2**16)
