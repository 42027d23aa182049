"""The sample source: conformance, and its hard promises: any cut and any timeframe tell the same story."""

from __future__ import annotations

import asyncio
import math
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import blake2b
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.calendars import expected_opens
from pipelines.config import SampleSettings
from pipelines.contracts import load_contracts
from pipelines.edge import EdgeContext, validate
from pipelines.errors import ConfigError, UnsupportedError
from pipelines.instruments import AssetClass, Instrument, load_registry
from pipelines.sources.base import MARKET_DATA, Page, Window
from pipelines.sources.sample import SampleSource
from pipelines.timeframes import Timeframe
from tests.sources.conformance import Row, SourceCase, SourceConformance

REGISTRY = load_registry()
NOW = datetime(2026, 1, 14, 12, 7, 30, tzinfo=UTC)
EVENTS = ("raw_news_sentiment", "raw_ai_decisions", "raw_trade_executions")
ASSETS = ("BTCUSD", "EURUSD", "AAPL", "^TNX", "ETHBTC", "USDJPY", "SHIBUSD")


def fetch(
    pair: str | Instrument, start: datetime, end: datetime, timeframe: Timeframe | None = Timeframe.M1,
    dataset: str = MARKET_DATA, now: datetime = NOW, seed: int = 1,
) -> Page:  # fmt: skip
    instrument = REGISTRY.resolve(pair) if isinstance(pair, str) else pair
    source = SampleSource(SampleSettings(seed=seed), clock=lambda: now)
    window = Window(dataset, instrument.pair, start, end, instrument, timeframe)
    # In a thread of its own, because some callers run inside an event loop.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(source.fetch(window))).result()


def frame(page: Page) -> pd.DataFrame:
    return page.table.to_pandas()


# ---- the definition, in plain scalar Python

MASK = 2**64 - 1


def splitmix(stream: int, index: int) -> int:
    x = (index * 0x9E3779B97F4A7C15 + stream) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


@cache
def stream(*parts: object) -> int:
    return int.from_bytes(blake2b("|".join(map(str, parts)).encode(), digest_size=8).digest(), "big")


def normal(key: int, index: int) -> float:
    bits = splitmix(key, index)
    lanes = sum((bits >> shift) & 0xFFFF for shift in (0, 16, 32, 48))
    return (lanes - 131070.0) / math.sqrt((65536.0**2 - 1) / 3)


