"""Ranges: half-open, aligned, clipped to closed bars; what is needed given what is covered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pipelines.batch.jobs import bar_job, trailing_days
from pipelines.errors import InvalidRangeError, UnknownAssetError
from pipelines.intervals import Interval, IntervalSet
from pipelines.timeframes import Timeframe

NOW = datetime(2025, 12, 14, 10, 7, 30, tzinfo=UTC)


def test_a_bare_date_is_midnight_utc_and_the_end_is_exclusive() -> None:
    job = bar_job("BTCUSD", "1h", "2025-12-07", "2025-12-14", now=NOW)
    assert job.interval == Interval(datetime(2025, 12, 7, tzinfo=UTC), datetime(2025, 12, 14, tzinfo=UTC))


@pytest.mark.parametrize(
    ("asset", "timeframe", "end"),
    [
        ("BTCUSD", "1m", datetime(2025, 12, 14, 10, 7, tzinfo=UTC)),
        ("BTCUSD", "4h", datetime(2025, 12, 14, 8, tzinfo=UTC)),
        ("BTCUSD", "1d", datetime(2025, 12, 14, tzinfo=UTC)),
        # An exchange's hourly bar may have opened at 09:30 and still be open.
        ("AAPL", "1h", datetime(2025, 12, 14, 9, tzinfo=UTC)),
    ],
)
def test_the_still_open_bar_is_left_out(asset: str, timeframe: str, end: datetime) -> None:
    assert bar_job(asset, timeframe, "2025-12-01", "2026-01-01", now=NOW).interval.end == end


def test_a_range_off_the_grid_keeps_the_bars_that_open_in_it() -> None:
    job = bar_job("BTCUSD", "1h", "2025-12-07T00:30", "2025-12-07T03:30", now=NOW)
    assert job.interval == Interval(datetime(2025, 12, 7, 1, tzinfo=UTC), datetime(2025, 12, 7, 4, tzinfo=UTC))


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("2025-12-07", "2025-12-06", "inverted"),
        ("2025-12-07", "2025-12-07", "empty"),
        ("2025-12-15", "2025-12-16", "future"),
        ("tomorrow", "2025-12-16", "not a date"),
    ],
)
def test_wrong_ranges_are_refused(start: str, end: str, message: str) -> None:
    with pytest.raises(InvalidRangeError, match=message):
        bar_job("BTCUSD", "1h", start, end, now=NOW)


def test_unknown_timeframes_and_assets_are_refused() -> None:
    with pytest.raises(InvalidRangeError, match="1m, 5m, 15m, 1h, 4h, 1d"):
        bar_job("BTCUSD", "2h", "2025-12-01", "2025-12-02", now=NOW)
    with pytest.raises(UnknownAssetError, match="BTCUSX"):
        bar_job("BTCUSX", "1h", "2025-12-01", "2025-12-02", now=NOW)


@pytest.mark.parametrize("minute", [0, 1, 59])
def test_seven_trailing_days_of_two_assets_are_25970_bars_at_any_minute(minute: int) -> None:
    now = NOW.replace(minute=minute)
    spans = [(t, trailing_days(t, 7, now)) for t in Timeframe]
    assert 2 * sum(t.bars_between(span.start, span.end) for t, span in spans) == 25_970


def test_needed_is_what_is_not_covered() -> None:
    job = bar_job("BTCUSD", "1h", "2025-12-05", "2025-12-14", now=NOW)
    known = IntervalSet([Interval(datetime(2025, 12, 7, tzinfo=UTC), datetime(2025, 12, 14, tzinfo=UTC))])
    earlier = IntervalSet([Interval(datetime(2025, 12, 5, tzinfo=UTC), datetime(2025, 12, 7, tzinfo=UTC))])
    assert job.needed(IntervalSet()) == IntervalSet([job.interval])
    assert job.needed(known) == earlier
    assert not job.needed(IntervalSet([job.interval]))


def test_look_back_asks_for_the_last_known_bars_again() -> None:
    job = bar_job("BTCUSD", "1h", "2025-12-05", "2025-12-14", now=NOW)
    edge = job.interval.end
    assert job.needed(IntervalSet([job.interval]), 3) == IntervalSet([Interval(edge - timedelta(hours=3), edge)])


def test_force_asks_for_everything() -> None:
    job = bar_job("BTCUSD", "1h", "2025-12-05", "2025-12-14", now=NOW, force=True)
    assert job.needed(IntervalSet([job.interval])) == IntervalSet([job.interval])
