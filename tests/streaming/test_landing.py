"""Bars, news and the like from topics: by key, as batches land, whatever was there before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.data_quality.dlq import DeadLetterQueue
from pipelines.storage import DeltaLakeManager
from pipelines.streaming.clients import Offsets
from pipelines.streaming.dead_letters import DeadLetters
from pipelines.streaming.landing import Landing, Place
from pipelines.streaming.schemas import message_columns
from pipelines.streaming.topics import Topic, topic_named
from tests.conftest import make_settings
from tests.streaming.tick_log import dead_letters

OPEN = datetime(2025, 12, 7, 10, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path: Path) -> DeltaLakeManager:
    found = make_settings(tmp_path, {"storage": {"engine": "embedded"}})
    return DeltaLakeManager(found.delta_lake.storage_path, found)


def landing(lake: DeltaLakeManager, topic: Topic) -> Landing:
    dead = DeadLetters(DeadLetterQueue(lake.settings.dlq.path), topic)
    return Landing(topic, Place(lake, "run", False, lambda *_: None), lake.settings.streaming, dead)


def messages(topic: Topic, *said: dict[str, object] | None, start: int = 0, key: str | None = "AAPL") -> pa.Table:
    """Return messages of partition 0 as Spark hands them over."""
    names = [column.name for column in message_columns(topic.contract)]
    rows = []
    for offset, fields in enumerate(said, start):
        where = {"kafka_partition": 0, "kafka_offset": offset, "kafka_timestamp": OPEN + timedelta(days=1)}
        told = {} if fields is None else {name: None if v is None else str(v) for name, v in fields.items()}
        rows.append({**where, "_key": key, "_bytes": 0 if fields is None else 90, **told})
    fixed = [
        ("kafka_partition", pa.int64()),
        ("kafka_offset", pa.int64()),
        ("kafka_timestamp", pa.timestamp("us", "UTC")),
    ]
    more = [("_key", pa.string()), ("_bytes", pa.int32()), ("_raw", pa.binary())]
    texts = [(name, pa.string()) for name in [*names, "_unreadable"]]
    return pa.Table.from_pylist(rows, schema=pa.schema([*fixed, *more, *texts]))


def bar(close: float, timeframe: str = "1m", minute: int = 0, **others: object) -> dict[str, object]:
    prices = {"open": 10.0, "high": 20.0, "low": 5.0, "close": close, "volume": 3.0}
    when = (OPEN + timedelta(minutes=minute)).isoformat()
    return {"asset_pair": "AAPL", "timestamp": when, "timeframe": timeframe, **prices, **others}


def test_bars_go_to_the_table_of_their_length(lake: DeltaLakeManager) -> None:
    topic = topic_named(lake.settings, "market.stocks")
    stream = landing(lake, topic)
    stream.resume(Offsets({0: 0}, {0: 3}))
    done = stream.land(messages(topic, bar(11.0), bar(12.0, "1h"), bar(13.0, "1d", -600)), {0: 3}, dict)
    assert (done.landed, done.refused) == (3, 0)
    for length, close in (("1m", 11.0), ("1h", 12.0), ("1d", 13.0)):
        rows = lake.read_table(f"raw_market_data_{length}")
        assert rows[["asset_pair", "close", "provider"]].values.tolist() == [["AAPL", close, "stream"]]


def test_a_bar_that_is_sent_again_is_one_row_and_a_changed_one_a_restatement(lake: DeltaLakeManager) -> None:
    topic = topic_named(lake.settings, "market.stocks")
    stream = landing(lake, topic)
    stream.resume(Offsets({0: 0}, {0: 3}))
    # Two versions in one batch, then both again after the first run has died.
    stream.land(messages(topic, bar(11.0), bar(12.0)), {0: 3}, dict)
    again = landing(lake, topic)
    assert again.resume(Offsets({0: 0}, {0: 3})) == {0: 2}
    again.land(messages(topic, bar(12.0), start=2), {0: 3}, dict)
    rows = lake.read_table("raw_market_data_1m").sort_values("ingested_at")
    assert rows["close"].tolist() == [11.0, 12.0]


def test_longer_bars_alone_move_the_topic_on(lake: DeltaLakeManager) -> None:
    topic = topic_named(lake.settings, "market.stocks")
    stream = landing(lake, topic)
    stream.resume(Offsets({0: 0}, {0: 1}))
    stream.land(messages(topic, bar(12.0, "1h")), {0: 1}, dict)
    assert landing(lake, topic).resume(Offsets({0: 0}, {0: 1})) == {0: 1}


def test_what_is_wrong_is_told_with_where_it_lay(lake: DeltaLakeManager) -> None:
    topic = topic_named(lake.settings, "market.stocks")
    stream = landing(lake, topic)
    stream.resume(Offsets({0: 0}, {0: 6}))
    wrong = [None, bar(99.0), bar(11.0, "7m"), bar(11.0, asset_pair="NOBODY"), bar(11.0, high="much")]
    stream.land(messages(topic, *wrong, bar(12.0)), {0: 6}, dict)
    told = {record["kafka_offset"]: record["reason"] for record in dead_letters(lake.settings)}
    assert told == {
        0: "no value",
        1: "close not in range",
        2: "unknown timeframe",
        3: "the key is not the asset; unknown asset",
        4: "wrong type: high",
    }
    assert lake.read_table("raw_market_data_1m")["close"].tolist() == [12.0]


def test_latest_begins_at_the_end(lake: DeltaLakeManager, tmp_path: Path) -> None:
    found = make_settings(tmp_path, {"storage": {"engine": "embedded"}, "streaming": {"starting_offsets": "latest"}})
    late = DeltaLakeManager(found.delta_lake.storage_path, found)
    stream = landing(late, topic_named(found, "market.stocks"))
    assert stream.resume(Offsets({0: 2, 1: 0}, {0: 7, 1: 4})) == {0: 7, 1: 4}


def test_news_articles_land_once(lake: DeltaLakeManager) -> None:
    topic = topic_named(lake.settings, "news.sentiment")
    stream = landing(lake, topic)
    stream.resume(Offsets({0: 0}, {0: 2}))
    article = {
        "article_id": "a1",
        "asset_pair": "AAPL",
        "timestamp": OPEN.isoformat(),
        "title": "Up",
        "sentiment_score": 0.5,
    }
    page = messages(topic, article, article)
    page = page.set_column(page.column_names.index("topics"), "topics", pa.nulls(2, pa.list_(pa.string())))
    stream.land(page, {0: 2}, dict)
    assert lake.read_table("raw_news_sentiment")["article_id"].tolist() == ["a1"]
