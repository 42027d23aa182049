"""Gaps against pandas and exchange_calendars themselves: what is missing, why, and what is only closed."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import exchange_calendars
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipelines.batch.coverage import COVERED, REJECTED
from pipelines.batch.load import FileLoad
from pipelines.config import PROJECT_ROOT, Settings
from pipelines.data_quality import presence
from pipelines.data_quality.gaps import GapKind, SeriesGaps, find_gaps
from pipelines.errors import ConfigError, UnknownAssetError
from pipelines.instruments import AssetClass, Instrument, InstrumentRegistry, load_registry
from pipelines.intervals import Interval
from pipelines.sources.base import MARKET_DATA
from pipelines.sources.files import FileSpec
from pipelines.storage import CoverageEntry, DeltaLakeManager
from pipelines.timeframes import Timeframe
from tests.conftest import make_settings
from tests.storage.bars import bars

GBPUSD = PROJECT_ROOT.parent / "shared" / "data" / "gbpusd_1m_bid_2012-02.csv"
NEW_YORK = ZoneInfo("America/New_York")
DAY0 = datetime(2025, 12, 7, tzinfo=UTC)


def hours(first: int, end: int) -> Interval:
    return Interval(DAY0 + timedelta(hours=first), DAY0 + timedelta(hours=end))


def entry(span: Interval, provider: str = "coinbase", status: str = COVERED, asset: str = "BTCUSD") -> CoverageEntry:
    return CoverageEntry(MARKET_DATA, asset, "1h", provider, span.start, span.end, status, 0)  # type: ignore[arg-type]


def land(lake: DeltaLakeManager, present: Iterable[int], provider: str = "coinbase", asset: str = "BTCUSD") -> None:
    """Land the hours of a week whose numbers are given."""
    rows = bars("1h", start=DAY0, count=168, assets=(asset,), provider=provider)
    lake.append("raw_market_data_1h", rows.take(pa.array(sorted(present), pa.int64())), "test")


def told(gaps: SeriesGaps) -> list[tuple[int, int, str, tuple[str, ...]]]:
    """Return first hour, number of bars, kind and providers of each run."""
    return [
        ((run.interval.start - DAY0) // timedelta(hours=1), run.bars, run.kind.value, run.providers)
        for run in gaps.runs
    ]


def test_each_kind_of_gap_is_told_from_the_others(embedded_lake: DeltaLakeManager) -> None:
    land(embedded_lake, set(range(48)) - {3, 4, 5, 10, 20, 21, 30, 31, 40})
    embedded_lake.coverage.record(
        [
            entry(hours(0, 20)),
            entry(hours(3, 5), "oanda"),
            entry(hours(30, 32), "coinbase", REJECTED),
            entry(hours(31, 32), "oanda"),
            entry(hours(40, 41), "oanda", REJECTED),
            entry(hours(40, 41), "yfinance", REJECTED),
        ],
        "test",
    )
    (found,) = find_gaps(embedded_lake)
    assert told(found) == [
        (3, 3, "provider has none", ("coinbase", "oanda")),
        (10, 1, "provider has none", ("coinbase",)),
        (20, 2, "not fetched", ()),
        (30, 1, "rejected", ("coinbase",)),
        (31, 1, "provider has none", ("oanda",)),
        (40, 1, "rejected", ("oanda", "yfinance")),
    ]
    assert (found.expected, found.present, found.missing, found.closed_bars, found.outside) == (48, 39, 9, 0, 0)
    assert found.by_kind == {GapKind.NOT_FETCHED: 2, GapKind.REJECTED: 2, GapKind.NO_DATA: 5}
    assert [(day.day.day, day.expected, day.present) for day in found.days] == [(7, 24, 18), (8, 24, 21)]


def test_a_retraction_turns_covered_time_into_not_fetched(embedded_lake: DeltaLakeManager) -> None:
    land(embedded_lake, set(range(10)) - {4})
    embedded_lake.coverage.record([entry(hours(0, 10))], "test")
    embedded_lake.coverage.record([entry(hours(4, 6), status="retracted")], "test")
    (found,) = find_gaps(embedded_lake)
    assert told(found) == [(4, 1, "not fetched", ())]


def test_any_providers_bar_is_there_but_one_providers_gaps_can_be_asked_for(embedded_lake: DeltaLakeManager) -> None:
    land(embedded_lake, range(5))
    land(embedded_lake, range(3, 10), "yfinance")
    embedded_lake.coverage.record([entry(hours(0, 6))], "test")
    (both,) = find_gaps(embedded_lake)
    assert (both.expected, both.missing) == (10, 0)
    (one,) = find_gaps(embedded_lake, provider="coinbase")
    assert told(one) == [(5, 1, "provider has none", ("coinbase",))]
    (other,) = find_gaps(embedded_lake, provider="yfinance", interval=hours(0, 10))
    assert told(other) == [(0, 3, "not fetched", ())]


def test_a_series_is_scanned_from_its_first_to_its_last_known_instant(embedded_lake: DeltaLakeManager) -> None:
    land(embedded_lake, range(10, 20))
    embedded_lake.coverage.record([entry(hours(4, 12)), entry(hours(25, 30))], "test")
    (found,) = find_gaps(embedded_lake)
    assert found.interval == hours(4, 30)
    assert told(found) == [
        (4, 6, "provider has none", ("coinbase",)),
        (20, 5, "not fetched", ()),
        (25, 5, "provider has none", ("coinbase",)),
    ]


def test_a_series_known_from_coverage_alone_is_a_series(embedded_lake: DeltaLakeManager) -> None:
    embedded_lake.coverage.record([entry(hours(0, 4), asset="ETHUSD")], "test")
    (found,) = find_gaps(embedded_lake, assets=["eth-usd"], timeframes=["1h"])
    assert (found.asset_pair, found.expected, found.missing) == ("ETHUSD", 4, 4)


def test_an_asset_the_lake_knows_nothing_of_is_named(embedded_lake: DeltaLakeManager) -> None:
    land(embedded_lake, range(3))
    with pytest.raises(UnknownAssetError, match=r"no bars of SOLUSD; it has BTCUSD"):
        find_gaps(embedded_lake, assets=["BTCUSD", "SOLUSD"])


def test_a_bar_that_has_not_settled_is_not_missed_yet(embedded_lake: DeltaLakeManager) -> None:
    land(embedded_lake, range(5))
    late = DAY0 + timedelta(hours=6, minutes=4)
    (early,) = find_gaps(embedded_lake, interval=hours(0, 24), now=late)
    assert (early.expected, early.missing) == (5, 0)
    (settled,) = find_gaps(embedded_lake, interval=hours(0, 24), now=late + timedelta(minutes=1))
    assert told(settled) == [(5, 1, "not fetched", ())]


def test_many_versions_of_a_bar_are_one(embedded_lake: DeltaLakeManager) -> None:
    land(embedded_lake, range(6))
    embedded_lake.append("raw_market_data_1h", bars("1h", count=3, assets=("BTCUSD",), shift=1.0), "later")
    (found,) = find_gaps(embedded_lake)
    assert (found.expected, found.present) == (6, 6)


def test_the_real_month_of_gbpusd_has_its_124_gaps_and_no_weekend(embedded_lake: DeltaLakeManager) -> None:
    spec = FileSpec(GBPUSD, MARKET_DATA, load_registry().resolve("GBPUSD"), Timeframe.M1)
    assert asyncio.run(FileLoad(embedded_lake, embedded_lake.settings).run(spec)).ok
    (found,) = find_gaps(embedded_lake)
    assert (found.missing, len(found.runs), found.outside) == (124, 111, 0)
    assert {run.kind for run in found.runs} == {GapKind.NO_DATA}
    assert {run.providers for run in found.runs} == {("files",)}
    # By pandas from the file: the minutes of open weeks that it lacks.
    there = pd.DatetimeIndex(pd.read_csv(GBPUSD)["timestamp"].pipe(pd.to_datetime, utc=True))
    whole = pd.date_range(there.min(), there.max(), freq="min")
    local = whole.tz_convert(NEW_YORK)
    week = local.weekday * 1440 + local.hour * 60 + local.minute
    friday, sunday = 4 * 1440 + 17 * 60, 6 * 1440 + 17 * 60
    lacking = whole[(week < friday) | (week >= sunday)].difference(there)
    assert minutes_of(found) == list(lacking)
    (told_closed,) = find_gaps(embedded_lake, closed=True)
    weekends = [run for run in told_closed.runs if run.kind is GapKind.CLOSED]
    assert [(run.interval.start.weekday(), run.interval.start.hour, run.bars) for run in weekends] == [
        (4, 22, 2880)
    ] * 4
    assert told_closed.missing == 124


def minutes_of(gaps: SeriesGaps) -> list[pd.Timestamp]:
    """Return the open of every missing bar, from its runs."""
    step = gaps.timeframe.step
    return [
        pd.Timestamp(run.interval.start + step * number)
        for run in gaps.runs
        for number in range((run.interval.end - run.interval.start) // step)
        if run.kind is not GapKind.CLOSED
    ]


def traded(pair: str, start: pd.Timestamp, end: pd.Timestamp, timeframe: Timeframe) -> pd.DatetimeIndex:
    """Return the opens of all bars that hold a minute of trading, from New York's clock or exchange_calendars."""
    minutes = pd.date_range(start, end, freq="min", inclusive="left")
    if pair == "EURUSD":
        local = minutes.tz_convert(NEW_YORK)
        hour = local.hour + local.minute / 60
        shut = (local.weekday == 5) | ((local.weekday == 4) & (hour >= 17)) | ((local.weekday == 6) & (hour < 17))
        minutes = minutes[~shut]
    elif pair == "AAPL":
        known = exchange_calendars.get_calendar(
            "XNYS", start=start.date() - timedelta(9), end=end.date() + timedelta(9), side="left"
        )
        minutes = known.minutes_in_range(start, end - pd.Timedelta(minutes=1))
    return minutes.floor(f"{timeframe.seconds}s").unique()


