"""Events at made-up but repeatable instants: time is cut into slots, and each slot has its own instant and draws."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from pipelines.sources.sample.noise import Floats, Ints, key, uniforms
from pipelines.timeframes import EPOCH

SECOND = 1_000_000
MINUTE = 60 * SECOND


def micros(instant: datetime) -> int:
    """Return microseconds since the epoch of an aware instant."""
    return (instant - EPOCH) // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Slots:
    """Equal spans of time, `seconds` long, each with at most one event of the stream (seed, pair, purpose)."""

    seed: int
    pair: str
    purpose: str
    seconds: int

    def between(self, start: datetime, end: datetime) -> tuple[Ints, Ints]:
        """Return the slot numbers and instants (microseconds, whole seconds) of events in [start, end)."""
        low, high = micros(start), micros(end)
        size = self.seconds * SECOND
        number = np.arange(low // size, -(-high // size), dtype=np.int64)
        instant = number * size + self.draws("instant", number, self.seconds) * SECOND
        inside = (instant >= low) & (instant < high)
        return number[inside], instant[inside]

    def uniform(self, what: str, number: Ints) -> Floats:
        """Return each slot's uniform draw in [0, 1) for one purpose."""
        return uniforms(key(self.seed, self.pair, self.purpose, what), number)

    def draws(self, what: str, number: Ints, sides: int) -> Ints:
        """Return each slot's draw of an integer in [0, sides)."""
        drawn: Ints = (self.uniform(what, number) * sides).astype(np.int64)
        return drawn


def trend(prices_now: Floats, prices_before: Floats, typical: float) -> Floats:
    """Return how far prices moved, in units of a typical move, within -3 to 3."""
    moved: Floats = np.clip(np.log(prices_now / prices_before) / typical, -3.0, 3.0)
    return moved
