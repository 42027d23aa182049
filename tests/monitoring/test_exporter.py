"""What the exporter shows of a lake equals what the lake holds, and stays so when something is broken."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from pipelines.data_quality.dlq import DeadLetterQueue
from pipelines.edge import RefusedRow
from pipelines.monitoring.exporter import Exporter
from pipelines.monitoring.labels import Bounded
from pipelines.monitoring.parts.records import Records
from pipelines.storage import DeltaLakeManager
from pipelines.storage.quality_log import QualityResult
from pipelines.timeframes import Timeframe
from tests.cli.shell import run
from tests.conftest import make_settings
from tests.monitoring.oracle import records, rows_of
from tests.monitoring.scrape import Samples, shown
from tests.storage.bars import bars
from tests.transform.sample_book import contract_table

NOW = datetime(2025, 12, 4, 12, tzinfo=UTC)
RECORDS = "pipeline_ingestion_records_total"


def looked(manager: DeltaLakeManager, now: datetime = NOW) -> Samples:
    exporter = Exporter(manager, clock=lambda: now)
    assert exporter.look()
    return shown(exporter)


def counted(samples: Samples) -> dict[object, float]:
    return samples.by(RECORDS, "asset_pair", "timeframe", "provider")


def folder_of(manager: DeltaLakeManager) -> Path:
    return Path(manager.storage_path)


def test_records_equal_the_lakes_own_count(sample):
    known = records(folder_of(sample))
    assert len(known) == 12
    assert counted(looked(sample)) == known


def test_datasets_without_bars_have_no_timeframe(sample, tmp_path):
    made = run(
        tmp_path, "backfill", "--provider", "sample", "--dataset", "raw_ai_decisions", "--assets", "BTCUSD,ETHUSD",
        "--start", "2025-12-01", "--end", "2025-12-02", "--lake", sample.storage_path, "--quiet",
        LAKEHOUSE__STORAGE__ENGINE="embedded",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    known = {"series_id": "DGS10", "timestamp": NOW, "value": 4.2, "provider": "sample"}
    sample.append("macro_indicators", contract_table("macro_indicators", [known]), "r", synthetic=True)
    found = {key: value for key, value in counted(looked(sample)).items() if not key[1]}
    sql = "select asset_pair, '', provider, count(*) from rows group by all"
    decisions = {tuple(row[:3]): row[3] for row in rows_of(folder_of(sample), "raw_ai_decisions", sql)}
    assert len(decisions) == 2
    assert found == decisions | {("DGS10", "", "sample"): 1}


def test_sizes_rows_files_and_versions_of_every_table(sample):
    samples, names = (
        looked(sample),
        {each.name for each in folder_of(sample).iterdir() if (each / "_delta_log").is_dir()},
    )
    assert {"raw_market_data_1m", "ingest_coverage", "quality_results"} <= names
    for name, column in (("size_bytes", "size_bytes"), ("rows", "num_records")):
        actions = {each: DeltaTable(str(folder_of(sample) / each)).get_add_actions(flatten=True) for each in names}
        held = {each: sum(pa.table(found)[column].to_pylist()) for each, found in actions.items()}
        assert samples.by(f"pipeline_delta_table_{name}", "table") == held
    files = {each: DeltaTable(str(folder_of(sample) / each)).file_uris() for each in names}
    assert samples.by("pipeline_delta_table_files", "table") == {each: len(found) for each, found in files.items()}
    most = {
        each: max(sum(Path(other).parent == Path(uri).parent for other in found) for uri in found)
        for each, found in files.items()
    }
    assert samples.by("pipeline_partition_files_max", "table") == most
    versions = {each: DeltaTable(str(folder_of(sample) / each)).version() for each in names}
    assert samples.by("pipeline_delta_table_version", "table") == versions


def test_freshness_is_by_the_newest_bar_and_by_what_the_calendar_owes(sample):
    samples = looked(sample)
    for timeframe in Timeframe:
        sql = "select asset_pair, max(timestamp) from rows group by 1"
        for pair, newest in rows_of(folder_of(sample), f"raw_market_data_{timeframe.value}", sql):
            labels = {"asset_pair": pair, "timeframe": timeframe.value}
            closed = newest + timedelta(seconds=timeframe.seconds)
            assert samples.value("pipeline_newest_bar_timestamp_seconds", **labels) == closed.timestamp()
            assert samples.value("pipeline_data_freshness_seconds", **labels) == (NOW - closed).total_seconds()
    overdue = "pipeline_data_overdue_seconds"
    # At noon with five minutes of grace: the minute that closed at 11:55, the hours until 11:00, no day yet.
    assert samples.value(overdue, asset_pair="BTCUSD", timeframe="1m") == (12 * 60 - 5) * 60
    assert samples.value(overdue, asset_pair="BTCUSD", timeframe="1h") == 11 * 3600
    assert samples.value(overdue, asset_pair="BTCUSD", timeframe="1d") == 0


def test_a_closed_market_owes_nothing(sample):
    # Friday's last bars of EURUSD are there; on Saturday nothing is due, however old they are.
    friday = datetime(2025, 12, 5, 21, 59, tzinfo=UTC)
    sample.append("raw_market_data_1m", bars("1m", start=friday, count=1, assets=("EURUSD",)), "r", synthetic=True)
    saturday = looked(sample, friday + timedelta(hours=20))
    labels = {"asset_pair": "EURUSD", "timeframe": "1m"}
    assert saturday.value("pipeline_data_freshness_seconds", **labels) == 20 * 3600 - 60
    assert saturday.value("pipeline_data_overdue_seconds", **labels) == 0
    monday = looked(sample, datetime(2025, 12, 8, 9, tzinfo=UTC))
    assert monday.value("pipeline_data_overdue_seconds", **labels) == (2 + 48 + 8) * 3600 + 55 * 60


def test_coverage_and_gaps_are_those_of_status(sample):
    samples = looked(sample)
    assert samples.value("pipeline_coverage_ratio", asset_pair="BTCUSD", timeframe="1m") == 1
    assert set(samples.by("pipeline_gaps", "asset_pair", "timeframe").values()) == {0}


def test_totals_survive_a_restart_and_only_new_files_are_read(sample):
    part = Records()
    exporter = Exporter(sample, [part], clock=lambda: NOW)
    exporter.look()
    assert counted(shown(exporter)) == records(folder_of(sample))
    opened = sum(each.read for each in part._counts.values())
    assert opened == 0, "the statistics in the log say it all"
    # A file of two providers, whose statistics do not tell how many rows each has.
    table = folder_of(sample) / "raw_market_data_1h"
    two = pa.concat_tables(
        [bars(start=NOW, count=3, assets=("BTCUSD",)), bars(start=NOW, count=2, assets=("BTCUSD",), provider="oanda")]
    )
    sample.append("raw_market_data_1h", two, "r", synthetic=True)
    exporter.look()
    assert counted(shown(exporter)) == records(folder_of(sample))
    assert sum(each.read for each in part._counts.values()) == opened + 1
    sample.append("raw_market_data_1h", bars(start=NOW + timedelta(days=3), count=1), "r", synthetic=True)
    exporter.look()
    assert counted(shown(exporter)) == records(folder_of(sample))
    assert sum(each.read for each in part._counts.values()) == opened + 1
    # Compaction writes the same rows into other files.
    before = counted(shown(exporter))
    DeltaTable(str(table)).optimize.compact()
    exporter.look()
    assert counted(shown(exporter)) == before == counted(looked(sample)) == records(folder_of(sample))


def test_a_table_made_anew_at_the_same_version_is_read_anew(sample):
    exporter = Exporter(sample, clock=lambda: NOW)
    exporter.look()
    table = folder_of(sample) / "raw_market_data_4h"
    held = DeltaTable(str(table))
    part, version = held.to_pyarrow_table().slice(0, 5), held.version()
    shutil.rmtree(table)
    for number in range(version + 1):
        write_deltalake(
            str(table), part.slice(0, number), mode="overwrite", partition_by=held.metadata().partition_columns
        )
    assert DeltaTable(str(table)).version() == version
    exporter.look()
    assert counted(shown(exporter)) == records(folder_of(sample))


def test_checks_are_counted_by_outcome(sample):
    result = QualityResult("suite", "raw_market_data", "high below low", "critical", False, 10, 1)
    sample.quality.record([result, result], "r", synthetic=True)
    warning = QualityResult("freshness", "raw_market_data", "newest row is there", "warning", False, 1, 1)
    sample.quality.record([warning], "r", synthetic=True)
    sql = "select count(*) from rows where success and dataset = 'raw_market_data' and kind in ('edge', 'suite')"
    [(passed,)] = rows_of(folder_of(sample), "quality_results", sql)
    assert passed == 12
    assert looked(sample).by("pipeline_data_quality_checks_total", "suite", "status") == {
        ("raw_market_data", "passed"): passed, ("raw_market_data", "warned"): 0, ("raw_market_data", "failed"): 2,
        ("freshness", "passed"): 0, ("freshness", "warned"): 1, ("freshness", "failed"): 0,
    }  # fmt: skip


def test_dead_letters_by_reason_until_they_are_gone(sample, caplog):
    queue = DeadLetterQueue(sample.settings.dlq.path)
    assert looked(sample).by("pipeline_dlq_records", "reason") == {}
    rows = [
        RefusedRow({"n": n}, reason, None) for n, reason in enumerate(["high < low", "high < low; no price", "x: 'v'"])
    ]
    first = queue.write("schema_validation_failed", {"dataset": "raw_market_data"}, rows)
    exporter = Exporter(sample, clock=lambda: NOW)
    assert exporter.look()
    found = shown(exporter)
    assert found.by("pipeline_dlq_records", "reason") == {"high < low": 2, "no price": 1, "x": 1}
    assert found.value("pipeline_dlq_files") == 1
    assert found.value("pipeline_dlq_bytes") == first.stat().st_size
    broken = queue.path / "dlq_2025-12-01T00-00-00_0123456789ab.json"
    broken.write_text('{"timestamp": "2025', encoding="utf-8")
    assert not exporter.look()
    assert shown(exporter).by("pipeline_dlq_records", "reason") == {"high < low": 2, "no price": 1, "x": 1}
    assert shown(exporter).value("pipeline_exporter_errors_total", part="dlq") == 1
    assert broken.name in caplog.text
    broken.unlink()
    queue.archive(first)
    assert exporter.look()
    assert shown(exporter).by("pipeline_dlq_records", "reason") == {}


def test_a_flood_of_reasons_is_bounded(sample):
    rows = [RefusedRow({"n": n}, f"reason number {n}", None) for n in range(300)]
    DeadLetterQueue(sample.settings.dlq.path).write("schema_validation_failed", {}, rows)
    found = looked(sample).by("pipeline_dlq_records", "reason")
    assert len(found) == 51
    assert found["other"] == 250
    assert sum(found.values()) == 300


def test_bounded_labels_stay_what_they_were():
    label = Bounded(2)
    assert [label(each) for each in ("b", "c", "a", "b", None)] == ["b", "c", "other", "b", "other"]
    assert Bounded(1)(None) == ""


def test_the_disk(sample, tmp_path):
    samples = looked(sample)
    usage = shutil.disk_usage(tmp_path)
    assert samples.value("pipeline_disk_size_bytes") == usage.total
    assert 0 < (samples.value("pipeline_disk_free_bytes") or 0) < usage.total


@pytest.mark.parametrize("damage", ["log", "data"])
def test_a_damaged_table_is_counted_and_the_rest_goes_on(sample, damage, caplog):
    table = folder_of(sample) / "raw_market_data_1h"
    two = pa.concat_tables([bars(start=NOW, count=3), bars(start=NOW, count=2, provider="oanda")])
    sample.append("raw_market_data_1h", two, "r", synthetic=True)
    whole = records(folder_of(sample))
    if damage == "log":
        newest = max((table / "_delta_log").glob("*.json"))
        newest.write_text("{not json", encoding="utf-8")
    else:
        newest = max(table.rglob("*.parquet"), key=lambda each: each.stat().st_mtime_ns)
        os.truncate(newest, 10)
    exporter = Exporter(sample, clock=lambda: NOW)
    with caplog.at_level(logging.WARNING):
        assert not exporter.look()
        exporter.look()
    samples = shown(exporter)
    part = "tables" if damage == "log" else "records"
    assert samples.value("pipeline_exporter_errors_total", part=part) == 2
    told = [each for each in caplog.messages if "raw_market_data_1h" in each]
    assert len(told) == 1, "once, not at every look"
    assert counted(samples) == {key: count for key, count in whole.items() if key[1] != "1h"}
    assert ("raw_market_data_1h" in samples.by("pipeline_delta_table_rows", "table")) == (damage == "data")


def test_a_lake_that_is_not_there_yet_is_waited_for(tmp_path, sample_folder):
    settings = make_settings(tmp_path)
    exporter = Exporter(DeltaLakeManager(settings.delta_lake.storage_path, settings), clock=lambda: NOW)
    assert exporter.look()
    assert RECORDS not in shown(exporter).names()
    shutil.copytree(sample_folder / "sample", tmp_path / "lake")
    assert exporter.look()
    assert counted(shown(exporter)) == records(tmp_path / "lake")


def test_a_lake_in_s3(tmp_path, s3_lake_path):
    manager = DeltaLakeManager(s3_lake_path, make_settings(tmp_path, {"storage": {"engine": "embedded"}}))
    exporter = Exporter(manager, clock=lambda: NOW)
    assert exporter.look(), "nothing there yet"
    two = pa.concat_tables([bars(count=3, assets=("BTCUSD",)), bars(count=2, assets=("BTCUSD",), provider="oanda")])
    manager.append("raw_market_data_1h", two, "r")
    assert exporter.look()
    assert counted(shown(exporter)) == {("BTCUSD", "1h", "coinbase"): 3, ("BTCUSD", "1h", "oanda"): 2}
    manager.append("raw_market_data_1h", bars(start=NOW, count=4), "r")
    assert exporter.look()
    found = shown(exporter)
    assert found.by(RECORDS, "asset_pair", "provider") == {
        ("BTCUSD", "coinbase"): 7, ("BTCUSD", "oanda"): 2, ("ETHUSD", "coinbase"): 4,
    }  # fmt: skip
    assert found.value("pipeline_disk_size_bytes") == shutil.disk_usage(tmp_path).total


def test_a_broker_that_is_down_takes_nothing_else_along(sample, tmp_path):
    streams = folder_of(sample) / "_streams"
    streams.mkdir()
    status = {
        "topic": "ticks", "batch_id": 1, "run_id": "r", "finished_at": NOW.isoformat(), "seconds": 1.0, "rows": 1,
        "landed": 1, "refused": 0, "late": 0, "bars": 0, "watermark": None, "positions": {"0": 1}, "ends": {"0": 1},
        "lost": [], "state": "running", "error": None, "unhealed": [],
    }  # fmt: skip
    record = {"status": status, "rows_per_second": 0.0, "batch_seconds": [1.0], "rows": 1, "refused": 0}
    (streams / "ticks.json").write_text(json.dumps(record), encoding="utf-8")
    settings = make_settings(tmp_path, {"streaming": {"bootstrap_servers": "127.0.0.1:9"}})
    exporter = Exporter(DeltaLakeManager(settings.delta_lake.storage_path, settings), clock=lambda: NOW)
    assert not exporter.look()
    samples = shown(exporter)
    assert samples.value("pipeline_exporter_errors_total", part="streams") == 1
    assert samples.value("pipeline_stream_state", topic="ticks", state="running") == 1
    assert samples.value("pipeline_stream_last_batch_timestamp_seconds", topic="ticks") == NOW.timestamp()
    assert counted(samples) == records(folder_of(sample))


def test_it_looks_again_and_again_until_stopped(sample):
    exporter, stop = Exporter(sample), threading.Event()
    thread = threading.Thread(target=exporter.run, args=(stop, 0.05))
    thread.start()
    instants: set[float] = set()
    waited = threading.Event()
    for _ in range(400):
        instants.add(shown(exporter).value("pipeline_exporter_last_look_timestamp_seconds") or 0)
        if len(instants - {0}) >= 3:
            break
        waited.wait(0.05)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert len(instants - {0}) >= 3
