"""The streams' files: whole, small, beside the tables and in nobody's way; rates and metrics by hand."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from prometheus_client import REGISTRY

from pipelines.errors import StorageError
from pipelines.storage import DeltaLakeManager
from pipelines.storage.names import lake_root
from pipelines.storage.stores.objects import objects_of
from pipelines.streaming.status import BatchStatus, StatusBoard
from tests.cli.shell import run
from tests.conftest import make_settings
from tests.storage.bars import bars

NOW = datetime(2025, 12, 7, 12, 0, tzinfo=UTC)


def status(topic: str = "crypto_ticks", **changes: Any) -> BatchStatus:
    found = BatchStatus(
        topic=topic,
        batch_id=7,
        run_id="run",
        finished_at=NOW,
        seconds=1.25,
        rows=100,
        landed=97,
        refused=3,
        late=2,
        bars=4,
        watermark=NOW - timedelta(seconds=8),
        positions=MappingProxyType({0: 1000, 1: 52}),
        ends=MappingProxyType({0: 1010, 1: 52, 2: 5}),
    )
    return replace(found, **changes)


@pytest.fixture(params=["disk", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> DeltaLakeManager:
    settings = make_settings(tmp_path, {"storage": {"engine": "embedded"}})
    disk = settings.delta_lake.storage_path
    return DeltaLakeManager(disk if request.param == "disk" else request.getfixturevalue("s3_lake_path"), settings)


@pytest.fixture
def board(embedded_lake: DeltaLakeManager) -> StatusBoard:
    return StatusBoard(embedded_lake)


def test_what_is_written_is_read_on_any_store(lake: DeltaLakeManager) -> None:
    board = StatusBoard(lake)
    assert board.read_all() == []
    first = status("market.stocks", watermark=None, lost=((0, 10, 25), (1, 0, 3)))
    board.write(status("crypto_ticks"))
    board.write(first)
    board.write(failed := replace(first, state="failed", error="no broker", unhealed=("BTCUSD 1m: 503",)))
    # By another process.
    found = StatusBoard(lake).read_all()
    assert [record.status for record in found] == [status("crypto_ticks"), failed]
    assert [record.status.lag for record in found] == [{0: 10, 1: 0, 2: 5}] * 2
    assert [(record.rows, record.refused, record.batch_seconds) for record in found] == [(100, 3, (1.25,))] * 2


def test_a_reader_never_finds_half_a_status(embedded_lake: DeltaLakeManager) -> None:
    ended = threading.Event()

    def write() -> None:
        board = StatusBoard(embedded_lake)
        for number in range(300):
            board.write(status(batch_id=number, error="x" * (number * 37 % 5000)))
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not ended.is_set():
        seen.update(record.status.batch_id for record in StatusBoard(embedded_lake).read_all())
    writer.join()
    assert len(seen) > 1
    assert [path.name for path in (Path(embedded_lake.storage_path) / "_streams").iterdir()] == ["crypto_ticks.json"]


def rate(board: StatusBoard) -> float:
    (record,) = board.read_all()
    return record.rows_per_second


def test_rates_are_those_of_the_last_minute(board: StatusBoard) -> None:
    def batch(after: float, seconds: float, rows: int, **changes: Any) -> None:
        finished = NOW + timedelta(seconds=after)
        board.write(status(finished_at=finished, seconds=seconds, rows=rows, **changes))

    batch(0, 2, 100)
    assert rate(board) == 50
    # From the first one's begin, two seconds before, to the end of the second.
    batch(8, 1, 100)
    assert rate(board) == 20
    for number in range(2, 40):
        batch(number * 8, 1, 80)
    assert board.read_all()[0].batch_seconds == (1.0,) * 12
    # Eight batches ended within the last sixty seconds.
    assert rate(board) == round(8 * 80 / 60, 3)
    # Nothing came for 30 seconds, but event time has passed: four of them ended in the last minute.
    batch(39 * 8 + 30, 0.01, 0)
    assert rate(board) == round(4 * 80 / 60, 3)
    batch(39 * 8 + 120, 0.01, 0)
    assert rate(board) == 0
    # A batch that took longer than the minute is reckoned over its own time.
    batch(39 * 8 + 320, 200, 4000)
    assert rate(board) == 20
    assert board.read_all()[0].batch_seconds == (*(1.0,) * 11, 200.0)
    # An end is no batch.
    batch(39 * 8 + 321, 200, 4000, state="stopped")
    (record,) = board.read_all()
    assert record.rows == 100 + 100 + 38 * 80 + 4000
    assert record.refused == 41 * 3


def metric(name: str, topic: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, {"topic": topic, **labels}) or 0.0


def test_metrics_follow_the_batches(board: StatusBoard) -> None:
    topic = "metrics.of.a.topic"
    board.write(status(topic, lost=((0, 10, 25),)))
    board.write(status(topic, lost=((0, 10, 25), (1, 0, 3)), seconds=3.0, ends={0: 1500, 1: 52}))
    board.write(status(topic, lost=((0, 10, 25), (1, 0, 3)), rows=0, refused=0, seconds=0.1))
    board.write(status(topic, lost=((0, 10, 25), (1, 0, 3)), state="stopped", finished_at=NOW + timedelta(seconds=2)))
    assert metric("kafka_messages_consumed_total", topic) == 200
    assert metric("pipeline_stream_refused_total", topic) == 6
    assert metric("pipeline_stream_lost_offsets_total", topic) == 15 + 3
    assert metric("pipeline_stream_batch_seconds_count", topic) == 2
    assert metric("pipeline_stream_batch_seconds_sum", topic) == 4.25
    assert metric("pipeline_stream_lag_messages", topic, partition="0") == 10
    assert metric("pipeline_stream_lag_messages", topic, partition="2") == 5
    assert metric("pipeline_stream_watermark_seconds_behind", topic) == 10


def test_a_status_that_cannot_be_written_stops_no_stream(
    embedded_lake: DeltaLakeManager, board: StatusBoard, caplog: pytest.LogCaptureFixture
) -> None:
    lake = Path(embedded_lake.storage_path)
    lake.mkdir(parents=True)
    (lake / "_streams").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        board.write(status())
    assert "the status of crypto_ticks was not written" in caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        lambda found: {},
        lambda found: {**found, "batch_seconds": None},
        lambda found: {**found, "status": {**found["status"], "state": "sleeping"}},
        lambda found: {**found, "status": {**found["status"], "positions": [1, 2]}},
        lambda found: {**found, "status": {**found["status"], "finished_at": "yesterday"}},
        lambda found: [found],
    ],
)
def test_a_file_that_is_no_status_is_named(embedded_lake: DeltaLakeManager, board: StatusBoard, damage: Any) -> None:
    board.write(status())
    path = Path(embedded_lake.storage_path) / "_streams" / "crypto_ticks.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text("utf-8")))), encoding="utf-8")
    with pytest.raises(StorageError, match=r"_streams/crypto_ticks\.json"):
        board.read_all()


# What Spark leaves in a checkpoint, names and all.
CHECKPOINT = ("metadata", "offsets/0", "offsets/.0.crc", "commits/0", "sources/0/0", "state/0/0/1.delta")


def put(lake: DeltaLakeManager) -> list[str]:
    """Write the streams' folders into a lake and return their files."""
    StatusBoard(lake).write(status())
    objects = objects_of(lake_root(lake.storage_path))
    paths = [f"_checkpoints/crypto_ticks/{name}" for name in CHECKPOINT]
    for path in paths:
        objects.put(path, b"v1\n{}")
    return ["_streams/crypto_ticks.json", *paths]