class ScalarPath:
    """A crypto pair's path, minute by minute: spread 0.4, 3% a day, knots 2**22 minutes apart."""

    def __init__(self, seed: int, pair: str) -> None:
        self.seed, self.pair = seed, pair
        self.known: dict[tuple[int, int], float] = {}
        self.speed = 0.03**2 / (2 * 0.4**2 * 1440)

    def log_price(self, minute: int, level: int = 0) -> float:
        """The value at knot number `minute` of spacing 2**level."""
        if (minute, level) not in self.known:
            self.known[minute, level] = self._log_price(minute, level)
        return self.known[minute, level]

    def _log_price(self, minute: int, level: int) -> float:
        if level == 22:
            return normal(stream(self.seed, self.pair, "knots"), minute) * 0.4
        if minute % 2 == 0:
            return self.log_price(minute // 2, level + 1)
        parent = minute // 2
        half = self.speed * 2.0**level
        scale = 1.0
        if level < 13:
            scale = math.exp(0.35 * normal(stream(self.seed, self.pair, "regimes"), parent >> (12 - level)))
        ends = self.log_price(parent, level + 1) + self.log_price(parent + 1, level + 1)
        drawn = normal(stream(self.seed, self.pair, "level", level + 1), parent)
        return ends / (2 * math.cosh(half)) + drawn * scale * math.sqrt(0.4**2 * math.tanh(half))

    def bar(self, minute: int, level: float, digits: int) -> tuple[float, float, float, float]:
        opened, closed = (math.exp(self.log_price(m)) for m in (minute, minute + 1))
        bits = splitmix(stream(self.seed, self.pair, "details"), minute)
        up, down = (((bits >> shift) & 0xFFFF) / 65536 for shift in (0, 16))
        wick = 0.03 / math.sqrt(1440)
        high = max(opened, closed) * (1 + wick * up**2)
        low = min(opened, closed) * (1 - wick * down**2)
        return tuple(round(price * level, digits) for price in (opened, high, low, closed))  # type: ignore[return-value]


class Sample(SourceCase):
    source_class, settings_class = SampleSource, SampleSettings
    settings: ClassVar[dict[str, Any]] = {"seed": 1}
    subject, timeframe = "BTCUSD", Timeframe.M1


class TestSample(Sample, SourceConformance):
    """Minutes against the scalar definition."""

    columns = ("timestamp", "open", "high", "low", "close")
    path = ScalarPath(1, "BTCUSD")

    def truth(self, server: Any, start: datetime, end: datetime) -> list[Row]:
        bars = []
        instant = start
        while instant < min(end, self.now.replace(second=0)):
            minute = int(instant.timestamp()) // 60
            bars.append((instant, *self.path.bar(minute, 60_000.0, 2)))
            instant += self.step
        return bars


class TestSampleDaily(Sample, SourceConformance):
    """Days against pandas' resampling of the minutes."""

    timeframe = Timeframe.D1
    start = datetime(2025, 9, 1, tzinfo=UTC)
    length = timedelta(days=12)

    def truth(self, server: Any, start: datetime, end: datetime) -> list[Row]:
        end = min(end, self.now.replace(hour=0, minute=0, second=0))
        return resampled(self.subject, Timeframe.D1, start, end) if start < end else []


def resampled(pair: str, timeframe: Timeframe, start: datetime, end: datetime) -> list[Row]:
    minutes = frame(fetch(pair, start, end)).set_index("timestamp")
    how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    bars = minutes.resample(f"{timeframe.seconds}s").agg(how).dropna(subset="open")
    return [(index.to_pydatetime(), *row) for index, row in zip(bars.index, bars.to_numpy().tolist(), strict=True)]


# ---- any window, any timeframe, the same story

instants = st.integers(0, 60 * 365 * 1440).map(lambda n: datetime(1966, 1, 1, tzinfo=UTC) + timedelta(minutes=n))


@given(
    pair=st.sampled_from(ASSETS), timeframe=st.sampled_from(list(Timeframe)), start=instants,
    length=st.integers(1, 4 * 1440), cuts=st.lists(st.integers(0, 4 * 1440), max_size=5),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_any_cut_gives_the_same_bars(
    pair: str, timeframe: Timeframe, start: datetime, length: int, cuts: list[int]
) -> None:
    edges = sorted({0, length, *(cut for cut in cuts if cut < length)})
    at = [start + timedelta(minutes=edge) for edge in edges]
    whole = fetch(pair, at[0], at[-1], timeframe)
    parts = [fetch(pair, low, high, timeframe) for low, high in pairwise(at)]
    assert pa.concat_tables([part.table for part in parts]).equals(whole.table)
    assert whole.covered.start == at[0]


@given(pair=st.sampled_from(ASSETS), timeframe=st.sampled_from(list(Timeframe)[1:]), start=instants)
@settings(max_examples=100, deadline=None)
def test_bars_are_the_aggregation_of_minutes(pair: str, timeframe: Timeframe, start: datetime) -> None:
    start = timeframe.floor(start)
    end = start + max(timedelta(days=2), timeframe.step * 3)
    end -= (end - start) % timeframe.step
    table = fetch(pair, start, end, timeframe).table
    rows = [(row["timestamp"], *list(row.values())[1:]) for row in table.to_pylist()]
    assert rows == resampled(pair, timeframe, start, end)


def test_chunks_of_work_leave_no_seam() -> None:
    """Long ranges are made in chunks of days; the bars around their ends are those of a short window."""
    start = datetime(2024, 1, 1, 7, 13, tzinfo=UTC)
    whole = fetch("BTCUSD", start, start + timedelta(days=100)).table
    for day in (44, 45, 46, 89, 90, 91):
        low = start + timedelta(days=day) - timedelta(hours=8)
        part = fetch("BTCUSD", low, low + timedelta(hours=9)).table
        first = (low - start) // timedelta(minutes=1)
        assert whole.slice(first, part.num_rows).equals(part)


@pytest.mark.parametrize("pair", ["AAPL", "EURUSD", "^TNX", "BTCUSD"])
@pytest.mark.parametrize("timeframe", [Timeframe.M1, Timeframe.H4, Timeframe.D1])
def test_bars_exist_where_the_calendar_is_open(pair: str, timeframe: Timeframe) -> None:
    start, end = datetime(2024, 10, 25, tzinfo=UTC), datetime(2024, 12, 31, tzinfo=UTC)
    found = fetch(pair, start, end, timeframe).table["timestamp"].cast(pa.timestamp("us")).to_numpy()
    assert np.array_equal(found, expected_opens(REGISTRY.resolve(pair), timeframe, start, end))


# ---- plausible


@pytest.mark.parametrize(
    ("pair", "level", "daily"),
    [
        ("BTCUSD", 60_000, 0.03),
        ("EURUSD", 1.08, 0.005),
        ("AAPL", 190, 0.018),
        ("^TNX", 4.2, 0.016),
        ("USDJPY", 160, 0.005),
    ],
)
def test_levels_and_volatility_are_near_reality(pair: str, level: float, daily: float) -> None:
    bars = frame(fetch(pair, datetime(2005, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC), Timeframe.D1))
    logs = np.log(bars["close"] / level)
    assert logs.abs().max() < 1.7
    assert abs(logs.mean()) < 0.5
    assert 0.5 * daily < np.log(bars["close"]).diff().std() < 1.8 * daily


@given(seed=st.integers(0, 2**32), start=instants, pair=st.sampled_from(ASSETS))
@settings(max_examples=40, deadline=None)
def test_the_edge_accepts_every_bar(seed: int, start: datetime, pair: str) -> None:
    page = fetch(pair, start, start + timedelta(days=1), seed=seed)
    context = EdgeContext(
        load_contracts()[MARKET_DATA], "sample", NOW, instrument=REGISTRY.resolve(pair), timeframe=Timeframe.M1
    )
    result = validate(page.table, context)
    assert result.refused == []
    assert result.good.num_rows == page.table.num_rows


@given(low=st.floats(1e-6, 1e5), width=st.floats(1.5, 1e6))
@settings(max_examples=30, deadline=None)
def test_prices_stay_inside_any_bounds(low: float, width: float) -> None:
    instrument = Instrument(
        pair="BTCUSD", asset_class=AssetClass.CRYPTO, calendar="24/7", base="BTC", price_min=low, price_max=low * width
    )
    bars = frame(fetch(instrument, datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 3, tzinfo=UTC)))
    assert bars["low"].min() > low
    assert bars["high"].max() < low * width


def test_prices_are_decimals_of_their_tick() -> None:
    day = datetime(2024, 3, 5, tzinfo=UTC)
    for pair, digits in (("BTCUSD", 2), ("EURUSD", 5), ("AAPL", 2), ("^TNX", 3)):
        closes = frame(fetch(pair, day, day + timedelta(days=1)))["close"]
        assert all(round(price, digits) == price for price in closes)


def test_volume_has_its_daily_shape() -> None:
    bars = frame(fetch("AAPL", datetime(2023, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC), Timeframe.M15))
    hours = bars.groupby(bars["timestamp"].dt.tz_convert("America/New_York").dt.time)["volume"].mean()
    assert hours.iloc[0] > 1.4 * hours.iloc[len(hours) // 2] < hours.iloc[-1]
    forex = frame(fetch("EURUSD", datetime(2023, 1, 2, tzinfo=UTC), datetime(2023, 4, 1, tzinfo=UTC), Timeframe.H1))
    by_hour = forex.groupby(forex["timestamp"].dt.hour)["volume"].mean()
    assert by_hour[14] > 2 * by_hour[3]
    assert (frame(fetch("^TNX", NOW - timedelta(days=5), NOW))["volume"] == 0).all()


def test_seeds_and_assets_differ_and_repeat() -> None:
    start, end = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)
    one = fetch("BTCUSD", start, end).table
    assert one.equals(fetch("BTCUSD", start, end).table)
    assert not one.equals(fetch("BTCUSD", start, end, seed=2).table)
    assert not one["close"].equals(fetch("BTCEUR", start, end).table["close"])


def test_it_is_fast() -> None:
    """At least a million 1m bars a second, and ten years of days in moments; an order of magnitude of slack."""
    start = datetime(2020, 1, 1, tzinfo=UTC)
    began = time.perf_counter()
    bars = fetch("BTCUSD", start, start + timedelta(days=366)).table.num_rows
    assert bars / (time.perf_counter() - began) > 1e6 / 5
    began = time.perf_counter()
    fetch("BTCUSD", start - timedelta(days=3650), start, Timeframe.D1)
    assert time.perf_counter() - began < 10


# ---- events


@pytest.mark.parametrize("dataset", EVENTS)
@given(pair=st.sampled_from(ASSETS), start=instants, length=st.integers(1, 10 * 1440), cut=st.integers(0, 10 * 1440))
@settings(max_examples=40, deadline=None)
def test_any_cut_gives_the_same_events(dataset: str, pair: str, start: datetime, length: int, cut: int) -> None:
    end = start + timedelta(minutes=length)
    middle = start + timedelta(minutes=min(cut, length))
    whole = fetch(pair, start, end, None, dataset).table
    parts = [fetch(pair, *edges, None, dataset).table for edges in ((start, middle), (middle, end))]
    assert pa.concat_tables(parts).equals(whole)


@pytest.mark.parametrize("dataset", EVENTS)
@pytest.mark.parametrize("pair", ["BTCUSD", "AAPL", "EURUSD", "LTCBTC"])
def test_the_edge_accepts_every_event(dataset: str, pair: str) -> None:
    page = fetch(pair, datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 7, 1, tzinfo=UTC), None, dataset)
    assert page.table.num_rows > 100
    context = EdgeContext(load_contracts()[dataset], "sample", NOW, instrument=REGISTRY.resolve(pair))
    result = validate(page.table, context)
    assert result.refused == []
    assert result.good.num_rows == page.table.num_rows
    assert page.table["timestamp"].to_pylist() == sorted(page.table["timestamp"].to_pylist())
    key = load_contracts()[dataset].keys[0]
    assert len(set(page.table[key].to_pylist())) == page.table.num_rows


