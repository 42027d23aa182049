"""Appending: idempotent by content, restatements as later versions, one winner per race."""

from __future__ import annotations

import contextlib
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from bars import DAY0, bars
from deltalake import DeltaTable

from pipelines.errors import ConcurrentWriteError, ContractError, MixedOriginError, StorageError
from pipelines.storage import DeltaLakeManager
from pipelines.storage.engines import spark as spark_engine
from pipelines.storage.engines.base import Ticket
from pipelines.storage.writing import append, dedupe

pytestmark = pytest.mark.spark
TABLE = "raw_market_data_1h"


def uri(lake: DeltaLakeManager, table: str = TABLE) -> str:
    return f"{lake.storage_path}/{table}"


def count(lake: DeltaLakeManager, table: str = TABLE) -> int:
    """Count rows by DuckDB over the live files, which neither Spark nor delta-rs reads here."""
    files = DeltaTable(uri(lake, table)).file_uris()
    return duckdb.sql(f"select count(*) from read_parquet({files})").fetchall()[0][0] if files else 0


def test_append_lands_once_and_repeats_are_dropped(spark, lake):
    first = lake.append(TABLE, bars(), "run-1")
    assert (first.rows, first.new, first.restated, first.repeated) == (96, 96, 0, 0)
    again = lake.append(TABLE, bars(), "run-2")
    assert (again.rows, again.repeated, again.version) == (0, 96, first.version)
    assert count(lake) == spark.read.format("delta").load(uri(lake)).count() == 96
    rows = lake.read_table(TABLE)
    assert set(rows["run_id"]) == {"run-1"}
    assert rows["timestamp"].min() == DAY0


def test_overlap_writes_only_what_is_new(spark, lake):
    lake.append(TABLE, bars(count=24), "a")
    result = lake.append(TABLE, bars(start=DAY0 + timedelta(hours=12), count=24, shift=0.0), "b")
    # The second batch has other values for its twelve shared hours, for it starts its own series.
    assert (result.new, result.restated, result.repeated) == (24, 24, 0)


def test_restatement_is_a_later_version(spark, lake):
    lake.append(TABLE, bars(), "a")
    changed = bars(shift=1.0).slice(10, 1)
    result = lake.append(TABLE, changed, "b")
    assert (result.new, result.restated) == (0, 1)
    versions = lake.read_table(TABLE, assets="BTCUSD", start=DAY0 + timedelta(hours=10), end=DAY0 + timedelta(hours=11))
    assert list(versions.sort_values("ingested_at")["close"]) == pytest.approx(
        [bars()["close"][10].as_py(), changed["close"][0].as_py()]
    )
    assert versions["ingested_at"].is_unique
    # Back to the first value is a third version: the newest one is what counts.
    assert lake.append(TABLE, bars().slice(10, 1), "c").restated == 1


def test_restatement_is_later_even_if_the_clock_went_back(spark, lake, monkeypatch):
    lake.append(TABLE, bars(count=1), "a")
    monkeypatch.setattr(append, "utc_now", lambda: datetime(2020, 1, 1, tzinfo=UTC))
    lake.append(TABLE, bars(count=1, shift=1.0), "b")
    newest = lake.read_table(TABLE).sort_values("ingested_at").groupby("asset_pair").tail(1)
    assert set(newest["run_id"]) == {"b"}


def test_within_a_batch_repeats_collapse_and_the_last_version_counts(spark, lake):
    twice = pa.concat_tables([bars(count=2), bars(count=2), bars(count=2, shift=1.0)])
    result = lake.append(TABLE, twice, "a")
    assert (result.new, result.repeated) == (4, 8)
    assert result.part(8, 4).new == 4
    assert lake.append(TABLE, twice, "b").rows == 0
    assert lake.read_table(TABLE)["close"].min() > 100.9


def test_nan_and_null_equal_themselves(spark, lake):
    data = {
        "series_id": ["GDP", "GDP"],
        "timestamp": pa.array([DAY0, DAY0 + timedelta(days=1)], pa.timestamp("us", "UTC")),
        "value": pa.array([None, math.nan], pa.float64()),
        "units": ["USD", None],
        "realtime_start": pa.array([None, None], pa.date32()),
        "realtime_end": pa.array([None, None], pa.date32()),
        "provider": ["fred", "fred"],
    }
    assert lake.append("macro_indicators", pa.table(data), "a").new == 2
    assert lake.append("macro_indicators", pa.table(data), "b").repeated == 2
    data["value"] = pa.array([1.0, math.nan])
    assert lake.append("macro_indicators", pa.table(data), "c").restated == 1


