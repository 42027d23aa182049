"""A topic of ticks in memory, as Spark hands it over, and what must come of it by plain Python and pandas."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
from confluent_kafka import Producer

from pipelines.config import Settings
from pipelines.data_quality.dlq import DeadLetterQueue
from pipelines.storage import DeltaLakeManager
from pipelines.streaming.clients import Offsets
from pipelines.streaming.dead_letters import DeadLetters
from pipelines.streaming.landing import Place
from pipelines.streaming.ticks import Heal, TickLanding
from pipelines.streaming.topics import topic_named

TOPIC = "crypto_ticks"
FIELDS = ("asset_pair", "timestamp", "price", "volume", "bid", "ask", "side", "tick_id", "provider")
LENGTHS = {"1m": "1min", "5m": "5min", "15m": "15min", "1h": "1h"}
START = datetime(2025, 12, 7, 10, 0, 20, tzinfo=UTC)
_SCHEMA = pa.schema(
    [
        ("kafka_partition", pa.int64()),
        ("kafka_offset", pa.int64()),
        ("kafka_timestamp", pa.timestamp("us", "UTC")),
        ("_key", pa.string()),
        ("_bytes", pa.int32()),
        ("_raw", pa.binary()),
        *((name, pa.string()) for name in FIELDS),
        ("_unreadable", pa.string()),
    ]
)


@dataclass(frozen=True)
class Tick:
    """One message; `bad` is text in place of a tick."""

    asset: str
    at: datetime
    price: float
    volume: float | None
    tick_id: str
    bad: str | None = None


@dataclass
class TickLog:
    """Partitions of messages."""

    partitions: dict[int, list[Tick]] = field(default_factory=dict)
    produced_at: datetime = START + timedelta(days=1)

    @property
    def offsets(self) -> Offsets:
        """What a broker would say."""
        return Offsets(dict.fromkeys(self.partitions, 0), {p: len(ticks) for p, ticks in self.partitions.items()})

    def batch(self, positions: Mapping[int, int], sizes: Mapping[int, int]) -> pa.Table:
        """Return the next messages of each partition."""
        return pa.Table.from_pylist(
            [
                self._message(partition, offset)
                for partition, ticks in sorted(self.partitions.items())
                for offset in range(len(ticks))[positions.get(partition, 0) :][: sizes[partition]]
            ],
            schema=_SCHEMA,
        )

    def produce(self, bootstrap: str, topic: str, start: Mapping[int, int] | None = None) -> None:
        """Send the messages to a broker, each partition from an offset on, so that they lie there as here."""
        producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "message.max.bytes": 4 << 20})
        failed: list[object] = []
        for partition, ticks in self.partitions.items():
            for tick in ticks[(start or {}).get(partition, 0) :]:
                value = tick.bad if tick.bad is not None else json.dumps(said(tick))
                producer.produce(
                    topic,
                    value,
                    tick.asset,
                    partition=partition,
                    on_delivery=lambda error, _: failed.append(error) if error else None,
                )
        assert producer.flush(60) == 0
        assert not failed

    def _message(self, partition: int, offset: int) -> dict[str, object]:
        tick = self.partitions[partition][offset]
        where = {"kafka_partition": partition, "kafka_offset": offset, "kafka_timestamp": self.produced_at}
        if tick.bad is not None:
            return {**where, "_key": tick.asset, "_bytes": len(tick.bad), "_unreadable": tick.bad}
        texts = {name: None if value is None else str(value) for name, value in said(tick).items()}
        return {**where, "_key": tick.asset, "_bytes": 100, **texts}


def said(tick: Tick) -> dict[str, object]:
    """Return what a tick's message says."""
    return {
        "asset_pair": tick.asset,
        "timestamp": tick.at.isoformat(),
        "price": tick.price,
        "volume": tick.volume,
        "tick_id": tick.tick_id,
        "provider": "coinbase",
    }


def tick_landing(
    manager: DeltaLakeManager, settings: Settings, heal: Heal | None = None, topic: str = TOPIC
) -> TickLanding:
    """Return a landing as a stream that has just started makes it."""
    wanted = topic_named(settings, topic)
    dead = DeadLetters(DeadLetterQueue(settings.dlq.path), wanted)
    return TickLanding(wanted, Place(manager, "run", False, lambda *_: None), settings.streaming, dead, heal)


def dead_letters(settings: Settings) -> list[dict[str, object]]:
    """Return the records of the dead letter queue, read without the product's own reader."""
    files = sorted(Path(settings.dlq.path).glob("dlq_*.json"))
    return [record for path in files for record in json.loads(path.read_text("utf-8"))["records"]]


