"""Indicators of a whole history."""

from __future__ import annotations

import pyarrow as pa

from pipelines.transform.indicators.bars import Bars
from pipelines.transform.indicators.columns import compute_columns
from pipelines.transform.indicators.series import SeriesContext
from pipelines.transform.indicators.spec import COLUMNS, arrow_schema


def compute(bars: pa.Table, series: SeriesContext) -> pa.Table:
    """Return the bars of one series with the indicator and state columns of `COLUMNS` behind their own.

    TA-Lib computes SMA, EMA, MACD, ATR, ROC, momentum, OBV and A/D. RSI, DI, ADX and Bollinger's bands follow the same
    formulas here: the former are ratios of sums that are stored anyway so that a later run can go on, the latter from
    moments without the rounding that TA-Lib's running sums carry along. Gaps are not filled: bars count one after
    another, except that a session's VWAP goes by time.

    Args:
        bars: the whole history: `timestamp` (UTC, rising), `high`, `low`, `close`, `volume` (may be null); other
            columns are passed through.
        series: the bars' instrument and timeframe.

    Raises:
        ContractError: a column is missing or already computed, a price is null, NaN or infinite, or times do not rise.
        ConfigError: the instrument names an unknown calendar.
    """
    checked = Bars.of(bars)
    if not len(checked):
        return with_columns(bars, [pa.array([], column.arrow_type) for column in COLUMNS])
    return with_columns(bars, compute_columns(checked, series))


def with_columns(bars: pa.Table, columns: list[pa.Array]) -> pa.Table:
    """Return the bars with the computed columns behind their own."""
    fields = list(bars.schema) + list(arrow_schema())
    return pa.Table.from_arrays([*bars.columns, *columns], schema=pa.schema(fields))
