"""Ticks made out of 1m bars: the bars that are built from them again are the same ones, bit for bit."""

from __future__ import annotations

from typing import cast

import numpy as np
import polars as pl

from pipelines.sources.sample.noise import Floats, Ints, key, uniforms
from pipelines.timeframes import Timeframe

FEWEST, MOST, USUAL = 4, 60_000, 8
_BAR = Timeframe.M1.seconds * 1_000_000
# Of its share of the bar, a tick's instant uses so much: two ticks are never at one instant.
_USED = 0.9
_DIGITS = 8
_MANTISSA = 53


def expanded(asset_pair: str, bars: pl.DataFrame, ticks_per_bar: int = USUAL) -> pl.DataFrame:
    """Return the ticks of an asset's bars, in order of time: a pure function of the asset and each bar.

    The first tick of a bar is at its open, the last one at its close, the highest and lowest are its high and low; the
    volumes add up exactly, in whichever order. A bar without volume makes ticks without. `tick_id` is unique for an
    asset and the same each time.

    Args:
        asset_pair: whose bars they are.
        bars: one row per 1m bar, in order of time: `timestamp` (aware UTC), `open`, `high`, `low`, `close`, `volume`
            and `provider`.
        ticks_per_bar: how many; at least 4 and at most 60,000.

    Returns:
        `asset_pair`, `timestamp`, `price`, `volume`, `side`, `tick_id` and `provider`.
    """
    size = ticks_per_bar
    opens = bars["timestamp"].cast(pl.Int64).to_numpy()
    number = opens[:, None] // _BAR * size + np.arange(size)
    prices = _prices(bars, size)
    before = np.concatenate([prices[:, :1], prices[:, :-1]], axis=1)
    place = np.arange(size) + _USED * uniforms(key(asset_pair, "instants"), number)
    instants = opens[:, None] + (place * (_BAR / size)).astype(np.int64)
    weights = 0.5 + uniforms(key(asset_pair, "volumes"), number)
    frame = pl.DataFrame(
        {
            "timestamp": instants.ravel(),
            "price": prices.ravel(),
            "volume": _volumes(_column(bars, "volume"), weights).ravel(),
            "buys": (prices >= before).ravel(),
            "provider": bars["provider"].gather(np.repeat(np.arange(bars.height), size)),
        }
    )
    return frame.select(
        pl.lit(asset_pair).alias("asset_pair"),
        pl.col("timestamp").cast(pl.Datetime("us", "UTC")),
        "price",
        pl.col("volume").fill_nan(None),
        pl.when("buys").then(pl.lit("buy")).otherwise(pl.lit("sell")).alias("side"),
        pl.format("{}-{}", pl.lit(asset_pair), "timestamp").alias("tick_id"),
        "provider",
    )


def _column(bars: pl.DataFrame, name: str) -> Floats:
    """Return a column of numbers, with NaN for null."""
    return cast("Floats", bars[name].cast(pl.Float64).fill_null(np.nan).to_numpy())


def _prices(bars: pl.DataFrame, size: int) -> Floats:
    """Return a row of prices per bar: from the open to the far end, to the other end and to the close."""
    opens, highs, lows, closes = (_column(bars, name) for name in ("open", "high", "low", "close"))
    rising = closes >= opens
    turns = np.stack([opens, np.where(rising, lows, highs), np.where(rising, highs, lows), closes], axis=1)
    at = np.rint(np.linspace(0, size - 1, 4)).astype(np.int64)
    where = np.interp(np.arange(size), at, np.arange(4.0))
    begin = np.minimum(where.astype(np.int64), 2)
    share = where - begin
    prices = np.round(turns[:, begin] * (1.0 - share) + turns[:, begin + 1] * share, _DIGITS)
    inside: Floats = np.clip(prices, lows[:, None], highs[:, None])
    inside[:, at] = turns
    return inside


def _volumes(volumes: Floats, weights: Floats) -> Floats:
    """Share volumes out in whole multiples of one power of two each, so that every sum of parts is exact."""
    known = np.nan_to_num(volumes)
    unit = np.frexp(known)[1] - _MANTISSA
    # What is traded in whole units stays so.
    unit = np.where((known == np.floor(known)) & (unit < 0), 0, unit)
    units: Ints = np.ldexp(known, -unit).astype(np.int64)
    reached = np.cumsum(weights, axis=1)
    reached = np.floor(units[:, None] * (reached / reached[:, -1:])).astype(np.int64)
    reached[:, -1] = units
    parts = np.diff(reached, axis=1, prepend=0)
    shared: Floats = np.ldexp(parts.astype(np.float64), unit[:, None])
    shared[np.isnan(volumes)] = np.nan
    return shared
