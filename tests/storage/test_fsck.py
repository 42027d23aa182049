"""Checking and mending: every planted fault is found, none is where nothing was planted, and repairs lose nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from bars import DAY0
from damage import commit_file, cut, cut_between_lines, data_file, folder, lose_table, newest
from deltalake import DeltaTable, write_deltalake

from pipelines.batch.engine import Backfill
from pipelines.batch.jobs import bar_job
from pipelines.batch.rebuild import Rebuild
from pipelines.batch.results import BackfillResult
from pipelines.errors import SnapshotError, TableNotFoundError
from pipelines.storage import DeltaLakeManager
from pipelines.storage.recovery.findings import Code
from pipelines.storage.recovery.log_check import commit_of
from pipelines.timeframes import Timeframe, utc_now
from tests.batch.exchange import BAR, Exchange, exchange_settings, stored, truth
from tests.cli.shell import run

H1, H4 = "raw_market_data_1h", "raw_market_data_4h"
DAYS = ("2025-12-07", "2025-12-08", "2025-12-09", "2025-12-10")


@pytest.fixture
def lake(tmp_path: Path, exchange: Exchange) -> DeltaLakeManager:
    """A lake of three days, a commit each, in two tables."""
    config = exchange_settings(tmp_path, exchange, {"storage": {"engine": "embedded"}})
    found = DeltaLakeManager(config.delta_lake.storage_path, config)
    for start, end in pairwise(DAYS):
        backfill(found, start, end)
    return found


def backfill(lake: DeltaLakeManager, start: str = DAYS[0], end: str = DAYS[-1]) -> BackfillResult:
    jobs = [
        bar_job(asset, frame, start, end, now=utc_now()) for frame in ("1h", "4h") for asset in ("BTCUSD", "ETHUSD")
    ]
    result = asyncio.run(Backfill(lake, lake.settings).run(jobs))
    assert result.ok, result.as_dict()
    return result


def assert_whole(exchange: Exchange, lake: DeltaLakeManager) -> None:
    """Assert that the lake is what the exchange has, as DuckDB reads it, every bar once."""
    for asset in ("BTCUSD", "ETHUSD"):
        for frame in (Timeframe.H1, Timeframe.H4):
            expected = truth(exchange, f"{asset[:3]}-{asset[3:]}", frame, DAYS[0], DAYS[-1])
            found = stored(lake.storage_path, f"raw_market_data_{frame}", asset)
            pd.testing.assert_frame_equal(
                found[BAR], expected[BAR], check_freq=False, check_index_type=False, rtol=1e-12, check_names=False
            )


def codes(lake: DeltaLakeManager, table: str = H1, *, deep: bool = False) -> list[str]:
    return [finding.code.value for finding in lake.fsck(table, deep=deep).findings]


def test_a_sound_lake_has_no_findings(lake):
    assert lake.known_tables() == ["ingest_coverage", "quality_results", H1, H4]
    for table in lake.known_tables():
        assert lake.fsck(table, deep=True).findings == ()
        assert lake.repair(table, deep=True).done == []
    assert DeltaTable(str(folder(lake.storage_path, H1))).version() == newest(lake.storage_path, H1)
    with pytest.raises(TableNotFoundError):
        lake.fsck("raw_market_data_1d")


def test_a_lost_data_file_is_forgotten_and_fetched_again(lake, exchange):
    path = data_file(lake.storage_path, H1, "ETHUSD")
    rows = DeltaTable(str(folder(lake.storage_path, H1))).count()
    path.unlink()
    report = lake.fsck(H1)
    assert [finding.code for finding in report.findings] == [Code.MISSING_FILE]
    assert "24 rows of ETHUSD" in report.findings[0].what
    assert report.findings[0].remedy == f"lakehouse fsck {H1} --repair"
    done = lake.repair(H1)
    assert done.left.ok
    assert {each.claim[0][1] for each in done.retracted} == {"ETHUSD"}
    assert DeltaTable(str(folder(lake.storage_path, H1))).count() == rows - 24
    exchange.log.clear()
    again = backfill(lake)
    assert again.total("new") == 24
    assert {product for product, *_ in exchange.asked()} == {"ETH-USD"}
    assert_whole(exchange, lake)


@pytest.mark.parametrize("harm", ["cut", "garbled"])
def test_a_damaged_data_file_is_set_aside_and_fetched_again(lake, exchange, harm):
    path = data_file(lake.storage_path, H1)
    if harm == "cut":
        cut(path)
        assert codes(lake) == ["wrong-size"]
    else:
        size = path.stat().st_size
        path.write_bytes(b"x" * size)
        assert codes(lake) == []
        assert codes(lake, deep=True) == ["unreadable-file"]
    done = lake.repair(H1, deep=True)
    assert [finding.code for finding in done.left.findings] == [Code.TEMPORARY_FILES]
    assert path.with_name(path.name + ".corrupt").exists()
    assert backfill(lake).total("new") == 24
    assert_whole(exchange, lake)


def test_a_file_with_other_rows_than_the_log_says_is_noticed(lake, exchange):
    mine, other = (data_file(lake.storage_path, table) for table in (H1, H4))
    content = other.read_bytes()
    mine.write_bytes(content)
    version = newest(lake.storage_path, H1)
    # The log agrees on the size, so that only the rows differ.
    for number in range(version + 1):
        log = commit_file(lake.storage_path, H1, number)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        for line in lines:
            if line.get("add", {}).get("path", "").endswith(mine.name):
                line["add"]["size"] = len(content)
        log.write_text("\n".join(map(json.dumps, lines)))
    assert codes(lake) == []
    assert codes(lake, deep=True) == ["wrong-rows"]
    assert lake.repair(H1, deep=True).left.ok
    backfill(lake)
    assert_whole(exchange, lake)


@pytest.mark.parametrize(
    "harm", [cut, cut_between_lines, lambda path: path.write_bytes(b"")], ids=["cut", "between lines", "emptied"]
)
def test_a_cut_off_newest_commit_never_was(lake, exchange, harm: Callable[[Path], None]):
    last = commit_file(lake.storage_path, H1, newest(lake.storage_path, H1))
    harm(last)
    assert codes(lake)[0] == "truncated-commit"
    done = lake.repair(H1)
    assert done.left.ok
    assert not last.exists()
    assert last.with_name(last.name + ".corrupt").exists()
    again = backfill(lake)
    assert again.total("new") == 48
    assert_whole(exchange, lake)
    assert codes(lake)[0] == "orphans"


def test_a_snapshot_of_a_commit_that_never_was_is_not_taken_for_one_of_the_next(lake, exchange):
    lake.snapshots.create("before", "a note")
    pinned = lake.snapshots.get("before").tables
    backfill(lake, "2025-12-10", "2025-12-11")
    lake.snapshots.create("after")
    cut_between_lines(commit_file(lake.storage_path, H1, lake.snapshots.get("after").version_of(H1)))
    done = lake.repair(H1)
    assert done.left.ok
    assert any("out of the snapshot after" in line for line in done.done)
    assert lake.snapshots.get("before").tables == pinned
    assert set(lake.snapshots.get("after").tables) == {"ingest_coverage", "quality_results", H4}
    backfill(lake, "2025-12-11", "2025-12-12")
    with pytest.raises(SnapshotError, match=f"after has no table {H1}; it has ingest_coverage, quality_results, {H4}"):
        lake.read_table(H1, snapshot="after")
    assert len(lake.read_table(H1, snapshot="before")) == 2 * 3 * 24
    assert len(lake.read_table(H4, snapshot="after")) == 2 * 4 * 6


def test_a_snapshot_does_not_miss_a_table_that_never_was(lake):
    for number in range(1, newest(lake.storage_path, H1) + 1):
        commit_file(lake.storage_path, H1, number).unlink()
    lake.snapshots.create("only")
    cut(commit_file(lake.storage_path, H1, 0))
    assert lake.repair(H1).left.ok
    assert set(lake.snapshots.get("only").tables) == {"ingest_coverage", "quality_results", H4}


def test_a_table_whose_only_commit_is_cut_off_never_was(lake, exchange):
    for number in range(1, newest(lake.storage_path, H1) + 1):
        commit_file(lake.storage_path, H1, number).unlink()
    cut(commit_file(lake.storage_path, H1, 0))
    done = lake.repair(H1)
    assert done.left.ok
    assert done.done
    assert backfill(lake).total("new") == 2 * 3 * 24
    assert_whole(exchange, lake)


def test_a_fault_in_the_middle_is_harmless_only_behind_a_checkpoint(lake):
    middle = commit_file(lake.storage_path, H1, newest(lake.storage_path, H1) - 1)
    kept = middle.read_bytes()
    cut(middle)
    report = lake.fsck(H1)
    assert [(f.code, f.severity, f.remedy) for f in report.findings] == [
        (Code.BROKEN_COMMIT, "error", f"lakehouse rebuild {H1}")
    ]
    assert report.version is None
    assert lake.repair(H1).done == []
    middle.unlink()
    assert codes(lake) == ["log-gap"]
    middle.write_bytes(kept)
    assert codes(lake) == []
    DeltaTable(str(folder(lake.storage_path, H1))).create_checkpoint()
    cut(middle)
    found = lake.fsck(H1)
    assert [(f.code, f.severity) for f in found.findings] == [(Code.BROKEN_COMMIT, "info")]
    assert found.ok
    middle.unlink()
    assert codes(lake) == ["log-gap"]
    assert lake.fsck(H1).ok


@pytest.mark.parametrize("content", [b"{garbage", b"", b'{"version": 99, "size": 4}'])
def test_a_bad_last_checkpoint_is_replaced(lake, exchange, content: bytes):
    hint = folder(lake.storage_path, H1) / "_delta_log" / "_last_checkpoint"
    hint.write_bytes(content)
    assert codes(lake) == ["bad-last-checkpoint"]
    assert lake.repair(H1).left.findings == ()
    assert json.loads(hint.read_text())["version"] == newest(lake.storage_path, H1)
    assert_whole(exchange, lake)


def test_a_bad_checkpoint_is_set_aside_where_the_commits_are_there(lake, exchange):
    log = folder(lake.storage_path, H1) / "_delta_log"
    DeltaTable(str(log.parent)).create_checkpoint()
    (checkpoint,) = log.glob("*.checkpoint.parquet")
    cut(checkpoint)
    assert codes(lake) == ["bad-checkpoint"]
    assert lake.repair(H1).left.ok
    assert_whole(exchange, lake)
    (checkpoint,) = log.glob("*.checkpoint.parquet")
    cut(checkpoint)
    commit_file(lake.storage_path, H1, 0).unlink()
    found = lake.fsck(H1)
    assert {finding.remedy for finding in found.findings} == {f"lakehouse rebuild {H1}"}
    assert lake.repair(H1).done == []


def test_a_missing_checkpoint_is_written(embedded_lake):
    lake = embedded_lake
    lake.ensure_table(H1)
    table = DeltaTable(str(folder(lake.storage_path, H1)))
    for number in range(110):
        table.alter.set_table_properties({"lakehouse.number": str(number)}, raise_if_not_exists=False)
    for made in (folder(lake.storage_path, H1) / "_delta_log").glob("*checkpoint*"):
        made.unlink()
    assert codes(lake) == ["no-checkpoint"]
    assert lake.repair(H1).left.findings == ()


def test_a_lost_table_is_left_to_a_rebuild(lake):
    lose_table(lake.storage_path, H4)
    assert lake.known_tables() == ["ingest_coverage", "quality_results", H1, H4]
    (finding,) = lake.fsck(H4).findings
    assert (finding.code, finding.remedy) == (Code.LOST_TABLE, f"lakehouse rebuild {H4}")
    assert lake.repair(H4).done == []
    assert lake.fsck(H1).ok


def test_a_table_that_only_a_snapshot_knows_is_missed(lake):
    lake.snapshots.create("before")
    lake.coverage.retract("raw_market_data", Timeframe.H4, None, "test")
    lose_table(lake.storage_path, H4)
    (finding,) = lake.fsck(H4).findings
    assert "snapshot before" in finding.what


def test_a_lost_coverage_log_costs_a_refetch_and_no_bar(lake, exchange):
    lose_table(lake.storage_path, "ingest_coverage")
    assert codes(lake, "ingest_coverage") == ["lost-table"]
    assert lake.repair("ingest_coverage").left.ok
    assert lake.coverage.synthetic is False
    assert backfill(lake).total("new") == 0
    assert_whole(exchange, lake)


def test_a_lost_file_of_the_coverage_log_that_took_something_back_takes_all_back(lake, exchange):
    log = folder(lake.storage_path, "ingest_coverage")
    first = Path(DeltaTable(str(log)).file_uris()[0])
    first.unlink()
    done = lake.repair("ingest_coverage")
    assert done.left.ok
    assert not any("all coverage" in line for line in done.done)
    backfill(lake)
    before = set(DeltaTable(str(log)).file_uris())
    lake.restore_table(H1, newest(lake.storage_path, H1) - 1)
    for added in set(DeltaTable(str(log)).file_uris()) - before:
        Path(added).unlink()
    assert any("all coverage" in line for line in lake.repair("ingest_coverage").done)
    backfill(lake)
    assert_whole(exchange, lake)


def test_a_table_that_no_contract_declares_is_checked_and_never_robbed(lake):
    place = str(folder(lake.storage_path, "gold_daily"))
    write_deltalake(place, pa.table({"day": [1, 2], "timestamp": pa.array([DAY0] * 2, pa.timestamp("us", "UTC"))}))
    write_deltalake(
        place, pa.table({"day": [3], "timestamp": pa.array([DAY0], pa.timestamp("us", "UTC"))}), mode="append"
    )
    assert lake.fsck("gold_daily", deep=True).findings == ()
    assert lake.restore_table("gold_daily", 0).rows_removed == 1
    Path(DeltaTable(place).file_uris()[0]).unlink()
    assert codes(lake, "gold_daily") == ["missing-file"]
    assert lake.repair("gold_daily").done == []
    commit_file(lake.storage_path, "gold_daily", 1).unlink()
    assert {finding.remedy for finding in lake.fsck("gold_daily").findings} == {""}


def test_files_of_writes_that_never_committed_are_counted(lake):
    (folder(lake.storage_path, H1) / "partition_date=2025-12-01" / "part-9.parquet").write_bytes(b"12345")
    report = lake.fsck(H1)
    assert report.ok
    assert "never committed: 1 (5 bytes)" in report.findings[0].what


def test_the_command_names_remedies_and_its_exit_code_says_whether_any_are_left(lake, tmp_path):
    at = ["--lake", lake.storage_path]
    sound = run(tmp_path, "fsck", *at)
    assert sound.exit_code == 0, sound.output
    assert "4 tables checked; nothing is wrong" in sound.stdout
    data_file(lake.storage_path, H1).unlink()
    cut(commit_file(lake.storage_path, H4, newest(lake.storage_path, H4) - 1))
    found = run(tmp_path, "fsck", *at)
    assert found.exit_code == 1
    assert f"lakehouse fsck {H1} --repair" in found.stdout
    assert f"lakehouse rebuild {H4} --lake {lake.storage_path}" in found.stdout
    read: dict[str, Any] = json.loads(run(tmp_path, "fsck", H1, "--json", *at).stdout)
    assert read["tables"][0]["findings"][0]["code"] == "missing-file"
    mended = run(tmp_path, "fsck", H1, "--repair", *at)
    assert mended.exit_code == 0, mended.output
    assert "forgot partition_date" in mended.stdout
    assert "No longer covered" in mended.stdout
    assert json.loads(run(tmp_path, "fsck", H4, "--repair", "--json", *at).stdout)["ok"] is False


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is empty"),
        (
            b'{"commitInfo":{"operation":"WRITE","operationMetrics":{"numFiles":"2"}}}\n{"add":{"path":"a"}}',
            "1 of the 2",
        ),
        (b'{"commitInfo":{"operation":"WRITE","operationMetrics":{"num_added_files":1}}}\n{"add":{"path":"a"}}', None),
        (b'{"add":{"path":"a"}}\n{"add":{"pa', "cut off"),
        (b'{"add":{"path":"a"}}\n7', "garbled"),
        (b'{"protocol":{}}', None),
    ],
)
def test_what_is_wrong_with_a_commit_file(content: bytes, fault: str | None):
    found = commit_of(content).fault
    assert (found is None) if fault is None else (found is not None and fault in found)


# ---- on S3


@pytest.fixture
def s3_lake(s3_lake_path: str, tmp_path: Path, exchange: Exchange) -> DeltaLakeManager:
    """A lake of three days in a bucket."""
    config = exchange_settings(tmp_path, exchange, {"storage": {"engine": "embedded"}})
    found = DeltaLakeManager(s3_lake_path, config)
    for start, end in pairwise(DAYS):
        backfill(found, start, end)
    return found


def bars_of(lake: DeltaLakeManager, table: str = H1) -> list[tuple[str, Any, float]]:
    """Return asset, time and close of each row, by pyarrow over the files that the log names."""
    found = DeltaTable(f"{lake.storage_path}/{table}", storage_options=lake._lake.root.options())
    rows = found.to_pyarrow_table(columns=["asset_pair", "timestamp", "close"]).to_pylist()
    return sorted((row["asset_pair"], row["timestamp"], row["close"]) for row in rows)


def first_file(lake: DeltaLakeManager) -> tuple[str, str]:
    """Return the bucket and key of a live data file."""
    uri = DeltaTable(f"{lake.storage_path}/{H1}", version=2, storage_options=lake._lake.root.options()).file_uris()[0]
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def test_a_lost_file_in_s3_is_fetched_again(s3_lake, s3_server):
    whole = bars_of(s3_lake)
    assert all(s3_lake.fsck(table, deep=True).findings == () for table in s3_lake.known_tables())
    bucket, key = first_file(s3_lake)
    s3_server.client().delete_object(Bucket=bucket, Key=key)
    assert codes(s3_lake) == ["missing-file"]
    assert s3_lake.repair(H1).left.ok
    assert len(bars_of(s3_lake)) == len(whole) - 24
    assert backfill(s3_lake).total("new") == 24
    assert bars_of(s3_lake) == whole


def test_a_cut_off_commit_and_a_damaged_file_in_s3_are_set_aside(s3_lake, s3_server):
    whole, client = bars_of(s3_lake), s3_server.client()
    bucket, key = first_file(s3_lake)
    client.put_object(Bucket=bucket, Key=key, Body=b"x")
    assert codes(s3_lake) == ["wrong-size"]
    log = f"{key.partition(H1)[0]}{H1}/_delta_log/{s3_lake.fsck(H1).version:020d}.json"
    content = client.get_object(Bucket=bucket, Key=log)["Body"].read()
    client.put_object(Bucket=bucket, Key=log, Body=content[: len(content) // 2])
    assert codes(s3_lake) == ["truncated-commit"]
    assert s3_lake.repair(H1).left.ok
    backfill(s3_lake)
    assert bars_of(s3_lake) == whole
    names = [found["Key"] for found in client.list_objects_v2(Bucket=bucket, Prefix=key.partition(H1)[0])["Contents"]]
    assert {f"{key}.corrupt", f"{log}.corrupt"} <= set(names)


def test_a_writer_to_s3_is_told_of_a_restore_and_a_snapshot_of_a_lost_commit(s3_lake, s3_server):
    version = s3_lake.fsck(H1).version
    assert s3_lake.undone_since(H1, version) is False
    assert s3_lake.undone_since(H1, version - 1) is False
    s3_lake.restore_table(H1, version - 1)
    assert s3_lake.undone_since(H1, version) is True
    s3_lake.snapshots.create("lost")
    client, (bucket, key) = s3_server.client(), first_file(s3_lake)
    log = f"{key.partition(H1)[0]}{H1}/_delta_log/{version + 1:020d}.json"
    client.put_object(Bucket=bucket, Key=log, Body=b"{")
    assert s3_lake.repair(H1).left.ok
    assert s3_lake.undone_since(H1, version + 1) is True
    assert set(s3_lake.snapshots.get("lost").tables) == {"ingest_coverage", "quality_results", H4}


def test_a_bucket_that_keeps_versions_gives_a_lost_file_back(s3_lake, s3_server):
    whole, client = bars_of(s3_lake), s3_server.client()
    bucket, key = first_file(s3_lake)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    try:
        client.put_object(Bucket=bucket, Key=key, Body=client.get_object(Bucket=bucket, Key=key)["Body"].read())
        client.delete_object(Bucket=bucket, Key=key)
        assert codes(s3_lake) == ["missing-file"]
        done = s3_lake.repair(H1)
        assert done.left.ok
        assert done.retracted == []
        assert "brought back" in done.done[0]
        assert bars_of(s3_lake) == whole
    finally:
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})


def test_a_file_that_was_overwritten_comes_back_from_the_newest_version_that_is_sound(s3_lake, s3_server):
    whole, client = bars_of(s3_lake), s3_server.client()
    bucket, key = first_file(s3_lake)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    try:
        content = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        for garbage in (content, b"x" * len(content), b"y" * len(content)):
            client.put_object(Bucket=bucket, Key=key, Body=garbage)
        assert codes(s3_lake) == []
        assert codes(s3_lake, deep=True) == ["unreadable-file"]
        done = s3_lake.repair(H1, deep=True)
        assert done.left.ok
        assert [line.split()[:2] for line in done.done] == [["brought", "back"]]
        assert done.retracted == []
        assert bars_of(s3_lake) == whole
        for version in client.list_object_versions(Bucket=bucket, Prefix=key)["Versions"]:
            client.delete_object(Bucket=bucket, Key=key, VersionId=version["VersionId"])
        client.put_object(Bucket=bucket, Key=key, Body=b"z" * len(content))
        client.put_object(Bucket=bucket, Key=key, Body=b"x" * len(content))
        lost = s3_lake.repair(H1, deep=True)
        assert lost.left.ok
        assert any(line.startswith("forgot") for line in lost.done)
        assert len(bars_of(s3_lake)) == len(whole) - 24
    finally:
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})


def test_a_table_in_s3_is_restored_and_rebuilt(s3_lake):
    whole, version = bars_of(s3_lake), s3_lake.fsck(H1).version
    assert s3_lake.restore_table(H1, version - 1).rows_removed == 48
    assert backfill(s3_lake).total("new") == 48
    assert bars_of(s3_lake) == whole
    run_ = Rebuild(s3_lake, s3_lake.settings, H1)
    assert asyncio.run(run_.run()).ok
    assert bars_of(s3_lake) == whole
    assert s3_lake.known_tables() == ["ingest_coverage", "quality_results", H1, H4]
