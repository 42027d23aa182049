"""Z-order: one order of rows that keeps rows near that are near in several columns at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

_BITS = 64


def zordered(rows: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Return the rows along the Z-curve of some columns; of a single one that is its order.

    Each column becomes its dense rank, and the ranks' bits are interleaved, the highest first (Morton, "A computer
    oriented geodetic data base", 1966). Ranks make the columns' scales and types comparable; nulls come first.
    """
    if len(columns) == 1:
        return rows.sort(columns[0], maintain_order=True)
    return rows[np.argsort(_curve(rows, columns), kind="stable")]


def _curve(rows: pl.DataFrame, columns: Sequence[str]) -> NDArray[np.uint64]:
    ranks = [_ranks(rows[name]) for name in columns]
    width = min(_BITS // len(columns), max((int(rank.max(initial=0)).bit_length() for rank in ranks), default=0))
    place = np.zeros(rows.height, np.uint64)
    for bit in reversed(range(width)):
        for rank in ranks:
            # Each column gives its highest bits: a column of two values decides as much as one of a million.
            shift = int(rank.max(initial=0)).bit_length() - width + bit
            place = (place << np.uint64(1)) | (_bit(rank, shift))
    return place


def _bit(rank: NDArray[np.uint64], position: int) -> NDArray[np.uint64]:
    if position < 0:
        return np.zeros_like(rank)
    return (rank >> np.uint64(position)) & np.uint64(1)


def _ranks(values: pl.Series) -> NDArray[np.uint64]:
    return values.rank("dense").fill_null(0).cast(pl.UInt64).to_numpy()
