"""The coverage log: no JVM, every entry kept whoever writes and compacts at the same time."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from bars import DAY0
from deltalake import DeltaTable

from pipelines.errors import MixedOriginError
from pipelines.storage import CoverageEntry, DeltaLakeManager, coverage


def entry(number: int, subject: str = "BTCUSD", timeframe: str | None = "1h") -> CoverageEntry:
    start = DAY0 + timedelta(hours=number)
    return CoverageEntry(
        "raw_market_data", subject, timeframe, "coinbase", start, start + timedelta(hours=1), "covered", 1
    )


def test_what_is_recorded_is_read(lake):
    assert lake.coverage.read().num_rows == 0
    assert lake.coverage.record([], "r") is None
    lake.coverage.record([entry(0), entry(1, "ETHUSD"), entry(2, "GDP", None)], "r")
    assert lake.coverage.read().num_rows == 3
    found = lake.coverage.read(dataset="raw_market_data", subject="ETHUSD", timeframe="1h").to_pylist()
    assert len(found) == 1
    assert found[0]["start"] == DAY0 + timedelta(hours=1)
    assert found[0]["run_id"] == "r"
    assert lake.coverage.read(subject="x' OR '1'='1").num_rows == 0


def test_synthetic_and_real_coverage_do_not_mix(lake):
    lake.coverage.record([entry(0)], "r", synthetic=True)
    with pytest.raises(MixedOriginError, match=r"delta_lake\.storage_path"):
        lake.coverage.record([entry(0)], "r")


def test_two_creators_of_different_origin_have_one_winner(tmp_path, settings):
    for number in range(5):
        lakes = [DeltaLakeManager(tmp_path / str(number), settings) for _ in range(4)]

        def claim(index: int, lakes: list[DeltaLakeManager] = lakes) -> bool:
            try:
                lakes[index].coverage.record([entry(0)], "r", synthetic=index % 2 == 0)
            except MixedOriginError:
                return False
            return True

        with ThreadPoolExecutor(4) as pool:
            won = list(pool.map(claim, range(4)))
        assert won in ([True, False, True, False], [False, True, False, True])


def test_compaction_keeps_every_entry(lake, monkeypatch):
    monkeypatch.setattr(coverage, "COMPACT_ABOVE_FILES", 5)
    for number in range(12):
        lake.coverage.record([entry(number)], "r")
    assert len(DeltaTable(f"{lake.storage_path}/ingest_coverage").file_uris()) <= 6
    assert lake.coverage.read()["start"].to_pylist() == [DAY0 + timedelta(hours=n) for n in range(12)]


def test_processes_record_and_compact_at_once(lake):
    """Four processes x 25 records, compacting all the time: 100 entries."""
    code = (
        "import sys; sys.path.insert(0, {here!r}); from test_coverage_log import entry\n"
        "from pipelines.storage import DeltaLakeManager, coverage; coverage.COMPACT_ABOVE_FILES = 4\n"
        "lake = DeltaLakeManager({lake!r})\n"
        "for n in range(25): lake.coverage.record([entry(n, sys.argv[1])], 'r')"
    ).format(here=__file__.rsplit("/", 1)[0], lake=lake.storage_path)
    running = [subprocess.Popen([sys.executable, "-c", code, f"P{number}"]) for number in range(4)]
    assert [process.wait(timeout=120) for process in running] == [0] * 4
    rows = lake.coverage.read()
    assert rows.num_rows == 100
    assert rows.group_by(["subject", "start"]).aggregate([]).num_rows == 100
