"""Session VWAP against pandas: groups by local date, or by the forex week, and running sums within."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipelines.transform.indicators import STATE_BARS, SeriesContext, resume
from tests.transform.indicators.series import (
    Floats,
    Series,
    assert_agree,
    made,
    made_bars,
    on_calendar,
    on_every_series,
    series,
)


def session_of(found: Series) -> pd.Series:
    """UTC day; the week that turns on Sunday 17:00 New York; New York's date."""
    at = found.frame["timestamp"]
    calendar = found.context.instrument.calendar
    if calendar == "24/7" or found.context.timeframe.value == "1d":
        return at.dt.floor("D")
    local = at.dt.tz_convert("America/New_York").dt.tz_localize(None)
    if calendar == "forex":
        return (local + pd.Timedelta(hours=7)).dt.to_period("W")
    return local.dt.date


def by_group(frame: pd.DataFrame, session: pd.Series) -> Floats:
    volume = frame["volume"].fillna(0.0)
    value = (frame["high"] + frame["low"] + frame["close"]) / 3 * volume
    total = volume.groupby(session).cumsum()
    return (value.groupby(session).cumsum() / total).where(total > 0).to_numpy()


@on_every_series
def test_is_the_mean_since_the_session_began(name: str) -> None:
    found = series(name)
    assert_agree(found.values("session_vwap"), by_group(found.frame, session_of(found)))


def weeks(count: int, step: timedelta, seed: int = 4) -> tuple[list[datetime], list[float], list[float]]:
    """Bars around the clock and around a change of summer time, so that many lie outside sessions."""
    start = datetime(2024, 3, 1, tzinfo=UTC)
    times = [start + step * place for place in range(int(timedelta(weeks=count) / step))]
    rng = np.random.default_rng(seed)
    return times, (100 + np.cumsum(rng.normal(0, 0.1, len(times)))).tolist(), rng.integers(0, 4, len(times)).tolist()


def test_forex_begins_anew_each_week_in_new_york() -> None:
    times, closes, volumes = weeks(4, timedelta(minutes=15))
    found = made(closes, pair="EURUSD", timeframe="15m", volume=volumes, at=times)
    local = found.frame["timestamp"].dt.tz_convert("America/New_York").dt.tz_localize(None) + pd.Timedelta(hours=7)
    trading = local.dt.dayofweek < 5
    expected = by_group(found.frame[trading], local[trading].dt.to_period("W"))
    vwap = found.values("session_vwap")
    assert_agree(vwap[trading.to_numpy()], expected)
    assert np.isnan(vwap[~trading.to_numpy()]).all()


@pytest.mark.parametrize(
    ("calendar", "zone", "hours"),
    [
        ("XNYS", "America/New_York", [("09:30", "16:00")]),
        ("XHKG", "Asia/Hong_Kong", [("09:30", "12:00"), ("13:00", "16:00")]),
    ],
)
def test_an_exchange_has_its_sessions_with_lunch_inside(calendar: str, zone: str, hours: list[tuple[str, str]]) -> None:
    # March 2024 before the holidays around Easter.
    times, closes, volumes = weeks(3, timedelta(minutes=5))
    found = Series(made_bars(closes, volume=volumes, at=times), on_calendar(calendar, "5m"))
    local = found.frame["timestamp"].dt.tz_convert(zone)
    clock = local.dt.strftime("%H:%M")
    trading = pd.Series(False, index=clock.index)
    for opens, closes_at in hours:
        trading |= (clock >= opens) & (clock < closes_at)
    trading &= local.dt.dayofweek < 5
    expected = by_group(found.frame[trading], local[trading].dt.date)
    vwap = found.values("session_vwap")
    assert_agree(vwap[trading.to_numpy()], expected)
    assert np.isnan(vwap[~trading.to_numpy()]).all()


@pytest.mark.parametrize("calendar", ["XTKS", "XNYS", "forex", "CMES"])
def test_a_run_may_begin_anywhere_even_in_a_lunch_break(calendar: str) -> None:
    times, closes, volumes = weeks(1, timedelta(minutes=15))
    found = Series(made_bars(closes, volume=volumes, at=times), on_calendar(calendar, "15m"))
    for cut in range(STATE_BARS, len(times), 3):
        stored = found.computed.slice(0, cut)
        stored = pa.concat_tables([stored, resume(stored, found.bars.slice(cut, 1), found.context)])
        rest = resume(stored, found.bars.slice(cut + 1), found.context)
        assert rest["session_vwap"].equals(found.computed["session_vwap"].slice(cut + 1))


def test_a_bar_on_the_clock_belongs_to_the_session_it_overlaps() -> None:
    # 14:30 to 21:00 UTC; the bar of 14:00 overlaps it.
    times = [datetime(2024, 1, 3, hour, tzinfo=UTC) for hour in (13, 14, 15, 20, 21)]
    found = made([1.0, 2.0, 4.0, 6.0, 9.0], pair="AAPL", timeframe="1h", at=times).values("session_vwap")
    assert_agree(found, [np.nan, 2.0, 3.0, 4.0, np.nan])


def test_is_null_until_the_session_has_a_volume_and_holds_where_a_bar_has_none() -> None:
    day = [datetime(2024, 1, 1, 12, tzinfo=UTC) + timedelta(hours=6) * place for place in range(5)]
    found = made([1.0, 3.0, 5.0, 7.0, 9.0], timeframe="4h", at=day, volume=[2.0, None, None, 0.0, 1.0])
    assert_agree(found.values("session_vwap"), [1.0, 1.0, np.nan, np.nan, 9.0])


def test_time_counts_and_not_bars() -> None:
    times = [datetime(2024, 1, 1, 23, 59, tzinfo=UTC), datetime(2024, 1, 5, tzinfo=UTC)]
    assert_agree(made([1.0, 3.0], at=times).values("session_vwap"), [1.0, 3.0])


def test_before_a_calendar_begins_there_is_no_session() -> None:
    context = SeriesContext.of("AAPL", "1h")
    times = [datetime(1700, 1, 3, 15, tzinfo=UTC), datetime(1700, 1, 3, 16, tzinfo=UTC)]
    assert np.isnan(Series(made_bars([1.0, 2.0], at=times), context).values("session_vwap")).all()
