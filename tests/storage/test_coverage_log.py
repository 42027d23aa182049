"""The coverage log: no JVM, every entry kept whoever writes and compacts at the same time."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, replace
from datetime import timedelta

import pyarrow as pa
import pytest
from bars import DAY0
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from pipelines.batch.coverage import CoverageMap
from pipelines.contracts import contract_for
from pipelines.errors import MixedOriginError
from pipelines.intervals import Interval, IntervalSet
from pipelines.storage import CoverageEntry, DeltaLakeManager, coverage, log_table
from pipelines.storage.recovery import retraction
from pipelines.storage.series_coverage import coverage_of
from pipelines.timeframes import Timeframe, utc_now


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
    monkeypatch.setattr(log_table, "COMPACT_ABOVE_FILES", 5)
    for number in range(12):
        lake.coverage.record([entry(number)], "r")
    assert len(DeltaTable(f"{lake.storage_path}/ingest_coverage").file_uris()) <= 6
    assert lake.coverage.read()["start"].to_pylist() == [DAY0 + timedelta(hours=n) for n in range(12)]


def test_processes_record_and_compact_at_once(lake):
    """Four processes x 25 records, compacting all the time: 100 entries."""
    code = (
        "import sys; sys.path.insert(0, {here!r}); from test_coverage_log import entry\n"
        "from pipelines.storage import DeltaLakeManager, log_table; log_table.COMPACT_ABOVE_FILES = 4\n"
        "lake = DeltaLakeManager({lake!r})\n"
        "for n in range(25): lake.coverage.record([entry(n, sys.argv[1])], 'r')"
    ).format(here=__file__.rsplit("/", 1)[0], lake=lake.storage_path)
    running = [subprocess.Popen([sys.executable, "-c", code, f"P{number}"]) for number in range(4)]
    assert [process.wait(timeout=120) for process in running] == [0] * 4
    rows = lake.coverage.read()
    assert rows.num_rows == 100
    assert rows.group_by(["subject", "start"]).aggregate([]).num_rows == 100


# ---- taking back

Spans = set[tuple[int, int, str]]


def standing(lake: DeltaLakeManager, subject: str = "BTCUSD", provider: str = "coinbase") -> Spans:
    """Return, as hours, what stands of a subject: every hour the log ever spoke of, replayed one entry at a time."""
    hours: dict[int, str] = {}
    rows = lake.coverage.read().to_pylist()
    for row in sorted(rows, key=lambda row: row["recorded_at"]):
        if (row["subject"], row["provider"]) != (subject, provider):
            continue
        first, end = ((row[name] - DAY0) // timedelta(hours=1) for name in ("start", "end"))
        for number in range(first, end):
            if row["status"] == "retracted":
                hours.pop(number, None)
            elif hours.get(number) != "covered":
                hours[number] = row["status"]
    return {(number, number + 1, status) for number, status in hours.items()}


def claimed(lake: DeltaLakeManager, subject: str = "BTCUSD", provider: str = "coinbase") -> Spans:
    """Return the same as the code under test has it."""
    known, series = CoverageMap.from_table(lake.coverage.read()), ("raw_market_data", subject, "1h")
    parts = [(part, "covered") for part in known.covered(series, provider)]
    parts += [(part, "rejected") for part in known.rejected(series, provider)]
    found: Spans = set()
    for part, status in parts:
        first, end = ((when - DAY0) // timedelta(hours=1) for when in (part.start, part.end))
        found |= {(number, number + 1, status) for number in range(first, end)}
    return found


def hours(*numbers: int, status: str = "covered") -> Spans:
    return {(number, number + 1, status) for number in numbers}


def test_what_was_recorded_after_an_instant_is_taken_back_and_the_rest_stays(lake):
    lake.coverage.record([entry(n) for n in (0, 1, 2)] + [entry(3, "ETHUSD"), entry(4, timeframe=None)], "r")
    lake.coverage.record([replace(entry(7), status="rejected"), replace(entry(8), provider="yfinance")], "r")
    instant = utc_now()
    lake.coverage.record([entry(n) for n in (1, 5, 9)] + [replace(entry(7), rows=2)], "r")
    lake.coverage.record([replace(entry(6), timeframe="4h")], "r")
    before = lake.coverage.read().num_rows
    planned = lake.coverage.retractions_after("raw_market_data", Timeframe.H1, instant)
    assert lake.coverage.read().num_rows == before
    done = lake.coverage.retract_after("raw_market_data", Timeframe.H1, instant, "undo")
    assert done == planned
    assert [list(each.lost) for each in done] == [[Interval(entry(n).start, entry(n).end) for n in (5, 9)]]
    assert claimed(lake) == standing(lake) == hours(0, 1, 2) | hours(7, status="rejected")
    assert claimed(lake, "ETHUSD") == hours(3)
    assert claimed(lake, provider="yfinance") == hours(8)
    other = CoverageMap.from_table(lake.coverage.read())
    assert other.done(("raw_market_data", "BTCUSD", "4h")).length == timedelta(hours=1)
    assert other.done(("raw_market_data", "BTCUSD", None)).length == timedelta(hours=1)
    assert lake.coverage.retract_after("raw_market_data", Timeframe.H1, utc_now() + timedelta(hours=1), "undo") == []
    lake.coverage.record([entry(9)], "again")
    assert claimed(lake) == standing(lake) == hours(0, 1, 2, 9) | hours(7, status="rejected")


def test_a_lost_range_is_taken_back_from_every_provider(lake):
    lake.coverage.record([entry(n, subject) for n in range(6) for subject in ("BTCUSD", "ETHUSD")], "r")
    lake.coverage.record([replace(entry(n), provider="yfinance") for n in range(3)], "r")
    gone = Interval(entry(2).start, entry(4).start)
    lake.coverage.retract("raw_market_data", Timeframe.H1, {"BTCUSD": IntervalSet([gone])}, "fsck")
    assert claimed(lake) == standing(lake) == hours(0, 1, 4, 5)
    assert claimed(lake, provider="yfinance") == hours(0, 1)
    assert claimed(lake, "ETHUSD") == hours(*range(6))
    lake.coverage.retract("raw_market_data", Timeframe.H1, None, "fsck")
    assert claimed(lake) == claimed(lake, "ETHUSD") == claimed(lake, provider="yfinance") == set()
    assert coverage_of(lake.coverage.read()) == []
    assert lake.coverage.retract("raw_market_data", Timeframe.H1, None, "fsck") == []


def test_a_clock_that_went_back_does_not_spare_what_is_taken_back(lake, monkeypatch):
    lake.coverage.record([entry(0)], "r")
    monkeypatch.setattr(coverage, "utc_now", lambda: utc_now() - timedelta(days=1))
    lake.coverage.retract("raw_market_data", Timeframe.H1, None, "fsck")
    assert claimed(lake) == set()


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(1, 5), st.sampled_from(["covered", "rejected", "retracted"])),
        max_size=25,
    )
)
def test_replay_is_what_replaying_hour_by_hour_gives(steps):
    """Entries against a dictionary of hours, in which a retraction removes and cover outdoes refusal."""
    known: dict[int, str] = {}
    rows = []
    for at, (start, length, status) in enumerate(steps):
        row = asdict(replace(entry(start), end=entry(start + length).start, status=status))
        rows.append(row | {"run_id": "r", "recorded_at": DAY0 + timedelta(seconds=at)})
        for number in range(start, start + length):
            if status == "retracted":
                known.pop(number, None)
            elif known.get(number) != "covered":
                known[number] = status
    log = pa.Table.from_pylist(rows, schema=contract_for("ingest_coverage").arrow_schema)
    found, series = CoverageMap.from_table(log), ("raw_market_data", "BTCUSD", "1h")
    opens = [entry(number).start for number in range(16)]
    assert {n for n, when in enumerate(opens) if when in found.covered(series)} == {
        n for n, status in known.items() if status == "covered"
    }
    assert {n for n, when in enumerate(opens) if when in found.done(series)} == set(known)


def test_what_another_takes_back_meanwhile_is_not_claimed_again(lake, monkeypatch):
    """Two at once without turns, as in an object store: the second works it out again from the first one's log."""
    lake.coverage.record([entry(n) for n in range(4)], "r")
    instant = utc_now()
    lake.coverage.record([entry(n) for n in range(6)], "r")
    other, once = DeltaLakeManager(lake.storage_path, lake.settings), []

    def meanwhile(*arguments: object, **options: object) -> list[retraction.Retraction]:
        found = since(*arguments, **options)
        if not once:
            once.append(True)
            gone = {"BTCUSD": IntervalSet([Interval(entry(1).start, entry(2).end)])}
            other.coverage.retract("raw_market_data", Timeframe.H1, gone, "other")
        return found

    since = retraction.since
    monkeypatch.setattr(coverage, "turn", lambda *_: nullcontext())
    monkeypatch.setattr(retraction, "since", meanwhile)
    lake.coverage.retract_after("raw_market_data", Timeframe.H1, instant, "undo")
    assert once
    taken_back = [row for row in lake.coverage.read().to_pylist() if row["status"] == "retracted"]
    assert [row["run_id"] for row in taken_back] == ["other", "undo"]
    assert claimed(lake) == standing(lake)
    assert claimed(lake) == hours(0, 3)
