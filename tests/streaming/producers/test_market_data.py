"""The providers' newest bars: each once per version, and a failing provider ends nothing. Broker and HTTP are real."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import Settings
from pipelines.errors import ConfigError
from pipelines.instruments import load_registry
from pipelines.streaming.creation import create_topics
from pipelines.streaming.producers.market_data import MarketDataProducer
from pipelines.streaming.producers.plain import PlainSender
from pipelines.streaming.topics import Topic, topic_named
from pipelines.timeframes import Timeframe, utc_now
from tests.batch.exchange import Exchange
from tests.conftest import make_kafka_settings
from tests.servers.base import status
from tests.servers.kafka import Broker
from tests.streaming.producers.reading import messages

pytestmark = pytest.mark.kafka
ASSETS = [load_registry().resolve(pair) for pair in ("BTCUSD", "ETHUSD")]
MINUTE = timedelta(minutes=1)


@pytest.fixture
def feed(tmp_path: Path, kafka: Broker, exchange: Exchange) -> Settings:
    fast = {"base_url": exchange.url, "requests_per_minute": 600_000, "burst": 1000, "max_retries": 0,
            "breaker_reset_seconds": 0.01}  # fmt: skip
    settings = make_kafka_settings(
        tmp_path,
        kafka,
        {"providers": {"chain": ["alpha_vantage", "coinbase"], "coinbase": fast}},
        topics={"bars": {"dataset": "raw_market_data", "partitions": 2}},
    )
    create_topics(settings)
    return settings


def topic_of(settings: Settings) -> Topic:
    return topic_named(settings, next(iter(settings.streaming.topics)))


def said(settings: Settings) -> dict[tuple[str, datetime], list[dict[str, Any]]]:
    """Return what the topic says of each bar, in the order it was said."""
    found = defaultdict(list)
    for each in messages(settings, topic_of(settings).name):
        row = each.row()
        assert each.key.decode() == row["asset_pair"]
        found[row["asset_pair"], datetime.fromisoformat(row["timestamp"])].append(row)
    return found


async def until(happened: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def polling(
    settings: Settings, delivery_seconds: float = 60.0
) -> AsyncIterator[tuple[MarketDataProducer, PlainSender]]:
    producer = MarketDataProducer(settings, topic_of(settings), ASSETS, every=0.05)
    with PlainSender(settings, topic_of(settings).name, delivery_seconds) as sender:
        running = asyncio.create_task(producer.run(sender))
        try:
            await until(lambda: producer.polled.polls >= 2)
            yield producer, sender
            producer.stop()
            await running
        finally:
            running.cancel()


async def polled_again(producer: MarketDataProducer) -> None:
    """Wait until polls that began after now have ended."""
    ended = producer.polled.polls
    await until(lambda: producer.polled.polls >= ended + 2)


def edited(exchange: Exchange, opens: datetime, change: Callable[[list[Any]], list[Any]]) -> None:
    """Make the exchange tell BTC's bar of that minute differently; rows are [time, low, high, open, close, volume]."""
    wanted = opens.timestamp()
    exchange.edit = lambda rows: [change(row) if row[0] == wanted and row[3] > 20_000 else row for row in rows]


async def test_each_closed_bar_is_sent_once_and_a_changed_one_again(feed: Settings, exchange: Exchange) -> None:
    begun = utc_now()
    async with polling(feed) as (producer, sender):
        changed = Timeframe.M1.floor(begun) - 5 * MINUTE
        edited(exchange, changed, lambda row: [*row[:5], 77.0])
        await polled_again(producer)
        broken = changed - MINUTE
        edited(exchange, broken, lambda row: [row[0], row[2] + 1, row[1], *row[3:]])
        # The change before is undone by this one, which is a version of its own.
        await polled_again(producer)
        await polled_again(producer)
    found = said(feed)
    newest = Timeframe.M1.floor(utc_now()) - MINUTE
    for product, asset in (("BTC-USD", "BTCUSD"), ("ETH-USD", "ETHUSD")):
        there = sorted(opens for pair, opens in found if pair == asset)
        assert 14 <= len(there) <= 17
        truth = exchange.truth(product, there[0], there[-1] + MINUTE, 60)
        assert there == [datetime.fromtimestamp(bar.time, UTC) for bar in truth]
        assert there[-1] >= newest - MINUTE
        for bar in truth:
            opens = datetime.fromtimestamp(bar.time, UTC)
            volumes = [row["volume"] for row in found[asset, opens]]
            assert volumes == (
                [bar.volume, 77.0, bar.volume] if (asset, opens) == ("BTCUSD", changed) else [bar.volume]
            )
            for row in found[asset, opens]:
                assert (row["timeframe"], row["open"], row["high"], row["low"], row["close"]) == (
                    "1m", bar.open, bar.high, bar.low, bar.close,
                )  # fmt: skip
    counts = sender.deliveries()
    assert counts.delivered == producer.polled.messages == sum(map(len, found.values()))
    assert sum(producer.polled.refused.values()) == 1, "a bar that is wrong at every poll counts once"
    assert "high < low" in next(iter(producer.polled.refused))
    assert not producer.polled.failures


async def test_a_provider_that_fails_is_counted_and_asked_again(feed: Settings, exchange: Exchange) -> None:
    exchange.always(status(500))
    async with polling(feed) as (producer, _):
        assert producer.polled.messages == 0
        assert producer.polled.failures["coinbase"] >= 4
        assert producer.polled.unserved == Counter(BTCUSD=producer.polled.unserved["BTCUSD"],
                                                   ETHUSD=producer.polled.unserved["ETHUSD"])  # fmt: skip
        assert min(producer.polled.unserved.values()) >= 2
        exchange.always(None)
        await until(lambda: producer.polled.messages >= 28)
    found = said(feed)
    assert {len(rows) for rows in found.values()} == {1}
    assert {asset for asset, _ in found} == {"BTCUSD", "ETHUSD"}


async def test_what_was_not_delivered_is_sent_again(feed: Settings, exchange: Exchange, kafka: Broker) -> None:
    changed = Timeframe.M1.floor(utc_now()) - 5 * MINUTE
    async with polling(feed, delivery_seconds=3) as (_, sender):
        await until(lambda: not sender.deliveries().waiting)
        try:
            kafka.kill()
            edited(exchange, changed, lambda row: [*row[:5], 77.0])
            await until(lambda: sender.deliveries().lost >= 1)
            # While nobody takes it: it may be there before the restart has returned.
            delivered = sender.deliveries().delivered
        finally:
            await asyncio.to_thread(kafka.restart)
        await until(lambda: sender.deliveries().delivered > delivered)
        await until(lambda: not sender.deliveries().waiting)
    assert said(feed)["BTCUSD", changed][-1]["volume"] == 77.0


async def test_a_limit_ends_it(feed: Settings) -> None:
    producer = MarketDataProducer(feed, topic_of(feed), ASSETS, limit=5)
    with PlainSender(feed, topic_of(feed).name) as sender:
        polled = await producer.run(sender)
    assert polled.messages == 5
    assert sum(map(len, said(feed).values())) == 5


def test_it_feeds_topics_of_bars_and_says_whom_it_asks(feed: Settings, kafka_settings: Settings) -> None:
    with pytest.raises(ConfigError, match="name a topic of raw_market_data"):
        MarketDataProducer(kafka_settings, topic_of(kafka_settings), ASSETS)
    alpha_vantage, coinbase = MarketDataProducer(feed, topic_of(feed), ASSETS).plan()["BTCUSD"]
    assert "API key" in getattr(alpha_vantage, "reason", "")
    assert coinbase.name == "coinbase"
