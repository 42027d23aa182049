"""Sample bars: minutes of the price path, and longer bars as exact aggregations of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np
import pyarrow as pa

from pipelines.calendars import ALWAYS, FOREX, sessions
from pipelines.instruments import AssetClass, Instrument
from pipelines.sources.base import empty_bars
from pipelines.sources.sample.noise import Floats, Ints, key, lane, words
from pipelines.sources.sample.path import PricePath
from pipelines.sources.sample.profile import Profile, profile_of
from pipelines.timeframes import EPOCH, Timeframe

_MINUTE = 60_000_000
_DAY = 1440
# Days worked on at once: arrays stay in the processor's cache and memory stays small however long the window is.
_CHUNK = {ALWAYS: 45, FOREX: 60}
_CHUNK_EXCHANGE = 180
# Liveliness by UTC hour: London and New York for forex, mildly the same for crypto.
_HOURS = {
    AssetClass.FOREX: (5, 5, 5, 5, 5, 6, 9, 14, 16, 15, 14, 14, 17, 20, 21, 20, 18, 14, 11, 9, 8, 5, 4, 4),
    AssetClass.CRYPTO: (10, 9, 9, 9, 9, 9, 9, 10, 11, 11, 11, 11, 12, 14, 16, 16, 15, 14, 13, 12, 12, 11, 10, 10),
}


@dataclass(frozen=True, slots=True)
class _Bars:
    """Columns of bars; `open_minute` is minutes since the epoch."""

    open_minute: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats


class BarMaker:
    """Makes one instrument's bars; equal arguments always give equal bars, bit for bit."""

    def __init__(self, seed: int, instrument: Instrument) -> None:
        self._instrument = instrument
        self._profile = profile_of(instrument)
        self._path = PricePath(seed, instrument.pair, self._profile)
        self._details = key(seed, instrument.pair, "details")

    def table(self, timeframe: Timeframe, start: datetime, end: datetime) -> pa.Table:
        """Return the bars that open in [start, end), aware UTC, as timestamp, OHLC and volume."""
        first, last = (_minute(timeframe.ceil(bound)) for bound in (start, end))
        parts = [self._chunk(timeframe, low, high) for low, high in _chunks(first, last, self._instrument.calendar)]
        parts = [part for part in parts if part.open_minute.size]
        if not parts:
            return empty_bars()
        names = ("open", "high", "low", "close", "volume")
        instants = np.concatenate([part.open_minute for part in parts]) * _MINUTE
        return pa.table(
            {
                "timestamp": pa.array(instants).view(pa.timestamp("us", "UTC")),
                **{name: pa.array(np.concatenate([getattr(part, name) for part in parts])) for name in names},
            }
        )

    def prices_at(self, minutes: Ints) -> Floats:
        """Return the price at the start of each minute (since the epoch), which is the open of its 1m bar."""
        return self._rounded(self._path.at(minutes) * self._profile.level)

    def _chunk(self, timeframe: Timeframe, low: int, high: int) -> _Bars:
        minutes, lively = self._open_minutes(low, high)
        if not minutes.size:
            nothing = np.array([])
            return _Bars(minutes, nothing, nothing, nothing, nothing, nothing)
        bars = self._minutes(minutes, lively)
        return bars if timeframe is Timeframe.M1 else _aggregated(bars, timeframe.seconds // 60)

    def _open_minutes(self, low: int, high: int) -> tuple[Ints, Floats]:
        """Return the minutes of [low, high) with trading, and how lively each usually is, around 1."""
        found = sessions(self._instrument, *(EPOCH + timedelta(minutes=bound) for bound in (low, high)))
        opens, closes = found.opens // _MINUTE, -(-found.closes // _MINUTE)
        cut_opens, cut_closes = np.maximum(opens, low), np.minimum(closes, high)
        lengths = np.maximum(cut_closes - cut_opens, 0)
        offsets = np.cumsum(lengths) - lengths
        minutes = np.arange(int(lengths.sum())) + np.repeat(cut_opens - offsets, lengths)
        by_hour = _by_minute_of_day(self._instrument.asset_class)
        if by_hour is not None:
            return minutes, by_hour.take(minutes % _DAY)
        done = (minutes - np.repeat(opens, lengths)) / np.repeat(closes - opens, lengths)
        return minutes, 0.6 + 1.2 * (2.0 * done - 1.0) ** 2

    def _minutes(self, minutes: Ints, lively: Floats) -> _Bars:
        profile = self._profile
        opens, closes = self._path.steps(minutes)
        details = words(self._details, minutes)
        wick = profile.daily / math.sqrt(_DAY)
        highs = np.maximum(opens, closes) * (1.0 + wick * np.square(lane(details, 0)))
        lows = np.minimum(opens, closes) * (1.0 - wick * np.square(lane(details, 1)))
        moved = np.abs(closes - opens) / (wick * opens)
        volume = _volumes(profile, lively * (0.25 + 3.0 * lane(details, 2) ** 3) * (0.5 + 0.6 * moved))
        level = profile.level
        opens, highs, lows, closes = (self._rounded(part * level) for part in (opens, highs, lows, closes))
        return _Bars(minutes, opens, highs, lows, closes, volume)

    def _rounded(self, prices: Floats) -> Floats:
        """Round to the instrument's digits, strictly inside its bounds; the division makes exact decimals."""
        scale = 10.0**self._profile.decimals
        ticks = prices * scale
        np.rint(ticks, out=ticks)
        low = max(math.floor(self._instrument.price_min * scale) + 1, 1)
        np.clip(ticks, low, math.ceil(self._instrument.price_max * scale) - 1, out=ticks)
        ticks /= scale
        return ticks


def _volumes(profile: Profile, activity: Floats) -> Floats:
    steps = activity * (profile.volume / profile.volume_step)
    np.rint(steps, out=steps)
    steps *= profile.volume_step
    return steps


@lru_cache(maxsize=8)
def _by_minute_of_day(asset_class: AssetClass) -> Floats | None:
    if asset_class not in _HOURS:
        return None
    hours = np.array(_HOURS[asset_class], dtype=np.float64)
    around = np.interp(np.arange(_DAY) / 60.0, np.arange(25), np.append(hours, hours[0]))
    shape: Floats = around / around.mean()
    return shape


def _aggregated(bars: _Bars, step: int) -> _Bars:
    number = bars.open_minute // step
    first = np.flatnonzero(np.concatenate([[True], number[1:] != number[:-1]]))
    last = np.append(first[1:], number.size) - 1
    return _Bars(
        number[first] * step,
        bars.open[first],
        np.maximum.reduceat(bars.high, first),
        np.minimum.reduceat(bars.low, first),
        bars.close[last],
        np.add.reduceat(bars.volume, first),
    )


def _chunks(first: int, last: int, calendar: str) -> Iterator[tuple[int, int]]:
    """Cut [first, last) minutes at UTC midnights, which no bar spans."""
    size = _CHUNK.get(calendar, _CHUNK_EXCHANGE) * _DAY
    while first < last:
        end = min(last, (first // _DAY) * _DAY + size)
        yield first, end
        first = end


def _minute(instant: datetime) -> int:
    return (instant - EPOCH) // timedelta(minutes=1)
