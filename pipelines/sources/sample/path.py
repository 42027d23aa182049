"""A price path that is a pure function of absolute time: an Ornstein-Uhlenbeck process by midpoint refinement.

Knots far apart are independent draws; each midpoint between two known points is drawn from the process's exact law
given both, with a draw that depends only on its level and position. So any minute can be had without the ones before
it, and the same minute always has the same price, whatever window it is asked in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipelines.sources.sample.noise import Floats, Ints, key, normals
from pipelines.sources.sample.profile import Profile

_TOP = 22  # knots 2**22 minutes, eight years, apart
_REGIME = 13  # volatility changes every 2**13 minutes, six days
_BLOCK = 8  # the last 2**8 minutes are refined side by side
_BLOCK_SIZE = 1 << _BLOCK
_REGIME_STRENGTH = 0.35
_MINUTES_PER_DAY = 1440.0


@dataclass(frozen=True, slots=True)
class _Level:
    """How midpoints of knots 2**level minutes apart are drawn."""

    stream: np.uint64
    pull: float
    noise: float


class PricePath:
    """Log prices relative to the level, per minute since the epoch (minutes may be negative)."""

    def __init__(self, seed: int, pair: str, profile: Profile) -> None:
        variance = profile.spread**2
        speed = profile.daily**2 / (2.0 * variance * _MINUTES_PER_DAY)
        self._reach = profile.reach
        self._spread = profile.spread
        self._knots = key(seed, pair, "knots")
        self._regimes = key(seed, pair, "regimes")
        self._levels = {
            level: _Level(
                key(seed, pair, "level", level),
                0.5 / math.cosh(speed * 2.0 ** (level - 1)),
                math.sqrt(variance * math.tanh(speed * 2.0 ** (level - 1))),
            )
            for level in range(1, _TOP + 1)
        }

    def steps(self, minutes: Ints) -> tuple[Floats, Floats]:
        """Return exp(log price) at each minute and at the one after it, for sorted minutes."""
        number = minutes >> _BLOCK
        first = np.empty(minutes.shape, dtype=np.bool_)
        first[:1] = True
        np.not_equal(number[1:], number[:-1], out=first[1:])
        values = self._blocks(number[first])
        flat = (np.cumsum(first) - 1) * (_BLOCK_SIZE + 1) + (minutes & (_BLOCK_SIZE - 1))
        return values.take(flat), values.take(flat + 1)

    def at(self, minutes: Ints) -> Floats:
        """Return exp(log price) at minutes in any order."""
        unique, where = np.unique(minutes, return_inverse=True)
        return self.steps(unique)[0][where]

    def _blocks(self, blocks: Ints) -> Floats:
        """Return the flattened values of blocks of minutes, each with its end point."""
        low, high = int(blocks[0]), int(blocks[-1]) + 1
        knots = self._coarse(low, high)
        position = blocks - low
        values = np.stack([knots[position], knots[position + 1]], axis=1)
        scale = self._regime(blocks >> (_REGIME - _BLOCK))[:, None]
        for level in range(_BLOCK, 0, -1):
            values = self._refined(level, values, blocks << (_BLOCK - level), scale)
        flat = values.ravel()
        np.clip(flat, -self._reach, self._reach, out=flat)
        exponentials: Floats = np.exp(flat, out=flat)
        return exponentials

    def _coarse(self, low: int, high: int) -> Floats:
        """Return the knots at the blocks' ends, from block `low` to the start of block `high`, both included."""
        shift = _TOP - _BLOCK
        start, stop = low >> shift, -(-high >> shift)
        values = normals(self._knots, np.arange(start, stop + 1)) * self._spread
        for level in range(_TOP, _BLOCK, -1):
            parents = np.arange(start, stop)
            scale: Floats | float = 1.0
            if level <= _REGIME:
                scale = self._regime(parents >> (_REGIME - level))
            values = self._halved(level, values, parents, scale)
            # Keep only what the next, finer level needs.
            shift = level - 1 - _BLOCK
            begin, end = low >> shift, -(-high >> shift)
            values = values[begin - 2 * start : end - 2 * start + 1]
            start, stop = begin, end
        return values

    def _halved(self, level: int, knots: Floats, parents: Ints, scale: Floats | float) -> Floats:
        """Halve the spacing of one row of knots; `parents` numbers the gaps between them."""
        rule = self._levels[level]
        refined = np.empty(2 * parents.size + 1)
        refined[::2] = knots
        refined[1::2] = (knots[:-1] + knots[1:]) * rule.pull + normals(rule.stream, parents) * (scale * rule.noise)
        return refined

    def _refined(self, level: int, values: Floats, first: Ints, scale: Floats) -> Floats:
        """Halve the spacing within every block; `first` is each block's first knot number at this level."""
        rule = self._levels[level]
        rows, knots = values.shape
        numbers = first[:, None] + np.arange(knots - 1)
        middle = normals(rule.stream, numbers)
        middle *= scale * rule.noise
        refined = np.empty((rows, 2 * knots - 1))
        refined[:, ::2] = values
        mean = values[:, :-1] + values[:, 1:]
        mean *= rule.pull
        np.add(mean, middle, out=refined[:, 1::2])
        return refined

    def _regime(self, number: Ints) -> Floats:
        """Return how lively the market is in a regime, around 1."""
        lively: Floats = np.exp(normals(self._regimes, np.ascontiguousarray(number)) * _REGIME_STRENGTH)
        return lively
