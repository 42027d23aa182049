"""Replays: ticks out of bars give the bars again, and what is played is what there is, when it is due."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipelines.config import Settings
from pipelines.errors import ConfigError, TableNotFoundError
from pipelines.instruments import load_registry
from pipelines.intervals import Interval
from pipelines.sources.sample.bars import BarMaker
from pipelines.storage import DeltaLakeManager
from pipelines.streaming.creation import create_topics
from pipelines.streaming.producers.confluent import FastSender
from pipelines.streaming.producers.expansion import expanded
from pipelines.streaming.producers.origins import Chunk, file_chunks, lake_chunks, sample_chunks, tick_chunks
from pipelines.streaming.producers.pace import Pace, pace_of
from pipelines.streaming.producers.replay import Replay
from pipelines.streaming.topics import Topic, topic_named
from pipelines.timeframes import Timeframe, utc_now
from tests.streaming.producers.reading import messages

START = datetime(2025, 12, 5, 14, 0, tzinfo=UTC)
HOUR = Interval(START, START + timedelta(hours=1))
PRICES = ["open", "high", "low", "close"]


def ticks_topic(settings: Settings) -> Topic:
    return topic_named(settings, "crypto_ticks")


def bars_of(ticks: pd.DataFrame) -> pd.DataFrame:
    """Return the 1m bars of ticks in any order, as pandas makes them."""
    ticks = ticks.sort_values("timestamp").assign(minute=lambda frame: frame["timestamp"].dt.floor("min"))
    grouped = ticks.groupby(["asset_pair", "minute"], sort=True)
    bars = grouped["price"].agg(open="first", high="max", low="min", close="last")
    # Added up one by one and in another order than pandas would.
    return bars.assign(volume=grouped["volume"].agg(lambda parts: sum(reversed(list(parts))) if parts.notna().all()
                                                    else math.nan))  # fmt: skip


def sample_bars(pair: str, span: Interval, seed: int) -> pd.DataFrame:
    table = BarMaker(seed, load_registry().resolve(pair)).table(Timeframe.M1, span.start, span.end)
    frame: pd.DataFrame = table.to_pandas()
    return frame.assign(asset_pair=pair).set_index(["asset_pair", "timestamp"])


def assert_equal(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    assert list(found.index) == list(wanted.index)
    for name in [*PRICES, "volume"]:
        np.testing.assert_array_equal(found[name].to_numpy(), wanted[name].to_numpy(), err_msg=name)


def played(chunks: Any) -> pd.DataFrame:
    return pl.concat([chunk.rows for chunk in chunks]).to_pandas()


# ---- ticks out of bars


@st.composite
def bar(draw: st.DrawFn) -> dict[str, float | None]:
    price = st.floats(1e-9, 1e9)
    low, high = sorted([draw(price), draw(price)])
    inside = st.floats(low, high)
    volume = draw(st.none() | st.just(0.0) | st.floats(1e-12, 1e15) | st.integers(0, 2**53).map(float))
    return {"open": draw(inside), "high": high, "low": low, "close": draw(inside), "volume": volume}


@hypothesis_settings(max_examples=200)
@given(st.lists(bar(), min_size=1, max_size=5), st.integers(4, 40))
def test_any_bars_come_back_from_their_ticks_bit_for_bit(bars: list[dict[str, float | None]], size: int) -> None:
    frame = pl.DataFrame(
        [{"timestamp": START + timedelta(minutes=at), **each, "provider": "coinbase"} for at, each in enumerate(bars)],
        schema={"timestamp": pl.Datetime("us", "UTC"), **dict.fromkeys([*PRICES, "volume"], pl.Float64),
                "provider": pl.String},
    )  # fmt: skip
    ticks = expanded("BTCUSD", frame, size).to_pandas()
    assert len(ticks) == size * len(bars)
    assert ticks["tick_id"].is_unique
    assert ticks["timestamp"].is_monotonic_increasing
    assert ticks["timestamp"].is_unique
    assert not (ticks["volume"] < 0).any()
    wanted = frame.to_pandas().assign(asset_pair="BTCUSD").set_index(["asset_pair", "timestamp"])
    assert_equal(bars_of(ticks), wanted)


def test_whole_volumes_stay_whole_and_ticks_differ() -> None:
    table = BarMaker(42, load_registry().resolve("AAPL")).table(Timeframe.M1, START, START + timedelta(hours=2))
    frame = pl.DataFrame(table).with_columns(provider=pl.lit("sample"))
    ticks = expanded("AAPL", frame, 60_000 // 60)
    assert (ticks["volume"] % 1 == 0).all()
    assert set(ticks["side"]) == {"buy", "sell"}
    assert ticks["price"].n_unique() > 100 * frame.height


def test_the_sample_s_ticks_are_the_same_however_the_span_is_cut() -> None:
    settings = Settings()
    assets = [load_registry().resolve(pair) for pair in ("BTCUSD", "ETHUSD", "EURUSD")]
    topic = ticks_topic(settings)
    days = Interval(START, START + timedelta(days=2, hours=5))
    whole = played(sample_chunks(settings, topic, assets, days, 5))
    middle = START + timedelta(hours=7)
    parts = [
        played(sample_chunks(settings, topic, assets, part, 5))
        for part in (Interval(START, middle), Interval(middle, days.end))
    ]
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), whole)
    assert whole["timestamp"].is_monotonic_increasing
    assert set(whole["provider"]) == {"sample"}
    assert not whole.duplicated(["asset_pair", "tick_id"]).any()
    seed = settings.providers.sample.seed
    wanted = pd.concat(sample_bars(pair, days, seed) for pair in ("BTCUSD", "ETHUSD", "EURUSD"))
    assert_equal(bars_of(whole), wanted)


# ---- the lake


def bar_rows(provider: str, price: float, minutes: range, volume: float | None = 3.0) -> pa.Table:
    opens = [START + timedelta(minutes=minute) for minute in minutes]
    size = len(opens)
    return pa.table(
        {
            "asset_pair": ["BTCUSD"] * size, "timeframe": ["1m"] * size,
            "timestamp": pa.array(opens, pa.timestamp("us", "UTC")),
            "open": [price] * size, "high": [price + 2] * size, "low": [price - 1] * size, "close": [price + 1] * size,
            "volume": pa.array([volume] * size, pa.float64()), "provider": [provider] * size,
            "price_side": ["trade"] * size, "is_adjusted": [False] * size, "is_derived": [False] * size,
        }
    )  # fmt: skip


def test_the_lake_s_bars_are_played_once_each_by_the_best_provider_in_the_newest_version(
    embedded_lake: DeltaLakeManager,
) -> None:
    topic = ticks_topic(embedded_lake.settings)
    for provider, price, minutes in (
        ("yfinance", 100.0, range(6)),
        ("stream", 700.0, range(8)),
        ("coinbase", 200.0, range(2, 4)),
        ("coinbase", 300.0, range(3, 4)),
    ):
        embedded_lake.append("raw_market_data_1m", bar_rows(provider, price, minutes), f"run-{price}")
    ticks = played(lake_chunks(embedded_lake, topic, ["BTCUSD"], HOUR, 4))
    bars = bars_of(ticks)
    assert list(bars["open"]) == [100.0, 100.0, 200.0, 300.0, 100.0, 100.0, 700.0, 700.0]
    assert list(bars["high"] - bars["open"]) == [2.0] * 8
    assert list(bars["volume"]) == [3.0] * 8
    first = ticks.sort_values("timestamp").groupby(ticks["timestamp"].dt.floor("min"))["provider"].agg(set)
    names = ["yfinance", "yfinance", "coinbase", "coinbase", "yfinance", "yfinance", "stream", "stream"]
    assert list(first) == [{name} for name in names]
    assert not list(lake_chunks(embedded_lake, topic, ["ETHUSD"], HOUR))
    live = topic_named(embedded_lake.settings, "market.stocks")
    rows = played(lake_chunks(embedded_lake, live, None, HOUR))
    assert list(rows["open"]) == list(bars["open"])
    assert set(rows["timeframe"]) == {"1m"}
    assert "provider" not in rows


def test_a_lake_without_the_dataset_says_so(embedded_lake: DeltaLakeManager) -> None:
    with pytest.raises(TableNotFoundError):
        next(iter(lake_chunks(embedded_lake, ticks_topic(embedded_lake.settings), None, HOUR)))


def tick_rows(count: int) -> pa.Table:
    instants = [START + timedelta(seconds=second) for second in range(count)]
    return pa.table(
        {
            "asset_pair": ["BTCUSD"] * count, "timestamp": pa.array(instants, pa.timestamp("us", "UTC")),
            "price": [100.0 + each for each in range(count)], "volume": pa.array([None] * count, pa.float64()),
            "bid": [99.0] * count, "ask": pa.array([None] * count, pa.float64()),
            "side": pa.array([None] * count, pa.string()), "tick_id": ["again" for _ in range(count)],
            "provider": ["coinbase"] * count, "kafka_topic": ["crypto_ticks"] * count,
            "kafka_partition": pa.array([0] * count, pa.int64()), "kafka_offset": pa.array(range(count), pa.int64()),
            "kafka_timestamp": pa.array(instants, pa.timestamp("us", "UTC")),
        }
    )  # fmt: skip


def test_ticks_of_the_lake_are_played_as_they_are(embedded_lake: DeltaLakeManager) -> None:
    embedded_lake.append("raw_market_ticks", tick_rows(10), "run")
    rows = played(tick_chunks(embedded_lake, ticks_topic(embedded_lake.settings), None, HOUR))
    assert list(rows["price"]) == [100.0 + each for each in range(10)]
    assert set(rows["tick_id"]) == {"again"}
    assert set(rows["bid"]) == {99.0}
    assert "kafka_offset" not in rows


# ---- files


CSV = """asset_pair,timestamp,price,volume,tick_id,provider
BTCUSD,2025-12-05T14:00:05Z,100.5,1,a,coinbase
ETHUSD,2025-12-05T14:00:01+01:00,3.5,,b,coinbase
BTCUSD,2025-12-05T14:00:03Z,oops,1,c,coinbase
BTCUSD,2025-12-05 14:00:04,101.5,1,d,coinbase
BTCUSD,2025-12-05T14:00:06Z,101.5,1,,coinbase
BTCUSD,2025-12-05T14:00:02Z,102.5,2.5,f,coinbase
"""


def test_a_file_is_played_in_its_order_and_what_is_no_tick_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv"
    path.write_text(CSV, encoding="utf-8")
    topic = ticks_topic(Settings())
    replay = Replay(topic, file_chunks(path, topic), Pace())
    found = replay.preview()
    assert found.subjects == {"BTCUSD": 2, "ETHUSD": 1}
    assert sum(found.refused.values()) == 3
    assert found.refused["wrong type: price"] == 1
    assert found.refused["null tick_id"] == 1
    assert sum(count for reason, count in found.refused.items() if "time zone" in reason) == 1
    assert found.last == START + timedelta(seconds=2)
    rows = played(file_chunks(path, topic, ["BTCUSD"], HOUR))
    assert list(rows["price"]) == [100.5, 102.5]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_other_files_are_played_too(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"ticks.{ending}"
    rows = tick_rows(5).select(["asset_pair", "timestamp", "price", "tick_id", "provider"])
    if ending == "parquet":
        pq.write_table(rows, path)
    else:
        lines = [
            pl.DataFrame(rows.slice(at, 1)).with_columns(pl.col("timestamp").dt.to_string("%+")) for at in range(5)
        ]
        path.write_text("".join(line.write_ndjson() for line in lines), encoding="utf-8")
    topic = ticks_topic(Settings())
    found = Replay(topic, file_chunks(path, topic), Pace(), limit=4).preview()
    assert (found.messages, found.refused) == (4, {})
    assert (found.first, found.last) == (START, START + timedelta(seconds=3))


# ---- pace


@pytest.mark.parametrize(
    ("speed", "rate", "dues"),
    [
        (None, None, [0, 10, 5, 60]),
        ("1x", None, [0, 10, 5, 60]),
        ("10x", None, [0, 1, 0.5, 6]),
        (" 0.5X ", None, [0, 20, 10, 120]),
        ("4", None, [0, 2.5, 1.25, 15]),
        ("max", None, [0, 0, 0, 0]),
        (None, 4.0, [0, 0.25, 0.5, 0.75]),
    ],
)
def test_a_pace_says_when_each_message_is_due(speed: str | None, rate: float | None, dues: list[float]) -> None:
    pace = pace_of(speed, rate)
    assert [pace.due(START + timedelta(seconds=second)) for second in (0, 10, 5, 60)] == dues


@pytest.mark.parametrize("speed", ["fast", "0x", "-1", "nan", "inf", ""])
def test_a_speed_that_is_none_is_refused(speed: str) -> None:
    with pytest.raises(ConfigError, match="60x"):
        pace_of(speed, None)


# ---- to the broker


def chunk(instants: list[datetime]) -> Chunk:
    rows = [
        {"asset_pair": "BTCUSD", "timestamp": each, "price": 1.0, "tick_id": str(at), "provider": "coinbase"}
        for at, each in enumerate(instants)
    ]
    return Chunk(pl.DataFrame(rows), {})


@pytest.fixture
def live(kafka_settings: Settings) -> Topic:
    create_topics(kafka_settings)
    return topic_named(kafka_settings, next(iter(kafka_settings.streaming.topics)))


@pytest.mark.kafka
def test_the_sample_is_in_the_topic_as_it_is(kafka_settings: Settings, live: Topic) -> None:
    assets = [load_registry().resolve(pair) for pair in ("BTCUSD", "ETHUSD")]
    replay = Replay(live, sample_chunks(kafka_settings, live, assets, HOUR), pace_of("max", None))
    with FastSender(kafka_settings, live.name) as sender:
        found = replay.run(sender)
    assert found.whole
    assert found.messages == sender.deliveries().delivered == 2 * 60 * 8
    there = messages(kafka_settings, live.name)
    assert all(each.key.decode() == each.row()["asset_pair"] for each in there)
    ticks = pd.DataFrame([each.row() for each in there]).assign(
        timestamp=lambda frame: pd.to_datetime(frame["timestamp"], format="ISO8601", utc=True)
    )
    seed = kafka_settings.providers.sample.seed
    assert_equal(bars_of(ticks), pd.concat(sample_bars(pair, HOUR, seed) for pair in ("BTCUSD", "ETHUSD")))


@pytest.mark.kafka
def test_at_a_speed_messages_come_in_the_rhythm_of_their_events(kafka_settings: Settings, live: Topic) -> None:
    instants = [START + timedelta(seconds=second) for second in (0, 3, 6, 6, 12)]
    with FastSender(kafka_settings, live.name) as sender:
        Replay(live, [chunk(instants)], pace_of("6x", None)).run(sender)
    times = [each.timestamp for each in messages(kafka_settings, live.name)]
    for found, wanted in zip([time - times[0] for time in times], [0, 500, 1000, 1000, 2000], strict=True):
        assert wanted - 20 <= found <= wanted + 400


@pytest.mark.kafka
@pytest.mark.parametrize(("speed", "rate"), [("2x", None), (None, 10.0), ("max", None)])
def test_moved_to_now_ticks_happen_when_they_are_sent(
    kafka_settings: Settings, live: Topic, speed: str | None, rate: float | None
) -> None:
    instants = [START + timedelta(seconds=0.5 * at) for at in range(5)]
    begun = utc_now()
    with FastSender(kafka_settings, live.name) as sender:
        Replay(live, [chunk(instants)], pace_of(speed, rate), to_now=True).run(sender)
    there = messages(kafka_settings, live.name)
    times = [datetime.fromisoformat(each.row()["timestamp"]) for each in there]
    assert begun <= times[0] <= begun + timedelta(seconds=1)
    assert times == sorted(set(times))
    sent = [datetime.fromtimestamp(each.timestamp / 1000, UTC) for each in there]
    for happened, at in zip(times, sent, strict=True):
        # Kafka's times are cut to milliseconds, and a wait of up to 2 ms is not worth it.
        assert timedelta(milliseconds=-3) <= at - happened <= timedelta(seconds=0.5)
    if speed == "2x":
        assert [round((time - times[0]).total_seconds(), 3) for time in times] == [0, 0.25, 0.5, 0.75, 1.0]
    assert len({each.row()["tick_id"] for each in there}) == 5
    assert {each.row()["tick_id"].partition("@")[0] for each in there} == {"0", "1", "2", "3", "4"}


@pytest.mark.kafka
def test_a_limit_and_a_stop_end_it_and_say_so(kafka_settings: Settings, live: Topic) -> None:
    instants = [START + timedelta(hours=at) for at in range(5)]
    with FastSender(kafka_settings, live.name) as sender:
        found = Replay(live, [chunk(instants)], pace_of("max", None), limit=3).run(sender)
        assert (found.messages, found.whole) == (3, True)
        sender.stop()
        found = Replay(live, [chunk(instants)], pace_of("1x", None)).run(sender)
        assert (found.messages, found.whole) == (0, False)
    assert len(messages(kafka_settings, live.name)) == 3


def test_only_ticks_are_moved() -> None:
    with pytest.raises(ConfigError, match="--shift-to-now is for ticks"):
        Replay(topic_named(Settings(), "market.stocks"), [], Pace(), to_now=True)