def test_executions_follow_decisions_at_the_markets_price() -> None:
    start, end = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 6, 1, tzinfo=UTC)
    decisions = frame(fetch("BTCUSD", start, end, None, EVENTS[1])).set_index("decision_id")
    executions = frame(fetch("BTCUSD", start, end, None, EVENTS[2]))
    bars = frame(fetch("BTCUSD", start, end)).set_index("timestamp")
    assert executions["decision_id"].isna().any()
    followed = executions.dropna(subset="decision_id").join(decisions, on="decision_id", rsuffix="_decided")
    wait = followed["timestamp"] - followed["timestamp_decided"]
    assert (followed["side"] == followed["action"]).all()
    assert wait.between(timedelta(seconds=2), timedelta(seconds=120)).all()
    at = bars.loc[executions["timestamp"].dt.floor("min")]
    assert ((executions["price"].to_numpy() >= at["low"]) & (executions["price"].to_numpy() <= at["high"])).all()
    assert (executions["quantity"] > 0).all()
    assert set(executions["status"]) == {"filled", "partial"}


def test_decisions_are_consistent_ensembles() -> None:
    decisions = frame(
        fetch("ETHUSD", datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC), None, EVENTS[1])
    )
    assert len(decisions) == 366 * 6
    assert set(decisions["strategy"]) == {"voting", "debate", "fallback"}
    assert set(decisions["action"]) == {"BUY", "SELL", "HOLD"}
    for row in decisions.itertuples():
        assert [vote["provider"] for vote in row.votes] == list(row.providers)
        assert row.action in {vote["action"] for vote in row.votes}
        assert (len(row.votes) == 1) == (row.strategy == "fallback")


