"""Real and made-up bars for tests of indicators, their computed columns, and what agreement means."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pytest

from pipelines.config import PROJECT_ROOT, SampleSettings
from pipelines.instruments import AssetClass, Instrument
from pipelines.sources.base import MARKET_DATA, Window
from pipelines.sources.sample import SampleSource
from pipelines.timeframes import Timeframe
from pipelines.transform.indicators import COLUMNS, SeriesContext, compute

SHARED = PROJECT_ROOT.parent / "shared" / "data"
TOLERANCE = 1e-9
NUMBERS = tuple(column.name for column in COLUMNS if column.type == "double")
START = datetime(2024, 1, 1, tzinfo=UTC)

_FILES = {
    "btc 1m": ("btc_usd_perp_1m_2022-01.csv", "BTCUSD", "1m", "timestamp"),
    "gbpusd 1m": ("gbpusd_1m_bid_2012-02.csv", "GBPUSD", "1m", "timestamp"),
    "ethbtc 5m": ("eth_btc_5m_2018-01.csv", "ETHBTC", "5m", "date"),
    "ltcbtc 5m": ("ltc_btc_5m_2018-01.csv", "LTCBTC", "5m", "date"),
}
_SAMPLES = {
    "sample btc 1h": ("BTCUSD", "1h", datetime(2024, 4, 1, tzinfo=UTC)),
    "sample aapl 5m": ("AAPL", "5m", datetime(2024, 2, 20, tzinfo=UTC)),
    "sample yield 1d": ("^TNX", "1d", datetime(2026, 1, 1, tzinfo=UTC)),
}
_no_files = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no folder of real data at {SHARED}")
EVERY_SERIES = [*(pytest.param(name, marks=_no_files) for name in _FILES), *_SAMPLES]
on_every_series = pytest.mark.parametrize("name", EVERY_SERIES)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """Bars, and what is computed of them."""

    bars: pa.Table
    context: SeriesContext

    @cached_property
    def computed(self) -> pa.Table:
        return compute(self.bars, self.context)

    @cached_property
    def frame(self) -> pd.DataFrame:
        return self.bars.to_pandas()

    def values(self, column: str) -> Floats:
        """A column of the bars or computed, null as NaN."""
        table = self.computed
        return np.asarray(table[column].cast(pa.float64()).to_numpy(), dtype=np.float64)


@cache
def series(name: str) -> Series:
    return _from_file(name) if name in _FILES else _from_sample(name)


def _from_file(name: str) -> Series:
    file, pair, timeframe, time = _FILES[name]
    frame = pd.read_csv(SHARED / file)
    at = pd.to_datetime(frame[time], utc=True)
    if "volume" not in frame:
        frame["volume"] = np.nan
    rows = frame[["open", "high", "low", "close", "volume"]].astype("float64").assign(timestamp=at)
    return Series(_table(rows.sort_values("timestamp").drop_duplicates("timestamp")), SeriesContext.of(pair, timeframe))


def _from_sample(name: str) -> Series:
    pair, timeframe, end = _SAMPLES[name]
    context = SeriesContext.of(pair, timeframe)
    window = Window(MARKET_DATA, pair, START, end, context.instrument, context.timeframe)
    source = SampleSource(SampleSettings(seed=1), clock=lambda: datetime(2026, 6, 1, tzinfo=UTC))
    with ThreadPoolExecutor(1) as pool:
        page = pool.submit(lambda: asyncio.run(source.fetch(window))).result()
    return Series(_table(page.table.to_pandas()), context)


def _table(frame: pd.DataFrame) -> pa.Table:
    times = pa.array(pd.to_datetime(frame["timestamp"], utc=True).dt.as_unit("us"))
    names = ("open", "high", "low", "close", "volume")
    return pa.table({"timestamp": times, **{n: pa.array(frame[n].to_numpy(float), from_pandas=True) for n in names}})


def made_bars(
    close: Sequence[float],
    high: Sequence[float] | None = None,
    low: Sequence[float] | None = None,
    volume: Sequence[float | None] | None = None,
    at: Iterable[datetime] | None = None,
    timeframe: str = "1m",
) -> pa.Table:
    """Bars by hand: one after another from START on, without range and of volume 1 unless told."""
    step = Timeframe(timeframe).step
    times = list(at) if at is not None else [START + step * place for place in range(len(close))]
    return pa.table({
        "timestamp": pa.array(times, pa.timestamp("us", "UTC")),
        "high": pa.array(close if high is None else high, pa.float64()),
        "low": pa.array(close if low is None else low, pa.float64()),
        "close": pa.array(close, pa.float64()),
        "volume": pa.array([1.0] * len(close) if volume is None else volume, pa.float64()),
    })  # fmt: skip


def made(close: Sequence[float], pair: str = "BTCUSD", timeframe: str = "1m", **bars: object) -> Series:
    table = made_bars(close, timeframe=timeframe, **bars)  # type: ignore[arg-type]
    return Series(table, SeriesContext.of(pair, timeframe))


def on_calendar(calendar: str, timeframe: str) -> SeriesContext:
    instrument = Instrument(pair="MADEUP", asset_class=AssetClass.EQUITY, calendar=calendar)
    return SeriesContext(instrument, Timeframe(timeframe))


def assert_agree(actual: Floats, expected: Sequence[float] | Floats) -> None:
    """The same places are null (NaN), and elsewhere |a - b| <= 1e-9 max(1, |b|)."""
    wanted = np.asarray(expected, dtype=np.float64)
    assert actual.shape == wanted.shape
    different = np.flatnonzero(np.isnan(actual) != np.isnan(wanted))
    assert different.size == 0, f"null in one only at {different[:5]}: {actual[different[:5]]} {wanted[different[:5]]}"
    known = ~np.isnan(wanted)
    off = np.abs(actual[known] - wanted[known]) / np.maximum(1.0, np.abs(wanted[known]))
    assert off.size == 0 or off.max() <= TOLERANCE, f"off by {off.max()} at {np.flatnonzero(known)[off.argmax()]}"


def assert_first_at(name: str, column: str, bar: int) -> None:
    """The series is null before the bar and has a value there; fewer bars never make one."""
    found = series(name)
    valid = ~np.isnan(found.values(column))
    assert not valid[:bar].any()
    assert valid[bar]
    short = compute(found.bars.slice(0, bar), found.context)
    assert short[column].null_count == bar


def windows(values: Sequence[float] | Floats, width: int, of: Callable[[list[float]], float]) -> list[float]:
    """The function of the last `width` values at each place; NaN before."""
    plain = [float(value) for value in values]
    return [of(plain[end - width : end]) if end >= width else math.nan for end in range(1, len(plain) + 1)]


def ema(values: Sequence[float] | Floats, period: int) -> list[float]:
    """Exponential mean: the mean of the first `period`, from then on 2/(n+1) of the way to each value."""
    plain = [float(value) for value in values]
    if len(plain) < period:
        return [math.nan] * len(plain)
    mean = math.fsum(plain[:period]) / period
    found = [math.nan] * (period - 1) + [mean]
    for value in plain[period:]:
        mean += (value - mean) * 2 / (period + 1)
        found.append(mean)
    return found


def true_ranges(frame: pd.DataFrame) -> list[float]:
    """Wilder: the largest of high - low, |high - previous close| and |low - previous close|; none at the first bar."""
    rows = list(frame[["high", "low", "close"]].itertuples(index=False, name=None))
    return [max(high - low, abs(high - before), abs(low - before)) for (_, _, before), (high, low, _) in pairwise(rows)]
