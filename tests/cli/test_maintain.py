"""Maintenance from a terminal, and what `--engine` starts: a JVM or none."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import duckdb
import psutil
import pytest
from click.testing import Result

from tests.cli.shell import run, shell, spawn

H1, D1 = "raw_market_data_1h", "raw_market_data_1d"
COVERAGE = "ingest_coverage"
CHECKS = "quality_results"
NO_JAVA = {"JAVA_HOME": "/nowhere"}


def lakehouse(folder: Path, *arguments: str) -> Result:
    return run(folder, *arguments, LAKEHOUSE__STORAGE__ENGINE="embedded")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sample lake of five days in five commits: a partition of 1h and one of 1d bars with five files each."""
    for day in range(1, 6):
        made = lakehouse(
            tmp_path, "backfill", "--provider", "sample", "--assets", "BTCUSD", "--start", f"2025-12-0{day}",
            "--end", f"2025-12-0{day + 1}", "--timeframes", "1h,1d", "--quiet",
        )  # fmt: skip
        assert made.exit_code == 0, made.output
    return tmp_path


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Return every file of the lake but its locks, with size and time of writing."""
    files = (path for path in (folder / "sample").rglob("*") if path.is_file() and ".locks" not in path.parts)
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def rows(folder: Path, table: str) -> list[tuple[object, ...]]:
    """Return a table's rows as DuckDB reads them, from the files that delta-rs says are live."""
    from deltalake import DeltaTable

    files = DeltaTable(str(folder / "sample" / table)).file_uris()
    sql = "SELECT asset_pair, timestamp, open, high, low, close, volume, ingested_at FROM read_parquet(?) ORDER BY ALL"
    return duckdb.execute(sql, [files]).fetchall()


def live_files(folder: Path, table: str) -> int:
    from deltalake import DeltaTable

    return len(DeltaTable(str(folder / "sample" / table)).file_uris())