def test_nested_columns_and_keys_without_event_time(spark, lake):
    def decisions(confidence: float, when: datetime) -> pa.Table:
        votes = pa.list_(pa.struct([("provider", pa.string()), ("action", pa.string()), ("confidence", pa.float64())]))
        return pa.table(
            {
                "decision_id": ["d'1"],
                "asset_pair": ["BTCUSD"],
                "timestamp": pa.array([when], pa.timestamp("us", "UTC")),
                "action": ["BUY"],
                "confidence": [0.5],
                "strategy": ["voting"],
                "providers": pa.array([["x", "y"]]),
                "votes": pa.array([[{"provider": "x", "action": "BUY", "confidence": confidence}]], votes),
                "timeframe": pa.array([None], pa.string()),
                "reasoning": ["because"],
                "model_version": pa.array([None], pa.string()),
                "provider": ["ensemble"],
            }
        )

    assert lake.append("raw_ai_decisions", decisions(0.5, DAY0), "a").new == 1
    assert lake.append("raw_ai_decisions", decisions(0.5, DAY0), "b").repeated == 1
    assert lake.append("raw_ai_decisions", decisions(0.6, DAY0), "c").restated == 1
    # The same decision with another time lies in another partition and is still found.
    moved = decisions(0.6, DAY0 + timedelta(days=60))
    assert lake.append("raw_ai_decisions", moved, "d").restated == 1
    assert lake.append("raw_ai_decisions", moved, "e").repeated == 1


def test_no_data_file_is_read_when_none_overlaps(spark, lake, monkeypatch):
    lake.append(TABLE, bars(count=24), "a")
    monkeypatch.setattr(dedupe, "execute", lambda *_: pytest.fail("data was read"))
    assert lake.append(TABLE, bars(start=DAY0 + timedelta(days=1), count=24), "b").new == 48
    assert lake.append(TABLE, bars(assets=("LTCBTC",), count=24), "c").new == 24


def test_one_file_per_partition_and_append(spark, lake):
    lake.append("raw_market_data_15m", bars("15m", count=96 * 5), "a")
    files = DeltaTable(uri(lake, "raw_market_data_15m")).file_uris()
    assert len(files) == 10
    assert {Path(file).parent.parent.name for file in files} == {
        f"partition_date={(DAY0 + timedelta(days=i)).date()}" for i in range(5)
    }


def test_the_tables_own_granularity_decides(spark, lake, tmp_path):
    lake.append(TABLE, bars(count=24), "a")
    yearly = lake.settings.model_copy(
        update={"delta_lake": lake.settings.delta_lake.model_copy(update={"partition_granularity": {"1h": "year"}})}
    )
    DeltaLakeManager(lake.storage_path, yearly).append(TABLE, bars(start=DAY0 + timedelta(days=1), count=24), "b")
    dates = lake.read_arrow(TABLE, columns=["partition_date"])["partition_date"]
    assert pc.unique(dates).to_pylist() == [DAY0.date().replace(day=1)]


def test_wrong_shapes_are_refused(lake):
    for bad in (
        bars().drop_columns(["close"]),
        bars().append_column("extra", pa.nulls(96)),
        bars().set_column(6, "close", pa.array(["x"] * 96)),
        bars().set_column(6, "close", pa.nulls(96, pa.float64())),
    ):
        with pytest.raises(ContractError, match=r"close|extra"):
            lake.append(TABLE, bad, "a")


def test_a_row_that_breaks_a_constraint_lands_nothing(spark, lake):
    lake.append(TABLE, bars(count=1), "a")
    with pytest.raises(StorageError, match="high_low"):
        lake.append(TABLE, bars(start=DAY0 + timedelta(days=1)).set_column(4, "high", pa.array([1.0] * 96)), "b")
    assert count(lake) == 2


def test_synthetic_and_real_do_not_mix(spark, lake):
    lake.append(TABLE, bars(count=1), "a")
    with pytest.raises(MixedOriginError, match="sample_storage_path"):
        lake.append(TABLE, bars(count=2), "b", synthetic=True)
    with pytest.raises(MixedOriginError):
        lake.append("raw_market_data_1d", bars("1d"), "b", synthetic=True)
    assert [info.origin for info in lake.tables()] == ["real", "real"]


