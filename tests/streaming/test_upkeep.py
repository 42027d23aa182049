"""Compaction beside writers: few files, the same rows, no append that fails for it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from prometheus_client import REGISTRY

from pipelines.storage import DeltaLakeManager
from pipelines.storage.names import lake_root
from pipelines.storage.stores.locks import turn
from pipelines.storage.upkeep import compaction
from pipelines.streaming import upkeep
from pipelines.streaming.upkeep import Compactor
from tests.conftest import make_settings
from tests.storage.bars import bars

TICKS, BARS = "raw_market_ticks", "raw_market_data_1m"
DAY = datetime(2025, 12, 7, tzinfo=UTC)
HOT = ("2025-12-07", "BTCUSD")
ROWS = 20


def ticks(first_offset: int, rows: int = ROWS, asset: str = "BTCUSD", partition: int = 0) -> pa.Table:
    """Return ticks of one Kafka partition, four a second, each with its offset as price."""
    offsets = np.arange(first_offset, first_offset + rows)
    micros = int(DAY.timestamp()) * 1_000_000 + offsets * 250_000
    instants = pa.array(micros, pa.timestamp("us", "UTC"))
    none = pa.nulls(rows, pa.float64())
    return pa.table(
        {
            "asset_pair": [asset] * rows, "timestamp": instants, "price": offsets + 1.0, "volume": none, "bid": none,
            "ask": none, "side": ["buy"] * rows, "tick_id": [f"t{each}" for each in offsets],
            "provider": ["coinbase"] * rows, "kafka_topic": ["crypto_ticks"] * rows,
            "kafka_partition": pa.array([partition] * rows, pa.int64()), "kafka_offset": offsets,
            "kafka_timestamp": instants,
        }
    )  # fmt: skip


Make = Callable[..., Compactor]


@pytest.fixture
def lake(tmp_path: Path) -> DeltaLakeManager:
    settings = make_settings(tmp_path, {"storage": {"engine": "embedded"}})
    return DeltaLakeManager(settings.delta_lake.storage_path, settings)


@pytest.fixture
def compactor(lake: DeltaLakeManager) -> Iterator[Make]:
    """Makes compactors, by default one that is at work every 50 ms, and ends them."""
    made: list[Compactor] = []

    def make(seconds: float = 0.05, **maintenance: Any) -> Compactor:
        streaming = lake.settings.streaming.model_copy(update={"compact_minutes": seconds / 60})
        upkept = lake.settings.storage.maintenance.model_copy(update=maintenance)
        storage = lake.settings.storage.model_copy(update={"maintenance": upkept})
        made.append(Compactor(lake, lake.settings.model_copy(update={"streaming": streaming, "storage": storage})))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.stop()


def files(lake: DeltaLakeManager, table: str = TICKS) -> Counter[tuple[str, str]]:
    """Return how many live files each partition has, by date and asset."""
    uris = DeltaTable(f"{lake.storage_path}/{table}").file_uris()
    parts = [dict(part.split("=") for part in uri.split("/") if "=" in part) for uri in uris]
    return Counter((part["partition_date"], part["partition_asset_pair"]) for part in parts)


def offsets(lake: DeltaLakeManager) -> list[tuple[int, int, float]]:
    """Return partition, offset and price of every row of the live files, as DuckDB reads them."""
    uris = DeltaTable(f"{lake.storage_path}/{TICKS}").file_uris()
    sql = "SELECT kafka_partition, kafka_offset, price FROM read_parquet(?) ORDER BY ALL"
    return duckdb.execute(sql, [uris]).fetchall()


def written(partitions: int, count: int) -> list[tuple[int, int, float]]:
    return [(partition, offset, offset + 1.0) for partition in range(partitions) for offset in range(count)]


def operations(lake: DeltaLakeManager, table: str = TICKS) -> Counter[str]:
    """Return how often each operation was committed."""
    return Counter(
        entry.get("lakehouse.operation", entry["operation"])
        for entry in DeltaTable(f"{lake.storage_path}/{table}").history()
    )


def errors(kind: str) -> float:
    return REGISTRY.get_sample_value("pipeline_ingestion_errors_total", {"error_type": kind}) or 0.0


def test_a_partition_that_is_written_all_the_time_keeps_few_files(lake: DeltaLakeManager, compactor: Make) -> None:
    compacting, commits = compactor(), 60
    for number in range(commits):
        assert lake.append(TICKS, ticks(number * ROWS), f"batch-{number}").rows == ROWS
        compacting.touched(TICKS, [HOT])
    compacting.stop()
    assert set(files(lake)) == {HOT}
    # Each is larger than all smaller ones together, so that of 60 files' worth there cannot be more.
    assert files(lake)[HOT] <= 6
    done = operations(lake)
    assert done["WRITE"] == commits
    assert done["OPTIMIZE"] >= 2
    assert offsets(lake) == written(1, commits * ROWS)


def test_writers_and_another_compaction_go_on_at_the_same_time(lake: DeltaLakeManager, compactor: Make) -> None:
    lake.ensure_table(TICKS)
    compacting, commits, failed = compactor(0.01), 25, []
    ended = threading.Event()

    def write(partition: int) -> None:
        try:
            for number in range(commits):
                rows = ticks(number * ROWS, asset=("BTCUSD", "ETHUSD")[partition], partition=partition)
                assert lake.append(TICKS, rows, f"{partition}-{number}").rows == ROWS
                compacting.touched(TICKS, [HOT, ("2025-12-07", "ETHUSD")])
        except Exception as error:  # noqa: BLE001 - told by the test itself
            failed.append(error)

    writers = [threading.Thread(target=write, args=(partition,)) for partition in (0, 1)]
    for each in writers:
        each.start()
    while not ended.is_set():
        lake.optimize_table(TICKS)
        if not any(each.is_alive() for each in writers):
            ended.set()
        time.sleep(0.05)
    compacting.stop()
    assert failed == []
    assert offsets(lake) == written(2, commits * ROWS)
    assert max(files(lake).values()) <= 5
    assert DeltaTable(f"{lake.storage_path}/{TICKS}").count() == 2 * commits * ROWS


def test_appends_do_not_wait_while_files_are_rewritten(
    lake: DeltaLakeManager, compactor: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, appended = threading.Event(), threading.Event()

    def slow(*given: Any) -> Any:
        begun.set()
        assert appended.wait(60)
        return rewrite(*given)

    rewrite = compaction._Rewriter.rewrite
    monkeypatch.setattr(compaction._Rewriter, "rewrite", slow)
    for number in range(4):
        lake.append(TICKS, ticks(number * ROWS), "run")
    compacting = compactor(0.01)
    compacting.touched(TICKS, [HOT])
    assert begun.wait(60)
    for number in range(4, 7):
        assert lake.append(TICKS, ticks(number * ROWS), "run").rows == ROWS
    appended.set()
    while not operations(lake)["OPTIMIZE"]:
        time.sleep(0.01)
    assert files(lake) == {HOT: 4}
    assert offsets(lake) == written(1, 7 * ROWS)


def test_its_commit_waits_for_its_turn(lake: DeltaLakeManager, compactor: Make) -> None:
    for number in range(4):
        lake.append(TICKS, ticks(number * ROWS), "run")
    compacting = compactor(0.01)
    with turn(lake_root(lake.storage_path), TICKS):
        compacting.touched(TICKS, [HOT])
        while len(list((Path(lake.storage_path) / TICKS).rglob("part-*.parquet"))) < 5:
            time.sleep(0.01)
        time.sleep(0.3)
        assert operations(lake)["OPTIMIZE"] == 0
    while not operations(lake)["OPTIMIZE"]:
        time.sleep(0.01)
    assert files(lake) == {HOT: 1}


def test_only_what_was_touched_and_is_in_need_is_rewritten(lake: DeltaLakeManager, compactor: Make) -> None:
    for number in range(5):
        lake.append(TICKS, pa.concat_tables([ticks(number, 1), ticks(number, 1, "ETHUSD", 1)]), "run")
    lake.append(BARS, bars("1m", count=1), "run")
    lake.append(BARS, bars("1m", start=DAY + timedelta(minutes=1), count=1), "run")
    compacting = compactor(3600)
    compacting.touched(TICKS, [HOT])
    compacting.touched(BARS, [HOT])
    compacting.stop()
    assert files(lake) == {HOT: 1, ("2025-12-07", "ETHUSD"): 5}
    assert files(lake, BARS) == {HOT: 2, ("2025-12-07", "ETHUSD"): 2}
    assert "OPTIMIZE" not in operations(lake, BARS)
    # What was done is not done again.
    compacting.stop()
    assert operations(lake)["OPTIMIZE"] == 1


def test_a_file_at_the_target_size_is_never_taken(lake: DeltaLakeManager, compactor: Make) -> None:
    lake.append(TICKS, ticks(0, 4000), "large")
    (large,) = DeltaTable(f"{lake.storage_path}/{TICKS}").file_uris()
    for number in range(6):
        lake.append(TICKS, ticks(4000 + number * ROWS), "small")
    others = set(DeltaTable(f"{lake.storage_path}/{TICKS}").file_uris()) - {large}
    assert max(Path(uri).stat().st_size for uri in others) < Path(large).stat().st_size
    compacting = compactor(3600, small_file_mib=Path(large).stat().st_size / (1 << 20))
    compacting.touched(TICKS, [HOT])
    compacting.stop()
    left = DeltaTable(f"{lake.storage_path}/{TICKS}").file_uris()
    assert large in left
    assert len(left) == 2
    assert offsets(lake) == written(1, 4000 + 6 * ROWS)


def test_however_often_it_is_done_a_row_is_rewritten_a_few_times_only(
    lake: DeltaLakeManager, compactor: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewritten = []
    rewrite = compaction._Rewriter.rewrite

    def counted(self: Any, group: Any) -> Any:
        rewritten.append(sum(file.rows for file in group))
        return rewrite(self, group)

    monkeypatch.setattr(compaction._Rewriter, "rewrite", counted)
    compacting, rounds, rows = compactor(3600, small_files=2), 16, 2000
    for number in range(rounds):
        lake.append(TICKS, ticks(number * rows, rows), "run")
        compacting.touched(TICKS, [HOT])
        compacting._compact_all()
        assert files(lake)[HOT] <= 5
    # As a binary counter does: four times each, where taking all files every time makes it eight.
    assert sum(rewritten) <= 4 * rounds * rows
    assert offsets(lake) == written(1, rounds * rows)


def test_the_end_does_not_wait_for_a_compaction_that_takes_long(
    lake: DeltaLakeManager, compactor: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        lake.append(TICKS, ticks(number, 1), "run")
    monkeypatch.setattr(upkeep, "_CHEAP_BYTES", 5)
    compacting = compactor(3600)
    compacting.touched(TICKS, [HOT])
    compacting.stop()
    assert files(lake) == {HOT: 5}


def test_nothing_is_compacted_where_it_is_off(lake: DeltaLakeManager, compactor: Make) -> None:
    for number in range(5):
        lake.append(TICKS, ticks(number, 1), "run")
    compacting = compactor(0)
    compacting.touched(TICKS, [HOT])
    compacting.stop()
    assert files(lake) == {HOT: 5}


def test_a_failure_is_counted_and_tried_again(
    lake: DeltaLakeManager, compactor: Make, caplog: pytest.LogCaptureFixture
) -> None:
    before = errors("TableNotFoundError")
    compacting = compactor()
    compacting.touched(TICKS, [HOT])
    while errors("TableNotFoundError") < before + 2:
        time.sleep(0.01)
    assert f"{TICKS} is not compacted" in caplog.text
    for number in range(4):
        lake.append(TICKS, ticks(number, 1), "run")
    compacting.touched(TICKS, [HOT])
    compacting.stop()
    assert files(lake) == {HOT: 1}


def test_a_lake_in_s3_is_compacted_too(tmp_path: Path, s3_lake_path: str) -> None:
    settings = make_settings(tmp_path, {"storage": {"engine": "embedded"}, "streaming": {"compact_minutes": 60}})
    lake = DeltaLakeManager(s3_lake_path, settings)
    for number in range(5):
        lake.append(TICKS, ticks(number, 1), "run")
    compacting = Compactor(lake, settings)
    compacting.start()
    compacting.touched(TICKS, [HOT])
    compacting.stop()
    assert sum(table.files for table in lake.tables() if table.name == TICKS) == 1
    found = lake.read_table(TICKS)
    assert list(found["kafka_offset"]) == [0, 1, 2, 3, 4]