def test_news_come_a_few_a_day_in_all_moods() -> None:
    news = frame(fetch("AAPL", datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC), None, EVENTS[0]))
    assert 2 * 366 < len(news) < 4 * 366
    assert news["sentiment_label"].nunique() == 5
    assert news["url"].str.startswith("https://news.example/").all()


@pytest.mark.parametrize("dataset", EVENTS)
def test_events_that_have_not_happened_do_not_come(dataset: str) -> None:
    page = fetch("BTCUSD", NOW - timedelta(days=20), NOW + timedelta(days=20), None, dataset)
    assert max(page.table["timestamp"].to_pylist()) < NOW
    assert page.covered.end == NOW
    assert not fetch("BTCUSD", NOW + timedelta(days=1), NOW + timedelta(days=9), None, dataset).covered


# ---- refusals


def test_what_it_cannot_make_is_refused() -> None:
    day = datetime(2024, 1, 1, tzinfo=UTC)
    with pytest.raises(UnsupportedError, match="macro_indicators"):
        fetch("BTCUSD", day, day + timedelta(days=1), None, "macro_indicators")
    with pytest.raises(UnsupportedError, match="timeframe"):
        fetch("BTCUSD", day, day + timedelta(days=1), None)
    with pytest.raises(UnsupportedError, match="UNRATE"):
        asyncio.run(SampleSource().fetch(Window(MARKET_DATA, "UNRATE", day, day, None, Timeframe.D1)))
    with pytest.raises(ConfigError, match="XNYS"):
        fetch(REGISTRY.resolve("AAPL").model_copy(update={"calendar": "XNYC"}), day, day + timedelta(days=1))


def test_it_says_it_is_synthetic() -> None:
    assert SampleSource.capabilities.synthetic
    assert SampleSource.capabilities.timeframes == set(Timeframe)
