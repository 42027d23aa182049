"""Trading calendars against independent computations: wall-clock rules for forex, exchange_calendars for exchanges."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import exchange_calendars
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.calendars import expected_opens, is_open, newest_due, newest_owed, sessions
from pipelines.errors import ConfigError
from pipelines.instruments import AssetClass, Instrument, load_registry
from pipelines.timeframes import EPOCH, Timeframe

NEW_YORK = ZoneInfo("America/New_York")
REGISTRY = load_registry()
EUR, BTC, AAPL = (REGISTRY.resolve(pair) for pair in ("EURUSD", "BTCUSD", "AAPL"))


def on(calendar: str) -> Instrument:
    return Instrument(pair="TEST", asset_class=AssetClass.EQUITY, calendar=calendar)


def at(*instants: datetime) -> np.ndarray:
    return np.array([instant.replace(tzinfo=None) for instant in instants], dtype="datetime64[us]")


def forex_trades(instant: datetime) -> bool:
    """The rule itself, on New York's wall clock."""
    local = instant.astimezone(NEW_YORK)
    hours = local.hour + local.minute / 60
    if local.weekday() == 4:
        return hours < 17
    if local.weekday() == 6:
        return hours >= 17
    return local.weekday() != 5


minutes = st.integers(0, 60 * 365 * 24 * 60).map(lambda n: EPOCH + timedelta(minutes=n))
# Turns of the forex week within days of every clock change since 1987, when the rules were others than today's.
turns = st.builds(
    lambda year, month, offset: datetime(year, month, 1, 21, tzinfo=UTC) + timedelta(minutes=offset),
    st.integers(1987, 2030), st.sampled_from([3, 4, 10, 11]), st.integers(0, 20 * 1440),
)  # fmt: skip


@given(st.lists(st.one_of(minutes, turns), min_size=1, max_size=50))
def test_forex_minutes_follow_new_york(instants: list[datetime]) -> None:
    found = is_open(EUR, Timeframe.M1, at(*instants))
    assert found.tolist() == [forex_trades(instant) for instant in instants]


