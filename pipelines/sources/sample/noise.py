"""Counter-based randomness: every draw is a pure function of a key and an index, so any draw can be had on its own."""

from __future__ import annotations

import hashlib
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
Words: TypeAlias = npt.NDArray[np.uint64]
Floats: TypeAlias = npt.NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_LANES = np.uint64(0x0000FFFF0000FFFF)
_SUM = np.uint64(0x3FFFF)
# Mean and standard deviation of the sum of four uniform 16-bit integers.
_SUM_MEAN = 131_070.0
_SUM_STD = float(np.sqrt((65_536.0**2 - 1) / 3))


def key(*parts: object) -> np.uint64:
    """Return the key of a stream of draws, for example of a seed, an asset pair and a purpose."""
    return np.uint64(int(digest(*parts), 16))


def digest(*parts: object) -> str:
    """Return 16 hex digits that identify the parts."""
    return hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=8).hexdigest()


def words(stream: np.uint64, index: Ints) -> Words:
    """Return 64 random bits for each index (splitmix64 of the index in the stream)."""
    mixed = index.view(np.uint64) * _GOLDEN
    mixed += stream
    mixed ^= mixed >> np.uint64(30)
    mixed *= _MIX_1
    mixed ^= mixed >> np.uint64(27)
    mixed *= _MIX_2
    mixed ^= mixed >> np.uint64(31)
    return mixed


def normals(stream: np.uint64, index: Ints) -> Floats:
    """Return about normal draws, mean 0 and variance 1, within 3.5: the sum of each word's four 16-bit lanes."""
    bits = words(stream, index)
    pairs = bits & _LANES
    bits >>= np.uint64(16)
    bits &= _LANES
    pairs += bits
    sums = pairs >> np.uint64(32)
    sums += pairs
    sums &= _SUM
    drawn = sums.view(np.int64).astype(np.float64)
    drawn -= _SUM_MEAN
    drawn *= 1.0 / _SUM_STD
    return drawn


def uniforms(stream: np.uint64, index: Ints) -> Floats:
    """Return uniform draws in [0, 1)."""
    return (words(stream, index) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def lane(bits: Words, number: int) -> Floats:
    """Return one of a word's four 16-bit lanes as a uniform draw in [0, 1), coarse but cheap."""
    shifted = (bits >> np.uint64(16 * number)) & np.uint64(0xFFFF)
    drawn = shifted.view(np.int64).astype(np.float64)
    drawn *= 2.0**-16
    return drawn
