"""Streams against a real broker: every message once in bronze or the dead letters, and bars as pandas has them."""

from __future__ import annotations

import base64
import json
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from kafka import KafkaAdminClient, TopicPartition
from pyspark.sql import SparkSession

from pipelines.config import Settings
from pipelines.storage import DeltaLakeManager
from pipelines.streaming.creation import create_topics
from pipelines.streaming.encoding import encoder
from pipelines.streaming.landing import StreamError
from pipelines.streaming.status import BatchStatus, StatusBoard
from pipelines.streaming.streaming_ingestion import Mode, StreamIngester, StreamResult
from pipelines.streaming.topics import topic_named
from tests.conftest import make_kafka_settings
from tests.servers.kafka import Broker
from tests.streaming.tick_log import START, Tick, TickLog, assert_exact, dead_letters, said

pytestmark = pytest.mark.spark

QUICK = {"streaming": {"trigger_seconds": 0.5, "heal_hours": 0, "compact_minutes": 0}}


@pytest.fixture
def found(tmp_path: Path, kafka: Broker, spark: SparkSession) -> Settings:
    return make_kafka_settings(tmp_path, kafka, QUICK)


@pytest.fixture
def topic(found: Settings) -> str:
    create_topics(found)
    return next(iter(found.streaming.topics))


def lake_of(settings: Settings) -> DeltaLakeManager:
    return DeltaLakeManager(settings.delta_lake.storage_path, settings)


def run(settings: Settings, topic: str, mode: Mode = Mode.AVAILABLE_NOW, **others: Any) -> StreamResult:
    topics = [topic_named(settings, topic)]
    (result,) = StreamIngester(lake_of(settings), settings, topics).run(mode, **others)
    return result


@contextmanager
def streaming(settings: Settings, topic: str) -> Iterator[list[BatchStatus]]:
    """Stream for as long as the context lasts; yields the batches so far."""
    stop, batches, results = threading.Event(), [], []
    go = {"stop": stop, "on_status": batches.append}
    thread = threading.Thread(target=lambda: results.append(run(settings, topic, Mode.CONTINUOUS, **go)))
    thread.start()
    try:
        yield batches
    finally:
        stop.set()
        thread.join(60)
    assert results
    assert results[0].error is None


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


def ticks(seed: int, count: int, start: float = 0.0) -> TickLog:
    """Return ticks of three assets in two partitions: some late, some twice, some unreadable."""
    chance = random.Random(seed)
    log, home = TickLog({0: [], 1: []}), {"BTCUSD": 0, "ETHUSD": 1, "SOLUSD": 1}
    for number in range(count):
        asset = chance.choice(sorted(home))
        at = START + timedelta(seconds=start + number * 0.9 + chance.uniform(-2, 2))
        kind = chance.random()
        if kind < 0.02:
            at -= timedelta(minutes=chance.choice([3, 70]))
        volume = None if kind > 0.95 else round(chance.uniform(0, 2), 3)
        bad = "{half" if 0.02 < kind < 0.03 else None
        tick = Tick(asset, at, round(chance.uniform(10, 20), 2), volume, f"{seed}-{number}", bad)
        log.partitions[home[asset]] += [tick] * (2 if 0.03 < kind < 0.06 else 1)
    return log


def test_ticks_land_once_and_make_bars(found: Settings, topic: str, kafka: Broker) -> None:
    log = ticks(1, 3000)
    log.produce(kafka.bootstrap, topic)
    some = found.model_copy(update={"streaming": found.streaming.model_copy(update={"max_messages_per_batch": 1100})})
    first = run(some, topic, Mode.ONCE)
    assert first.batches == 1
    assert 1000 < first.rows <= 1100
    # A checkpoint is no more than Spark's scratch.
    shutil.rmtree(Path(found.delta_lake.storage_path) / "_checkpoints")
    rest = run(some, topic)
    assert first.rows + rest.rows == sum(map(len, log.partitions.values()))
    assert_exact(lake_of(found), log, topic)
    assert run(found, topic).rows == 0
    (record,) = StatusBoard(lake_of(found)).read_all()
    assert record.status.state == "stopped"
    assert record.status.positions == {partition: len(each) for partition, each in log.partitions.items()}
    assert told_in_kafka(found, kafka) == len(dead_letters(found))