@given(turns, st.sampled_from(list(Timeframe)))
@settings(max_examples=60)
def test_a_forex_bar_exists_if_any_of_its_minutes_trades(instant: datetime, timeframe: Timeframe) -> None:
    start = timeframe.floor(instant)
    inside = any(forex_trades(start + timedelta(minutes=n)) for n in range(0, timeframe.seconds // 60, 5))
    assert is_open(EUR, timeframe, at(start)).tolist() == [inside]


@pytest.mark.parametrize(
    ("sunday", "hour"),
    [(date(2025, 3, 2), 22), (date(2025, 3, 9), 21), (date(2025, 10, 26), 21), (date(2025, 11, 2), 22)],
)
def test_the_forex_week_opens_at_17_new_york(sunday: date, hour: int) -> None:
    start = datetime(sunday.year, sunday.month, sunday.day, tzinfo=UTC)
    first = expected_opens(EUR, Timeframe.M1, start, start + timedelta(days=1))[0]
    assert first == np.datetime64(start.replace(hour=hour, tzinfo=None), "us")


@pytest.mark.parametrize("calendar", ["XNYS", "XLON", "XTKS", "XHKG", "CMES"])
@pytest.mark.parametrize("timeframe", [Timeframe.M5, Timeframe.H1])
def test_intraday_bars_against_exchange_calendars(calendar: str, timeframe: Timeframe) -> None:
    start, end = datetime(2023, 10, 30, tzinfo=UTC), datetime(2024, 1, 8, tzinfo=UTC)
    oracle = exchange_calendars.get_calendar(calendar, start="2023-10-01", end="2024-02-01", side="left")
    trading = oracle.minutes_in_range(pd.Timestamp(start), pd.Timestamp(end - timedelta(minutes=1)))
    expected = sorted(set(trading.tz_localize(None).floor(f"{timeframe.seconds}s")))
    found = expected_opens(on(calendar), timeframe, start, end)
    assert [pd.Timestamp(value) for value in found] == expected


def test_a_half_day_ends_at_noon_of_its_exchange() -> None:
    # The day after Thanksgiving: 9:30 to 13:00 in New York; 24 November 2023 is not a whole day.
    found = expected_opens(AAPL, Timeframe.M1, datetime(2023, 11, 23, tzinfo=UTC), datetime(2023, 11, 25, tzinfo=UTC))
    assert len(found) == 210
    assert (str(found[0]), str(found[-1])) == ("2023-11-24T14:30:00.000000", "2023-11-24T17:59:00.000000")


def test_lunch_is_closed_in_tokyo() -> None:
    day = datetime(2024, 3, 5, tzinfo=UTC)
    found = (
        expected_opens(on("XTKS"), Timeframe.M1, day, day + timedelta(days=1)).astype("datetime64[m]").astype(int)
        % 1440
    )
    # 9:00 to 11:30 and 12:30 to 15:00 in Tokyo, nine hours ahead.
    assert found.tolist() == [*range(150), *range(210, 360)]


@pytest.mark.parametrize("calendar", ["XNYS", "XASX", "XTKS"])
def test_daily_bars_are_the_exchange_sessions(calendar: str) -> None:
    found = expected_opens(
        on(calendar), Timeframe.D1, datetime(2007, 6, 1, tzinfo=UTC), datetime(2012, 6, 1, tzinfo=UTC)
    )
    oracle = exchange_calendars.get_calendar(calendar, start="2007-06-01", end="2012-05-31").sessions
    assert [pd.Timestamp(value) for value in found] == list(oracle)


def test_daily_forex_bars_are_sunday_to_friday() -> None:
    found = expected_opens(EUR, Timeframe.D1, datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC))
    days = pd.date_range("2024-01-01", "2024-12-31")
    assert [pd.Timestamp(value) for value in found] == [day for day in days if day.weekday() != 5]


@given(minutes, st.integers(0, 5000), st.sampled_from(list(Timeframe)))
def test_24_7_has_every_bar(start: datetime, length: int, timeframe: Timeframe) -> None:
    end = start + timedelta(minutes=length)
    found = expected_opens(BTC, timeframe, start, end)
    assert len(found) == timeframe.bars_between(start, end)
    assert is_open(BTC, timeframe, found).all()


@given(minutes, st.integers(1, 20_000), st.integers(0, 20_000))
@settings(max_examples=40, deadline=None)
def test_expected_opens_tile(start: datetime, length: int, cut: int) -> None:
    end = start + timedelta(minutes=length)
    middle = start + timedelta(minutes=min(cut, length))
    whole = expected_opens(EUR, Timeframe.M15, start, end)
    parts = [expected_opens(EUR, Timeframe.M15, *edges) for edges in ((start, middle), (middle, end))]
    assert np.array_equal(np.concatenate(parts), whole)


@given(st.lists(st.integers(0, 3_000_000), min_size=1, max_size=40))
@settings(deadline=None)
def test_is_open_takes_any_order(offsets: list[int]) -> None:
    opens = at(*(datetime(2019, 11, 1, tzinfo=UTC) + timedelta(minutes=n) for n in offsets))
    one_by_one = [bool(is_open(AAPL, Timeframe.M1, opens[i : i + 1])[0]) for i in range(len(opens))]
    assert is_open(AAPL, Timeframe.M1, opens).tolist() == one_by_one


def test_a_session_over_a_decade_end_is_found() -> None:
    # Sunday 30 December 2029 to Friday 4 January 2030.
    instant = datetime(2030, 1, 4, 12, tzinfo=UTC)
    assert is_open(EUR, Timeframe.M1, at(instant)).all()
    found = sessions(EUR, instant, instant + timedelta(hours=1))
    assert found.opens.tolist() == [int(datetime(2029, 12, 30, 22, tzinfo=UTC).timestamp()) * 1_000_000]


def test_dates_a_calendar_does_not_know_are_closed() -> None:
    long_ago = datetime(1930, 3, 6, tzinfo=UTC)
    assert expected_opens(on("XSAU"), Timeframe.H1, long_ago, long_ago + timedelta(days=7)).size == 0


@pytest.mark.parametrize(("name", "hint"), [("XNYX", "XNYS"), ("fx", "forex"), ("nonsense!", "XNYS")])
def test_an_unknown_calendar_is_a_clear_error(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint) as caught:
        is_open(on(name), Timeframe.M1, at(EPOCH))
    assert name in str(caught.value)
    assert "assets.TEST.calendar" in str(caught.value)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("instrument", "timeframe", "before", "due"),
    [
        (BTC, "1m", "2024-01-01T00:00:30", "2023-12-31T23:59"),
        (BTC, "1h", "2024-02-29T13:00", "2024-02-29T12:00"),
        (BTC, "1d", "2024-03-01T23:59", "2024-02-29T00:00"),
        # Forex closes on Friday at 17:00 New York and opens on Sunday at the same time.
        (EUR, "1m", "2024-01-06T12:00", "2024-01-05T21:59"),
        (EUR, "1m", "2024-01-07T22:00:59", "2024-01-05T21:59"),
        (EUR, "1m", "2024-01-07T22:01:00", "2024-01-07T22:00"),
        (EUR, "4h", "2024-01-06T12:00", "2024-01-05T20:00"),
        # Clocks went forward on the Sunday: the week opens an hour earlier in UTC.
        (EUR, "1h", "2025-03-09T21:59", "2025-03-07T21:00"),
        (EUR, "1h", "2025-03-09T22:00", "2025-03-09T21:00"),
        # New York closed at 13:00 on 24 November 2023; Thursday was Thanksgiving.
        (AAPL, "1m", "2023-11-24T14:30:59", "2023-11-22T20:59"),
        (AAPL, "5m", "2023-11-26T12:00", "2023-11-24T17:55"),
        (AAPL, "1h", "2023-11-24T18:00", "2023-11-24T17:00"),
        (AAPL, "1d", "2023-11-24T23:00", "2023-11-22T00:00"),
        (AAPL, "1d", "2023-11-25T00:00", "2023-11-24T00:00"),
        # New York was closed from 11 to 16 September 2001.
        (on("XNYS"), "1d", "2001-09-17T12:00", "2001-09-10T00:00"),
    ],
)
def test_the_newest_bar_due(instrument: Instrument, timeframe: str, before: str, due: str) -> None:
    assert newest_due(instrument, Timeframe(timeframe), utc(before)) == utc(due)


