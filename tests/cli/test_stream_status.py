"""`lakehouse stream status`: what the streams' files and the real broker say, in words, JSON and exit codes."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from pipelines.config import Settings
from pipelines.storage import DeltaLakeManager
from pipelines.streaming.clients import admin, kafka_options
from pipelines.streaming.creation import create_topics
from pipelines.streaming.ports import reserved_port
from pipelines.streaming.status import BatchStatus, StatusBoard
from pipelines.timeframes import utc_now
from tests.cli.shell import run, spawn
from tests.conftest import make_settings

HOUR = timedelta(hours=1)


def status(topic: str = "crypto_ticks", age: timedelta = timedelta(), **changes: Any) -> BatchStatus:
    now = utc_now()
    found = BatchStatus(
        topic=topic,
        batch_id=3,
        run_id="run",
        finished_at=now - age,
        seconds=2.0,
        rows=500,
        landed=490,
        refused=10,
        late=0,
        bars=6,
        watermark=now - age - timedelta(minutes=2),
        positions={0: 5, 1: 3},
        ends={0: 5, 1: 3},
    )
    return replace(found, **changes)


def lake_in(folder: Path) -> DeltaLakeManager:
    """Return a lake of real data where the command looks for it."""
    lake = DeltaLakeManager(folder / "real", make_settings(folder, {"storage": {"engine": "embedded"}}))
    lake.ensure_table("raw_market_ticks")
    return lake


def ask(folder: Path, *arguments: str, address: str) -> Result:
    return run(folder, "stream", "status", *arguments, LAKEHOUSE__STREAMING__BOOTSTRAP_SERVERS=address)


def document(done: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def nobody() -> str:
    """An address that no broker is at."""
    return f"127.0.0.1:{reserved_port()}"


def produce(settings: Settings, topic: str, **messages: int) -> None:
    """Write messages into partitions: p0=3 is three into the first."""
    producer = KafkaProducer(**kafka_options(settings.streaming))
    for name, count in messages.items():
        for number in range(count):
            producer.send(topic, value=b"%d" % number, partition=int(name[1:]))
    producer.flush()
    producer.close()


@pytest.mark.kafka
def test_lag_is_what_the_broker_holds_now(tmp_path: Path, kafka_settings: Settings) -> None:
    (topic,) = kafka_settings.streaming.topics
    address = kafka_settings.streaming.bootstrap_servers
    create_topics(kafka_settings)
    produce(kafka_settings, topic, p0=7, p1=3)
    board = StatusBoard(lake_in(tmp_path))

    def one(*arguments: str) -> dict[str, Any]:
        done = ask(tmp_path, "--json", *arguments, address=address)
        assert done.exit_code == 0, done.output
        (found,) = document(done)["topics"]
        assert isinstance(found, dict)
        return found

    board.write(status(topic))
    found = one()
    assert (found["state"], found["lag"], found["ends"]) == ("running", {"0": 2, "1": 0}, {"0": 7, "1": 3})
    assert found["rows_per_second"] == 250
    assert found["watermark_seconds_behind"] == pytest.approx(120, abs=30)
    assert found["since_start"] == {"rows": 500, "dead_letters": 10}
    # There is more to read, and nobody has for an hour.
    board.write(status(topic, HOUR))
    found = one("--topics", topic)
    assert (found["state"], found["rows_per_second"]) == ("stale", 0.0)
    board.write(status(topic, HOUR, state="stopped"))
    assert one()["state"] == "stopped"
    # Nothing has come for an hour.
    board.write(status(topic, HOUR, positions={0: 7, 1: 3}))
    assert one()["state"] == "running"
    # A partition that came since is read from its beginning.
    grown = kafka_settings.streaming.topics[topic].model_copy(update={"partitions": 3})
    streaming = kafka_settings.streaming.model_copy(update={"topics": {topic: grown}})
    create_topics(kafka_settings.model_copy(update={"streaming": streaming}))
    produce(kafka_settings, topic, p2=4)
    found = one()
    assert (found["state"], found["lag"]) == ("stale", {"0": 0, "1": 0, "2": 4})


@pytest.mark.kafka
def test_what_expired_unread_is_told_before_the_stream_comes_to_it(tmp_path: Path, kafka_settings: Settings) -> None:
    (topic,) = kafka_settings.streaming.topics
    address = kafka_settings.streaming.bootstrap_servers
    create_topics(kafka_settings)
    produce(kafka_settings, topic, p0=7, p1=3)
    with admin(kafka_settings) as client:
        client.delete_records({TopicPartition(topic, 0): 6})
    consumer = KafkaConsumer(**kafka_options(kafka_settings.streaming))
    assert consumer.beginning_offsets([TopicPartition(topic, 0)]) == {TopicPartition(topic, 0): 6}
    consumer.close()
    StatusBoard(lake_in(tmp_path)).write(status(topic, positions={0: 2, 1: 3}, lost=((1, 0, 1),), state="stopped"))
    done = ask(tmp_path, "--json", address=address)
    assert done.exit_code == 1
    (found,) = document(done)["topics"]
    assert (found["lost"], found["lag"]) == ([[1, 0, 1], [0, 2, 6]], {"0": 1, "1": 0})
    done = ask(tmp_path, address=address)
    assert done.exit_code == 1
    assert f"{topic}: 4 messages of partition 0 (offsets 2 to 5) expired before they were read" in done.output
    assert "1 message of partition 1 (offsets 0 to 0) expired" in done.output


@pytest.mark.kafka
def test_a_table_for_people_and_what_went_wrong_below(tmp_path: Path, kafka_settings: Settings) -> None:
    board = StatusBoard(lake_in(tmp_path))
    board.write(status("bonds_data"))
    failed = status(watermark=None, ends={0: 1500, 1: 3})
    board.write(failed)
    board.write(replace(failed, state="failed", error="no room on the disk", unhealed=("BTCUSD 1m: answered 503",)))
    done = ask(tmp_path, address=kafka_settings.streaming.bootstrap_servers)
    assert done.exit_code == 1
    heading, bonds, crypto, *problems = done.stdout.splitlines()[2:]
    said = "topic state lag rows/s batch behind dead letters watermark (UTC) last batch lag by partition"
    assert " ".join(heading.split()) == said
    assert bonds.split()[:6] == ["bonds_data", "running", "0", "250", "2.0", "s"]
    assert bonds.split()[-3:] == ["ago", "0:0", "1:0"]
    # These topics are not at this broker: what it held at the last batch is all there is.
    assert crypto.split()[:7] == ["crypto_ticks", "failed", "1,495", "250", "2.0", "s", "-"]
    assert crypto.split()[-3:] == ["ago", "0:1495", "1:0"]
    assert problems == [
        "crypto_ticks failed: no room on the disk",
        "crypto_ticks: not had from the providers: BTCUSD 1m: answered 503",
    ]
    only = ask(tmp_path, "--topics", "bonds_data", address=kafka_settings.streaming.bootstrap_servers)
    assert only.exit_code == 0
    assert "crypto_ticks" not in only.output


def test_without_a_broker_the_last_batch_speaks(tmp_path: Path, nobody: str) -> None:
    StatusBoard(lake_in(tmp_path)).write(status(age=HOUR, ends={0: 9, 1: 3}))
    done = ask(tmp_path, "--json", address=nobody)
    assert done.exit_code == 0
    found = document(done)
    assert (found["lake"], found["synthetic"]) == (str(tmp_path / "real"), False)
    assert found["broker"]["reachable"] is False
    assert nobody in found["broker"]["error"]
    (stream,) = found["topics"]
    assert (stream["state"], stream["lag"]) == ("stale", {"0": 4, "1": 0})


def test_topics_that_never_ran_and_those_that_are_none(tmp_path: Path, nobody: str) -> None:
    # A lake that is not there yet has no streams either.
    for made in (False, True):
        if made:
            lake_in(tmp_path)
        done = ask(tmp_path, address=nobody)
        assert done.exit_code == 0, done.output
        assert "No stream has written to this lake yet; `lakehouse stream run` starts one." in done.stdout
        done = ask(tmp_path, "--topics", "bonds_data", address=nobody)
        assert done.exit_code == 0
        assert "bonds_data: no stream of it has written to this lake yet" in done.stdout
        done = ask(tmp_path, "--topics", "bonds_data", "--json", address=nobody)
        assert document(done)["topics"] == [{"topic": "bonds_data", "state": "never run"}]
        done = ask(tmp_path, "--topics", "crypto_tick", address=nobody)
        assert done.exit_code == 2
        assert "did you mean crypto_ticks" in done.output
    assert ask(tmp_path, "--lake", str(tmp_path / "none"), address=nobody).exit_code == 1
    assert ask(tmp_path, "--watch", "--json", address=nobody).exit_code == 2


def test_watching_goes_on_until_it_is_ended(tmp_path: Path, nobody: str) -> None:
    lake_in(tmp_path)
    with spawn(
        tmp_path, "stream", "status", "--topics", "bonds_data", "--watch", LAKEHOUSE__STREAMING__TRIGGER_SECONDS="1"
    ) as process:
        assert process.stdout
        seen: list[str] = []
        while sum("bonds_data: no stream" in line for line in seen) < 2:
            seen.append(process.stdout.readline())
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert err == ""