def told_in_kafka(settings: Settings, kafka: Broker) -> int:
    """Return how many dead letters the Kafka topic has."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "g", "auto.offset.reset": "earliest"})
    consumer.subscribe([str(settings.streaming.dlq_topic)])
    seen: set[bytes] = set()
    end = time.monotonic() + 15
    while time.monotonic() < end and len(seen) < len(dead_letters(settings)):
        for message in consumer.consume(500, 1.0):
            seen.add(message.key())
    consumer.close()
    return len(seen)


def test_what_cannot_be_taken_is_told_and_the_stream_goes_on(found: Settings, topic: str, kafka: Broker) -> None:
    good = said(Tick("BTCUSD", START, 10.0, 1.0, "good"))
    wrong: list[tuple[bytes | None, bytes | None, str]] = [
        (b"BTCUSD", b"{half", "not JSON"),
        (b"BTCUSD", b"[1, 2]", "not JSON"),
        (b"BTCUSD", b"", "no value"),
        (b"BTCUSD", None, "no value"),
        (b"BTCUSD", b"\xff\xfe{}", "not JSON in UTF-8"),
        (b"BTCUSD", b"x" * (2 << 20), "2097152 bytes, more than streaming.max_message_bytes"),
        (None, json.dumps(good).encode(), "no key"),
        (b"ETHUSD", json.dumps(good).encode(), "the key is not the asset"),
        (b"BTCUSD", json.dumps({**good, "price": "much"}).encode(), "wrong type: price"),
        (b"BTCUSD", json.dumps({**good, "price": -1.0}).encode(), "price out of bounds"),
        (b"BTCUSD", json.dumps({**good, "provider": "sample"}).encode(), "a synthetic tick in a real lake"),
        (b"NOBODY", json.dumps({**good, "asset_pair": "NOBODY"}).encode(), "unknown asset"),
        (b"BTCUSD", json.dumps({"asset_pair": "BTCUSD"}).encode(), "null timestamp"),
    ]
    # In this order, however large one of them is.
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap, "message.max.bytes": 4 << 20, "enable.idempotence": True}
    )
    for key, value, _ in wrong:
        producer.produce(topic, value, key, partition=0)
    producer.produce(topic, json.dumps(good), b"BTCUSD", partition=0)
    assert producer.flush(30) == 0
    result = run(found, topic)
    assert (result.rows, result.landed, result.refused, result.error) == (len(wrong) + 1, 1, len(wrong), None)
    told = {record["kafka_offset"]: str(record["reason"]) for record in dead_letters(found)}
    assert sorted(told) == list(range(len(wrong)))
    for offset, (_, _, reason) in enumerate(wrong):
        assert told[offset].startswith(reason), offset
    kept = {record["kafka_offset"]: record.get("value") for record in dead_letters(found)}
    assert kept[0] == "{half"
    assert kept[5] == "x" * (2 << 20)
    binary = next(record for record in dead_letters(found) if record["kafka_offset"] == 4)
    assert binary["value_base64"] == base64.b64encode(b"\xff\xfe{}").decode()


def test_avro_is_read_as_json_is(tmp_path: Path, kafka: Broker, spark: SparkSession) -> None:
    topics = {"avro": {"dataset": "raw_market_ticks", "format": "avro", "partitions": 2}}
    found = make_kafka_settings(tmp_path, kafka, QUICK, topics=topics)
    create_topics(found)
    (topic,) = found.streaming.topics
    encode = encoder(topic_named(found, topic))
    log = ticks(2, 200)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for partition, each in log.partitions.items():
        for tick in each:
            row = {**said(tick), "timestamp": tick.at}
            producer.produce(topic, b"\x01" if tick.bad else encode(row), tick.asset, partition=partition)
    assert producer.flush(30) == 0
    run(found, topic)
    assert_exact(lake_of(found), log, topic)


def test_a_broker_that_restarts_and_a_topic_that_grows(found: Settings, topic: str, kafka: Broker) -> None:
    log = ticks(3, 400)
    later = ticks(4, 400, start=400)
    with streaming(found, topic) as batches:
        log.produce(kafka.bootstrap, topic)
        until(lambda: bool(batches) and batches[-1].positions == {p: len(t) for p, t in log.partitions.items()})
        kafka.restart()
        before = {partition: len(each) for partition, each in log.partitions.items()}
        for partition, each in later.partitions.items():
            log.partitions[partition] += each
        log.produce(kafka.bootstrap, topic, before)
        grown = found.streaming.model_copy(
            update={"topics": {topic: found.streaming.topics[topic].model_copy(update={"partitions": 3})}}
        )
        create_topics(found.model_copy(update={"streaming": grown}))
        log.partitions[2] = [
            Tick("ADAUSD", START + timedelta(seconds=500 + 30 * n), 1.0, 1.0, f"a{n}") for n in range(9)
        ]
        log.produce(kafka.bootstrap, topic, {0: len(log.partitions[0]), 1: len(log.partitions[1])})
        until(lambda: batches[-1].positions == {p: len(t) for p, t in log.partitions.items()}, 120)
    assert_exact(lake_of(found), log, topic)


def test_offsets_that_expired_are_told(found: Settings, topic: str, kafka: Broker) -> None:
    log = ticks(5, 300)
    log.produce(kafka.bootstrap, topic)
    run(found, topic)
    before = {partition: len(each) for partition, each in log.partitions.items()}
    for partition, each in ticks(6, 300, start=300).partitions.items():
        log.partitions[partition] += each
    log.produce(kafka.bootstrap, topic, before)
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    admin.delete_records({TopicPartition(topic, 0): before[0] + 20})
    admin.close()
    result = run(found, topic)
    assert result.lost == 20
    told = [record for record in dead_letters(found) if record["reason"] == "expired before it was read"]
    assert [(each["from_offset"], each["until_offset"]) for each in told] == [(before[0], before[0] + 20)]
    rows = lake_of(found).read_table("raw_market_ticks")
    assert not rows.duplicated(["kafka_partition", "kafka_offset"]).any()


def test_one_process_reads_a_topic(found: Settings, topic: str, kafka: Broker) -> None:
    with streaming(found, topic) as batches:
        ticks(7, 20).produce(kafka.bootstrap, topic)
        until(lambda: bool(batches))
        with pytest.raises(StreamError, match="another process reads"):
            run(found, topic)