@given(turns, st.sampled_from(list(Timeframe)), st.sampled_from(["forex", "XNYS", "XTKS", "24/7"]))
@settings(max_examples=60)
def test_the_newest_bar_due_is_the_last_expected_one(instant: datetime, timeframe: Timeframe, calendar: str) -> None:
    instrument = on(calendar)
    expected = expected_opens(instrument, timeframe, instant - timedelta(days=20), instant)
    closed = [pd.Timestamp(value, tz="UTC") for value in expected[-20:]]
    # Tokyo's calendar begins in 1997.
    last = max((value for value in closed if value + timeframe.step <= instant), default=None)
    assert newest_due(instrument, timeframe, instant) == last


def test_nothing_is_due_before_a_calendar_begins() -> None:
    assert newest_due(on("XSAU"), Timeframe.H1, utc("1930-03-06")) is None


def listed(since: date | None, until: date | None, calendar: str = "24/7") -> Instrument:
    return Instrument(
        pair="TEST", asset_class=AssetClass.EQUITY, calendar=calendar, listed_from=since, listed_until=until
    )


@pytest.mark.parametrize("calendar", ["24/7", "forex", "XNYS", "CMES"])
@given(st.dates(date(2023, 12, 20), date(2024, 1, 20)), st.integers(1, 12), st.sampled_from(list(Timeframe)))
@settings(max_examples=30)
def test_nothing_is_expected_outside_of_the_listing(
    calendar: str, since: date, length: int, timeframe: Timeframe
) -> None:
    start, end = utc("2023-12-10"), utc("2024-02-10")
    until = since + timedelta(days=length)
    whole = expected_opens(on(calendar), timeframe, start, end)
    found = expected_opens(listed(since, until, calendar), timeframe, start, end)
    inside = (whole >= np.datetime64(since, "us")) & (whole < np.datetime64(until, "us"))
    assert np.array_equal(found, whole[inside])
    due = newest_due(listed(since, until, calendar), timeframe, end)
    assert due == (pd.Timestamp(found[-1], tz="UTC") if found.size else None)


def test_sessions_are_cut_to_the_listing() -> None:
    week = sessions(listed(date(2024, 1, 9), date(2024, 1, 11), "forex"), utc("2024-01-01"), utc("2024-02-01"))
    assert [pd.Timestamp(int(edge[0]), unit="us") for edge in (week.opens, week.closes)] == [
        pd.Timestamp("2024-01-09"),
        pd.Timestamp("2024-01-11"),
    ]
    assert len(week.days) == 2
    assert sessions(listed(None, date(2020, 1, 1)), utc("2024-01-01"), utc("2024-02-01")).opens.size == 0


def test_a_delisted_asset_is_due_no_bar_after_its_last() -> None:
    gone = listed(None, date(2024, 1, 6), "XNYS")
    assert newest_due(gone, Timeframe.M1, utc("2026-01-01")) == utc("2024-01-05T20:59")
    assert newest_due(listed(date(2024, 1, 6), None), Timeframe.M1, utc("2024-01-05")) is None


def test_bars_that_open_at_half_past_are_owed_with_their_close() -> None:
    """New York opens at 14:30 UTC: a 1h bar from then on closes at 15:30, one on the clock at 15:00."""
    registry = load_registry()
    latency = timedelta(minutes=5)

    def owed(pair: str, frame: Timeframe, hour: int, minute: int) -> datetime | None:
        return newest_owed(registry.resolve(pair), frame, datetime(2025, 12, 9, hour, minute, tzinfo=UTC), latency)

    yesterday = datetime(2025, 12, 8, 20, tzinfo=UTC)
    assert [owed("AAPL", Timeframe.H1, 15, minute) for minute in (4, 6, 34)] == [yesterday] * 3
    assert owed("AAPL", Timeframe.H1, 16, 6) == datetime(2025, 12, 9, 14, tzinfo=UTC)
    assert owed("AAPL", Timeframe.M15, 14, 51) == datetime(2025, 12, 9, 14, 30, tzinfo=UTC)
    assert owed("BTCUSD", Timeframe.H1, 15, 4) == datetime(2025, 12, 9, 13, tzinfo=UTC)
    assert owed("BTCUSD", Timeframe.H1, 15, 5) == datetime(2025, 12, 9, 14, tzinfo=UTC)