def test_threads_creating_and_appending_at_once(spark, tmp_path, settings):
    lakes = [DeltaLakeManager(tmp_path / "lake", settings) for _ in range(3)]
    results = []
    threads = [
        threading.Thread(target=lambda one=one: results.append(one.append(TABLE, bars(), "t").new)) for one in lakes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [0, 0, 96]
    assert count(lakes[0]) == 96


def test_a_lost_race_is_noticed_and_given_up_in_the_end(spark, lake, settings, monkeypatch):
    """Delta skips without a word a transaction number it has seen: the writer must not take that for success."""
    few = settings.model_copy(update={"delta_lake": settings.delta_lake.model_copy(update={"commit_retries": 1})})
    stubborn = DeltaLakeManager(lake.storage_path, few)
    stubborn.append(TABLE, bars(count=1), "a")
    write = spark_engine._write

    def late(rows, address, ticket):
        write(rows, address, Ticket(ticket.tag, ticket.transaction - 1, ticket.seen))

    monkeypatch.setattr(spark_engine, "_write", late)
    with pytest.raises(ConcurrentWriteError):
        stubborn.append(TABLE, bars(start=DAY0 + timedelta(days=1)), "b")
    assert count(lake) == 2


def test_a_commit_whose_answer_was_lost_is_a_success(spark, lake, monkeypatch):
    from py4j.protocol import Py4JNetworkError

    write = spark_engine._write

    def mute(*args):
        write(*args)
        raise Py4JNetworkError("answer lost")

    monkeypatch.setattr(spark_engine, "_write", mute)
    assert lake.append(TABLE, bars(), "a").new == 96
    assert count(lake) == 96


def test_a_full_disk_commits_nothing(spark, settings, tiny_disk):
    lake = DeltaLakeManager(tiny_disk / "lake", settings)
    lake.append("raw_market_data_1m", bars("1m", count=60), "a")
    with pytest.raises(StorageError, match="disk is full") as caught:
        lake.append("raw_market_data_1m", bars("1m", start=DAY0 + timedelta(days=1), count=200_000), "b")
    assert "\n" not in str(caught.value)
    assert lake.tables()[-1].rows == 120
    assert count(lake, "raw_market_data_1m") == 120


class Writer:
    """Another process that writes."""

    def __init__(self, lake: DeltaLakeManager) -> None:
        command = [sys.executable, str(Path(__file__).with_name("writer_process.py")), lake.storage_path]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def tell(self, command: str) -> None:
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        return self.process.stdout.readline().strip()

    def jvm(self) -> psutil.Process:
        return next(p for p in psutil.Process(self.process.pid).children(recursive=True) if "java" in p.name())


@pytest.fixture
def writer(lake: DeltaLakeManager) -> Iterator[Writer]:
    other = Writer(lake)
    yield other
    other.process.kill()
    other.process.wait()
    for pipe in (other.process.stdin, other.process.stdout):
        with contextlib.suppress(BrokenPipeError):
            pipe.close()


@pytest.mark.soak
def test_two_processes_race_and_one_is_interrupted_and_killed(spark, lake, writer):
    """One scenario, for a JVM is slow to start: race without turns, Ctrl-C in mid-write, kill -9 in mid-write."""
    assert writer.hear() == "ready"
    rounds = 4
    writer.tell(f"race {rounds}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(append, "turn", lambda *_: contextlib.nullcontext())
        mine = sum(
            lake.append(TABLE, bars(start=DAY0 + timedelta(days=i), count=24), "main").new for i in range(rounds)
        )
    theirs = int(writer.hear().removeprefix("raced "))
    assert mine + theirs == count(lake) == rounds * 48

    writer.tell("append 3")
    assert writer.hear() == "appending"
    time.sleep(0.3)
    # What a terminal does on Ctrl-C: the signal goes to the whole process group.
    psutil.os.killpg(writer.process.pid, signal.SIGINT)
    assert {writer.hear(), writer.hear()} == {"interrupted", f"appended {3 * 2880}"}

    jvm = writer.jvm()
    writer.tell("append 30")
    assert writer.hear() == "appending"
    time.sleep(0.5)
    writer.process.kill()
    jvm.wait(timeout=30)
    lake.append("raw_market_data_1m", bars("1m", count=1440 * 30), "after")
    rows = lake.read_arrow("raw_market_data_1m", columns=["asset_pair", "timestamp"])
    assert rows.num_rows == rows.group_by(["asset_pair", "timestamp"]).aggregate([]).num_rows + 0
    assert count(lake, "raw_market_data_1m") == 30 * 2880