def answers(lake: DeltaLakeManager) -> Mapping[str, object]:
    """Return what the lake says of its tables."""
    done = lake.maintain()
    return {
        "tables": lake.tables(),
        "known": lake.known_tables(),
        "fsck": [lake.fsck(name, deep=True) for name in lake.known_tables()],
        "vacuum": [
            lake.vacuum_table(name, retention_hours=0, dry_run=True, force=True) for name in lake.known_tables()
        ],
        "maintained": [each.table for each in done],
    }


def test_the_streams_folders_are_nobodys_business(lake: DeltaLakeManager) -> None:
    lake.append("raw_market_data_1h", bars(), "run")
    before = answers(lake)
    paths = put(lake)
    assert answers(lake) == before
    for name in lake.known_tables():
        lake.vacuum_table(name, retention_hours=0, force=True)
    objects = objects_of(lake_root(lake.storage_path))
    assert all(objects.read(path) for path in paths)
    lake.snapshots.create("now")
    assert set(lake.snapshots.get("now").tables) == set(before["known"])  # type: ignore[call-overload]


def test_no_command_takes_them_for_tables(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, {"storage": {"engine": "embedded"}})
    lake = DeltaLakeManager(tmp_path / "real", settings)
    lake.append("raw_market_data_1h", bars(), "run")

    def said(*command: str) -> Any:
        done = run(tmp_path, *command, "--json", LAKEHOUSE__STORAGE__ENGINE="embedded")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def all_said() -> list[Any]:
        checks = [check for check in said("doctor", "--offline")["checks"] if "disk" not in check["name"]]
        return [said("status"), said("fsck", "--deep"), said("maintain")["tables"], checks]

    before = all_said()
    put(lake)
    assert all_said() == before
    assert [table["name"] for table in before[0]["tables"]] == ["ingest_coverage", "raw_market_data_1h"]