def a_bar(opens: Sequence[pd.Timestamp], pair: str, timeframe: Timeframe) -> pa.Table:
    """Return bars that open then."""
    one = bars(timeframe.value, count=1, assets=(pair,))
    table = pa.concat_tables([one] * len(opens))
    times = pa.array([when.to_pydatetime() for when in opens], pa.timestamp("us", "UTC"))
    return table.set_column(table.column_names.index("timestamp"), "timestamp", times)


# Both clock changes in New York, a leap day, a half-day after a holiday, and the turn of a year.
AROUND = ["2025-03-09", "2025-11-02", "2024-02-29", "2023-11-24", "2024-01-01"]


@given(
    st.sampled_from(["BTCUSD", "EURUSD", "AAPL"]),
    st.sampled_from(AROUND),
    st.integers(-2, 1),
    st.integers(1, 4),
    st.sampled_from([Timeframe.M5, Timeframe.H1, Timeframe.H4, Timeframe.D1]),
    st.randoms(use_true_random=False),
)
@hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_random_holes_against_pandas(
    pair: str, around: str, offset: int, length: int, timeframe: Timeframe, chance: random.Random
) -> None:
    start = pd.Timestamp(around, tz="UTC") + pd.Timedelta(days=offset)
    end = start + pd.Timedelta(days=length)
    places = pd.date_range(start, end, freq=f"{timeframe.seconds}s", inclusive="left")
    expected = traded(pair, start, end, timeframe)
    share = chance.choice([0.0, 0.1, 0.5])
    there = [when for when in expected if chance.random() >= share]
    beyond = [when for when in places.difference(expected) if chance.random() < 0.05]
    with tempfile.TemporaryDirectory() as folder:
        settings = make_settings(Path(folder), {"storage": {"engine": "embedded"}})
        lake = DeltaLakeManager(settings.delta_lake.storage_path, settings)
        vouched = Interval(start.to_pydatetime(), (start + (end - start) // 2).to_pydatetime())
        lake.coverage.record(
            [CoverageEntry(MARKET_DATA, pair, timeframe.value, "a", vouched.start, vouched.end, COVERED, 0)], "test"
        )
        if there or beyond:
            lake.append(f"raw_market_data_{timeframe.value}", a_bar([*there, *beyond], pair, timeframe), "test")
        span = Interval(start.to_pydatetime(), end.to_pydatetime())
        (found,) = find_gaps(lake, interval=span, closed=True)
    lacking = expected.difference(pd.DatetimeIndex(there)) if there else expected
    assert minutes_of(found) == list(lacking)
    assert (found.expected, found.present, found.outside) == (len(expected), len(there), len(beyond))
    assert found.closed_bars == len(places) - len(expected) - len(beyond)
    none = sum(run.bars for run in found.runs if run.kind is GapKind.NO_DATA)
    assert none == sum(when < vouched.end for when in lacking)
    assert [(day.day, day.expected) for day in found.days] == list(
        pd.Series(expected.date).value_counts().sort_index().items()
    )
    for one, other in pairwise(found.runs):
        assert one.interval.end < other.interval.start or one.kind is not other.kind


def registered(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    """Make GONE the one instrument there is."""
    made = Instrument(pair="GONE", asset_class=AssetClass.EQUITY, **fields)
    registry = InstrumentRegistry({"GONE": made}, frozenset(), frozenset())
    monkeypatch.setattr(presence, "load_registry", lambda: registry)


def test_nothing_is_missing_of_a_delisted_asset_after_its_last_day(
    embedded_lake: DeltaLakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered(monkeypatch, calendar="XNYS", listed_from=date(2025, 12, 2), listed_until=date(2025, 12, 5))
    rows = bars("1d", start=datetime(2025, 12, 3, tzinfo=UTC), count=1, assets=("GONE",))
    embedded_lake.append("raw_market_data_1d", rows, "test")
    span = Interval(datetime(2025, 11, 1, tzinfo=UTC), datetime(2025, 12, 31, tzinfo=UTC))
    (found,) = find_gaps(embedded_lake, interval=span, now=datetime(2026, 2, 1, tzinfo=UTC))
    assert [run.interval.start.day for run in found.runs] == [2, 4]
    assert (found.expected, found.present) == (3, 1)


def test_an_unknown_calendar_names_its_key(embedded_lake: DeltaLakeManager, monkeypatch: pytest.MonkeyPatch) -> None:
    registered(monkeypatch, calendar="XNYX")
    embedded_lake.append("raw_market_data_1d", bars("1d", count=2, assets=("GONE",)), "test")
    with pytest.raises(ConfigError, match=r"assets\.GONE\.calendar: unknown calendar 'XNYX'.*XNYS"):
        find_gaps(embedded_lake)


def test_bars_of_a_half_day_end_at_noon(embedded_lake: DeltaLakeManager) -> None:
    # 24 November 2023: 9:30 to 13:00 in New York, which is 14:30 to 18:00 in UTC.
    start = datetime(2023, 11, 24, 14, tzinfo=UTC)
    rows = bars("15m", start=start, count=16, assets=("AAPL",))
    embedded_lake.append("raw_market_data_15m", rows, "test")
    day = Interval(datetime(2023, 11, 23, tzinfo=UTC), datetime(2023, 11, 25, tzinfo=UTC))
    (found,) = find_gaps(embedded_lake, interval=day)
    assert (found.expected, found.missing, found.outside) == (14, 0, 2)


def test_hours_that_begin_with_the_session_are_those_of_the_clock(embedded_lake: DeltaLakeManager) -> None:
    # 9:30 to 16:00 in New York, seven bars; that of 16:30 UTC lacks.
    start = datetime(2023, 11, 27, 14, 30, tzinfo=UTC)
    rows = bars("1h", start=start, count=7, assets=("AAPL",))
    embedded_lake.append("raw_market_data_1h", rows.take(pa.array([0, 1, 3, 4, 5, 6])), "test")
    day = Interval(datetime(2023, 11, 27, tzinfo=UTC), datetime(2023, 11, 28, tzinfo=UTC))
    (found,) = find_gaps(embedded_lake, interval=day)
    assert [(run.interval.start.hour, run.bars) for run in found.runs] == [(16, 1)]
    assert (found.expected, found.present, found.outside) == (7, 6, 0)


def test_closed_time_of_an_empty_span_is_one_run(embedded_lake: DeltaLakeManager) -> None:
    rows = bars("1h", start=datetime(2024, 1, 5, 12, tzinfo=UTC), count=2, assets=("EURUSD",))
    embedded_lake.append("raw_market_data_1h", rows, "test")
    weekend = Interval(datetime(2024, 1, 6, tzinfo=UTC), datetime(2024, 1, 7, tzinfo=UTC))
    (found,) = find_gaps(embedded_lake, interval=weekend, closed=True)
    assert [(run.kind, run.bars, run.interval) for run in found.runs] == [(GapKind.CLOSED, 24, weekend)]
    assert (found.expected, found.missing, found.completeness) == (0, 0, 1.0)


def test_a_lake_in_s3_is_read_too(s3_lake_path: str) -> None:
    lake = DeltaLakeManager(s3_lake_path, Settings.model_validate({"storage": {"engine": "embedded"}}))
    land(lake, set(range(10)) - {4})
    (found,) = find_gaps(lake)
    assert told(found) == [(4, 1, "not fetched", ())]