def test_a_dry_run_changes_nothing_and_says_what_a_run_does(folder):
    before = contents(folder)
    planned = lakehouse(folder, "maintain", "--sample", "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert contents(folder) == before
    assert "Dry run: nothing is changed" in planned.stdout
    assert "To do: compact 4 partitions, vacuum 0 files (0 B), remove 0 log files" in planned.stdout


def test_a_run_compacts_and_a_second_one_is_idle(folder):
    known = {table: rows(folder, table) for table in (H1, D1)}
    assert {table: live_files(folder, table) for table in (H1, D1)} == {H1: 5, D1: 5}
    done = lakehouse(folder, "maintain", "--sample")
    assert done.exit_code == 0, done.output
    assert "Done: 4 partitions compacted, 0 files (0 B) vacuumed" in done.stdout
    line = next(line for line in done.stdout.splitlines() if line.startswith(H1))
    assert "5 → 1" in line
    assert [live_files(folder, table) for table in (H1, D1, COVERAGE, CHECKS)] == [1, 1, 1, 1]
    assert {table: rows(folder, table) for table in (H1, D1)} == known
    before = contents(folder)
    again = lakehouse(folder, "maintain", "--sample")
    assert again.exit_code == 0
    assert "Nothing to do in 4 tables" in again.stdout
    assert contents(folder) == before


def test_as_json_it_is_one_document(folder):
    planned = json.loads(lakehouse(folder, "maintain", "--sample", "--dry-run", "--json").stdout)
    assert (planned["dry_run"], planned["synthetic"]) == (True, True)
    done = json.loads(lakehouse(folder, "maintain", "--sample", "--json").stdout)
    assert done["dry_run"] is False
    found = {each["table"]: each for each in done["tables"]}
    assert list(found) == [COVERAGE, CHECKS, D1, H1]
    assert found[H1]["before"]["files"] == found[H1]["before"]["most_in_partition"] == 5
    assert (found[H1]["after"]["files"], found[H1]["in_need"], found[H1]["log_files"]) == (1, 1, 0)


def test_only_named_tables_are_maintained(folder):
    done = lakehouse(folder, "maintain", H1, "--sample")
    assert done.exit_code == 0, done.output
    assert "Done: 1 partition compacted" in done.stdout
    assert {table: live_files(folder, table) for table in (H1, D1)} == {H1: 1, D1: 5}


def test_what_is_not_there_is_explained(folder, tmp_path_factory):
    before = contents(folder)
    unknown = lakehouse(folder, "maintain", H1, "raw_market_data_2h", "--sample")
    assert unknown.exit_code == 2
    assert "no table raw_market_data_2h" in unknown.output
    assert "did you mean raw_market_data_1h" in unknown.output
    assert contents(folder) == before
    empty = lakehouse(tmp_path_factory.mktemp("empty"), "maintain")
    assert empty.exit_code == 1
    assert "lakehouse backfill" in empty.output


def test_the_table_fits_120_columns(folder):
    from deltalake import DeltaTable

    assert DeltaTable(str(folder / "sample" / H1)).count() == 120
    shown = lakehouse(folder, "maintain", "--sample")
    assert max(map(len, shown.stdout.splitlines()[1:])) <= 120


def javas(process: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in process.children(recursive=True):
        try:
            if "java" in child.name():
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.parametrize("command", ["backfill", "load", "maintain"])
def test_the_embedded_engine_starts_no_java(tmp_path: Path, command: str):
    path = tmp_path / "btc.csv"
    path.write_text("timestamp,open,high,low,close,volume\n2025-12-07T00:00:00Z,100,101,99,100,5\n")
    fetch = ["backfill", "--provider", "sample", "--assets", "BTCUSD", "--days", "7", "--engine", "embedded"]
    if command == "maintain":
        assert run(tmp_path, *fetch, "--quiet").exit_code == 0
    arguments = {
        "backfill": fetch,
        "load": ["load", str(path), "--asset", "BTCUSD", "--timeframe", "1h", "--engine", "embedded"],
        "maintain": ["maintain", "--sample", "--engine", "embedded"],
    }[command]
    with spawn(tmp_path, *arguments, **NO_JAVA) as started:
        watched = psutil.Process(started.pid)
        deadline = time.monotonic() + 120
        while started.poll() is None and time.monotonic() < deadline:
            assert javas(watched) == []
            time.sleep(0.01)
        out, err = started.communicate(timeout=10)
    assert started.returncode == 0, out + err


def test_the_coverage_log_is_compacted_without_java_by_either_engine(tmp_path: Path):
    for day in range(1, 6):
        lakehouse(
            tmp_path, "backfill", "--provider", "sample", "--assets", "BTCUSD", "--start", f"2025-12-0{day}",
            "--end", f"2025-12-0{day + 1}", "--timeframes", "15m", "--quiet",
        )  # fmt: skip
    sql = "select * from ingest_coverage order by recorded_at, start"
    known = lakehouse(tmp_path, "query", sql, "--format", "json").stdout
    done = run(tmp_path, "maintain", "--sample", "--engine", "spark", **NO_JAVA)
    assert done.exit_code == 0, done.output
    assert "Done: 2 partitions compacted" in done.stdout
    assert live_files(tmp_path, COVERAGE) == 1
    assert lakehouse(tmp_path, "query", sql, "--format", "json").stdout == known


@pytest.mark.parametrize("command", ["backfill", "load", "maintain"])
def test_an_unknown_engine_is_refused(tmp_path: Path, command: str):
    arguments = {
        "backfill": ["--provider", "sample", "--assets", "BTCUSD"],
        "load": [sys.executable, "--asset", "BTCUSD", "--timeframe", "1h"],
        "maintain": [],
    }[command]
    refused = run(tmp_path, command, *arguments, "--engine", "embeded")
    assert refused.exit_code == 2
    assert "'embeded' is not one of 'spark', 'embedded'" in refused.output
    assert list(tmp_path.iterdir()) == []


def test_without_java_the_default_engine_says_what_else_there_is(tmp_path: Path):
    # In a process of its own: this one may have a session already.
    code, told, _ = shell(tmp_path, "backfill", "--provider", "sample", "--assets", "BTCUSD", "--days", "1", **NO_JAVA)
    assert code == 1
    assert "--engine embedded" in told
