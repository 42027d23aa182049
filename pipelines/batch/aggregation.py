"""Bars built here from finer bars of the same provider, where the provider has none of that length."""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from pipelines.intervals import Interval, IntervalSet
from pipelines.timeframes import Timeframe


def aggregate(base: pa.Table, timeframe: Timeframe) -> pa.Table:
    """Aggregate finer bars: first open, highest high, lowest low, last close, summed volume.

    Args:
        base: columns timestamp (UTC), open, high, low, close, volume; one row per bar, in any order.
        timeframe: the length to build; bars are aligned to the Unix epoch in UTC.

    Returns:
        The same columns, one row per bar that has at least one finer bar; volume is null where all are.
    """
    frame = pl.from_arrow(base.select(["timestamp", "open", "high", "low", "close", "volume"]))
    if not isinstance(frame, pl.DataFrame):
        raise TypeError("expected a table of bars")
    bars = (
        frame.sort("timestamp")
        .group_by(pl.col("timestamp").dt.truncate(timeframe.value), maintain_order=True)
        .agg(
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            pl.when(pl.col("volume").is_not_null().any()).then(pl.col("volume").sum()).alias("volume"),
        )
    )
    return bars.to_arrow().cast(pa.schema([(name, base.schema.field(name).type) for name in bars.columns]))


def whole_bars(covered: IntervalSet, timeframe: Timeframe) -> IntervalSet:
    """Return the part of the finer bars' coverage that makes complete bars of `timeframe`."""
    parts = []
    for part in covered:
        start, end = timeframe.ceil(part.start), timeframe.floor(part.end)
        if start < end:
            parts.append(Interval(start, end))
    return IntervalSet(parts)