def positions_of(records: Collection[Mapping[str, object]]) -> list[tuple[int, int]]:
    """Return where messages lay, sorted."""
    return sorted((int(str(each["kafka_partition"])), int(str(each["kafka_offset"]))) for each in records)


def too_late(log: TickLog, lateness: timedelta) -> set[tuple[int, int]]:
    """Return the messages that are later than the newest one of their asset before them in their partition."""
    found: set[tuple[int, int]] = set()
    for partition, ticks in log.partitions.items():
        newest: dict[str, datetime] = {}
        for offset, tick in enumerate(ticks):
            if tick.bad is not None:
                continue
            if tick.asset in newest and tick.at < newest[tick.asset] - lateness:
                found.add((partition, offset))
            else:
                newest[tick.asset] = max(tick.at, newest.get(tick.asset, tick.at))
    return found


def expected_bars(log: TickLog, refused: Collection[tuple[int, int]], length: str, since: datetime) -> pd.DataFrame:
    """Return the bars of all ticks but the refused ones: asset_pair, timestamp, open, high, low, close, volume.

    `length` is pandas' word for it; bars that open before `since` are left out.
    """
    rows = [
        (tick.asset, tick.at, partition, offset, tick.price, tick.volume, tick.tick_id)
        for partition, ticks in log.partitions.items()
        for offset, tick in enumerate(ticks)
        if tick.bad is None and (partition, offset) not in refused
    ]
    columns = ["asset_pair", "at", "partition", "offset", "price", "volume", "tick_id"]
    frame = pd.DataFrame(rows, columns=columns).drop_duplicates(["asset_pair", "tick_id"])
    frame = frame.sort_values(["at", "partition", "offset"])
    frame["timestamp"] = frame["at"].dt.floor(length)
    # A longer bar is made of whole minutes only.
    frame = frame[frame["timestamp"] >= pd.Timestamp(since)]
    bars = frame.groupby(["asset_pair", "timestamp"]).agg(
        open=("price", "first"),
        high=("price", "max"),
        low=("price", "min"),
        close=("price", "last"),
        volume=("volume", lambda values: values.sum(min_count=1)),
    )
    return bars.reset_index().sort_values(["asset_pair", "timestamp"]).reset_index(drop=True)


def newest_bars(manager: DeltaLakeManager, table: str) -> pd.DataFrame:
    """Return the newest version of each of the stream's bars that a table has; empty without a table."""
    columns: Sequence[str] = ["asset_pair", "timestamp", "open", "high", "low", "close", "volume"]
    if not manager.exists(table):
        return pd.DataFrame(columns=list(columns))
    rows = manager.read_table(table).sort_values("ingested_at")
    rows = rows[rows["provider"] == "stream"].drop_duplicates(["asset_pair", "timestamp"], keep="last")
    return rows[list(columns)].sort_values(["asset_pair", "timestamp"]).reset_index(drop=True)


def assert_exact(lake: DeltaLakeManager, log: TickLog, topic: str = TOPIC) -> None:
    """Every message once in bronze or the dead letters, and bars as pandas has them."""
    rows = lake.read_table("raw_market_ticks") if lake.exists("raw_market_ticks") else pd.DataFrame()
    landed = positions_of(rows.to_dict("records"))
    refused = positions_of(dead_letters(lake.settings))
    everything = [(p, offset) for p, ticks in sorted(log.partitions.items()) for offset in range(len(ticks))]
    assert sorted(landed + refused) == everything
    late = too_late(log, timedelta(minutes=lake.settings.streaming.lateness_minutes))
    bad = {(p, o) for p, ticks in log.partitions.items() for o, tick in enumerate(ticks) if tick.bad is not None}
    assert set(refused) == late | bad
    sound = [tick.at for p, ticks in log.partitions.items() for o, tick in enumerate(ticks) if (p, o) in set(landed)]
    if not sound:
        return
    landing = tick_landing(lake, lake.settings, topic=topic)
    landing.resume(log.offsets)
    since, newest = landing._bars.since, max(sound)
    assert since is not None
    for length, word in LENGTHS.items():
        bars = expected_bars(log, set(refused), word, since)
        closed = newest - timedelta(seconds=lake.settings.streaming.bar_delay_seconds)
        bars = bars[bars["timestamp"] + pd.Timedelta(word) <= closed].reset_index(drop=True)
        found = newest_bars(lake, f"raw_market_data_{length}")
        pd.testing.assert_frame_equal(found, bars, check_dtype=False, rtol=1e-12)
