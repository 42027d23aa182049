"""Bars of one series as plain arrays, read from Arrow and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import ContractError
from pipelines.transform.indicators.series import Micros
from pipelines.transform.indicators.spec import COLUMNS

Values = npt.NDArray[np.float64]
Results = dict[str, Values]

_PRICES = ("high", "low", "close")


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars sorted by time; the first `known` of them have their results stored already.

    Attributes:
        at: opens, microseconds since the epoch, UTC.
        high: highest prices.
        low: lowest prices.
        close: last prices.
        volume: traded amounts; NaN where there is none.
        known: how many rows come before those to be computed.
    """

    at: Micros
    high: Values
    low: Values
    close: Values
    volume: Values
    known: int = 0

    @classmethod
    def of(cls, table: pa.Table, known: int = 0) -> Self:
        """Read bars from a table with `timestamp`, `high`, `low`, `close` and `volume`.

        Raises:
            ContractError: a column is missing or already computed, a price is null, NaN or infinite, or times do not
                rise.
        """
        missing = [name for name in ("timestamp", *_PRICES, "volume") if name not in table.column_names]
        if missing:
            raise ContractError(f"bars lack {', '.join(missing)}; indicators need timestamp, high, low, close, volume")
        computed = [column.name for column in COLUMNS if column.name in table.column_names]
        if computed:
            raise ContractError(f"the bars have {', '.join(computed)} already; give them without computed columns")
        high, low, close = (_prices(table, name) for name in _PRICES)
        volume = numbers(table, "volume")
        return cls(_times(table), high, low, close, np.where(np.isfinite(volume), volume, np.nan), known)

    def __len__(self) -> int:
        return self.close.size


def numbers(table: pa.Table, name: str) -> Values:
    """Return a column as float64, null as NaN."""
    column = table.column(name).cast(pa.float64())
    return np.asarray(column.to_numpy(), dtype=np.float64)


def _prices(table: pa.Table, name: str) -> Values:
    values = numbers(table, name)
    finite = np.isfinite(values)
    if not finite.all():
        when = table.column("timestamp")[int(np.argmin(finite))]
        raise ContractError(f"{name} is null, NaN or infinite in the bar of {when}; validate the bars before")
    return values


def _times(table: pa.Table) -> Micros:
    column = table.column("timestamp")
    if column.null_count:
        raise ContractError("bars have null timestamps; validate the bars before")
    at = np.asarray(pc.cast(column, pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy(), dtype=np.int64)
    rising = at[1:] > at[:-1]
    if not rising.all():
        where = int(np.argmin(rising))
        raise ContractError(
            f"the bar of {column[where + 1]} follows that of {column[where]}; "
            "give one series, sorted by timestamp, one row per bar"
        )
    return at
