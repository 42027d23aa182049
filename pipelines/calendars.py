"""Trading calendars: when an instrument's bars exist at all, which is what gap detection measures against."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from pipelines.errors import ConfigError
from pipelines.timeframes import Timeframe, from_micros, micros

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.instruments import Instrument

ALWAYS = "24/7"
FOREX = "forex"

Instants = npt.NDArray[np.datetime64]
Mask = npt.NDArray[np.bool_]
_Micros = npt.NDArray[np.int64]

_NEW_YORK = ZoneInfo("America/New_York")
_FOREX_TURN = time(17)
_OFF_THE_CLOCK = (Timeframe.H1, Timeframe.H4)
_SUNDAY = 6
_MICROSECOND = timedelta(microseconds=1)
_DAY = 86_400_000_000
# No session lasts longer or lies further from the date it is filed under (the forex week does not).
_SLACK = timedelta(days=7)
# How far back to look for a bar that is due: past any holiday, and past the years a calendar does not reach.
_LOOK_BACK = (timedelta(days=30), timedelta(days=20 * 365))


@dataclass(frozen=True, slots=True)
class Sessions:
    """Sorted, disjoint spans [opens, closes) of trading, int64 microseconds since the epoch, UTC.

    `days` are the midnights, UTC, of the calendar dates that trading belongs to.
    """

    opens: _Micros
    closes: _Micros
    days: _Micros


_NO_SESSIONS = Sessions(*(np.array([], dtype=np.int64) for _ in range(3)))


def is_open(instrument: Instrument, timeframe: Timeframe, opens: Instants) -> Mask:
    """Say for each bar open whether a bar exists there on a regular calendar.

    An intraday bar exists if its span overlaps a session, half-days and lunch breaks honoured; a daily bar exists if
    its UTC date has a session (on "forex": if any trading falls on it, which Sunday's late hours do). Dates an
    exchange calendar knows nothing about count as closed, and so do those on which the instrument is not listed.

    Args:
        instrument: whose calendar to ask.
        timeframe: the bars' length.
        opens: bar opens, datetime64[us], UTC, in any order.

    Raises:
        ConfigError: the instrument names an unknown calendar.
    """
    check_calendar(instrument)
    if opens.size == 0:
        return np.ones(opens.shape, dtype=np.bool_)
    at = opens.astype("datetime64[us]").astype(np.int64)
    if instrument.calendar == ALWAYS:
        # No bar spans a midnight in UTC, so that each is listed whole or not at all.
        listed, gone = map(micros, instrument.listing)
        always: Mask = (at >= listed) & (at < gone)
        return always
    found = sessions(instrument, from_micros(int(at.min())), from_micros(int(at.max())) + timeframe.step)
    if timeframe is Timeframe.D1:
        return np.isin(at // _DAY * _DAY, found.days)
    return _overlaps(found, at, timeframe.seconds * 1_000_000)


def expected_opens(instrument: Instrument, timeframe: Timeframe, start: datetime, end: datetime) -> Instants:
    """Return the opens in [start, end), aware UTC, of all bars of a regular calendar, as sorted datetime64[us].

    Raises:
        ConfigError: the instrument names an unknown calendar.
    """
    first, last = (micros(timeframe.ceil(bound)) for bound in (start, end))
    opens = np.arange(first, last, timeframe.seconds * 1_000_000, dtype=np.int64).astype("datetime64[us]")
    return opens[is_open(instrument, timeframe, opens)]


def sessions(instrument: Instrument, start: datetime, end: datetime) -> Sessions:
    """Return the sessions that overlap [start, end), cut to the dates on which the instrument is listed and no further.

    "24/7" is one span from start to end.

    Raises:
        ConfigError: the instrument names an unknown calendar.
    """
    check_calendar(instrument)
    listed, gone = map(micros, instrument.listing)
    low, high = max(micros(start), listed), min(micros(end), gone)
    if low >= high:
        return _NO_SESSIONS
    if instrument.calendar == ALWAYS:
        days = np.arange(low // _DAY * _DAY, high, _DAY, dtype=np.int64)
        return Sessions(np.array([low]), np.array([high]), days)
    parts = list(_decades(instrument.calendar, start - _SLACK, end + _SLACK))
    opens, closes, days = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("opens", "closes", "days")
    )
    inside = slice(np.searchsorted(closes, low, side="right"), np.searchsorted(opens, high, side="left"))
    dated = slice(np.searchsorted(days, low // _DAY * _DAY), np.searchsorted(days, high))
    return Sessions(np.maximum(opens[inside], listed), np.minimum(closes[inside], gone), days[dated])


def newest_due(instrument: Instrument, timeframe: Timeframe, before: datetime) -> datetime | None:
    """Return the open of the newest bar of a regular calendar that closes at or before an instant; aware UTC.

    Args:
        instrument: whose calendar to ask.
        timeframe: the bars' length.
        before: the instant, aware UTC.

    Returns:
        The open; None if the calendar knows of no session in the 20 years before, or the instrument was not listed yet.

    Raises:
        ConfigError: the instrument names an unknown calendar.
    """
    end = min(timeframe.floor(before), instrument.listing[1])
    for span in _LOOK_BACK:
        found = sessions(instrument, end - span, end)
        if timeframe is Timeframe.D1 and found.days.size:
            return from_micros(int(found.days[-1]))
        if timeframe is not Timeframe.D1 and found.opens.size:
            last = min(from_micros(int(found.closes[-1])), end)
            return timeframe.floor(last - _MICROSECOND)
    return None


def newest_owed(instrument: Instrument, timeframe: Timeframe, now: datetime, latency: timedelta) -> datetime | None:
    """Return the open of the newest bar that should be known by now, aware UTC; None as for `newest_due`.

    1h and 4h bars of an exchange are owed one length later: some providers' open at half past, with the session.

    Args:
        instrument: whose calendar to ask.
        timeframe: the bars' length.
        now: the present, aware UTC.
        latency: how long after its close a bar may come.

    Raises:
        ConfigError: the instrument names an unknown calendar.
    """
    off_the_clock = timeframe in _OFF_THE_CLOCK and instrument.calendar not in (ALWAYS, FOREX)
    return newest_due(instrument, timeframe, now - latency - (timeframe.step if off_the_clock else timedelta()))


def check_calendar(instrument: Instrument) -> None:
    """Check that the instrument's calendar exists.

    Raises:
        ConfigError: it does not; names the nearest that do.
    """
    name = instrument.calendar
    if name in (ALWAYS, FOREX):
        return
    known = _exchange_names()
    if name not in known:
        close = difflib.get_close_matches(name.upper(), known, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "for example XNYS"
        raise ConfigError(
            f"assets.{instrument.pair}.calendar: unknown calendar {name!r}; "
            f"use {ALWAYS}, {FOREX} or an exchange_calendars name: {hint}"
        )


def _overlaps(found: Sessions, at: _Micros, step: int) -> Mask:
    if found.opens.size == 0:
        return np.zeros(at.shape, dtype=np.bool_)
    following = np.searchsorted(found.closes, at, side="right")
    known = following < found.opens.size
    opens = found.opens[np.where(known, following, 0)]
    overlapping: Mask = known & (opens < at + step)
    return overlapping


def _decades(calendar: str, start: datetime, end: datetime) -> Iterator[Sessions]:
    """Yield the calendar's sessions decade by decade, so that what is loaded once serves every later question."""
    for decade in range(start.year // 10, end.year // 10 + 1):
        yield _forex_decade(decade) if calendar == FOREX else _exchange_decade(_resolved(calendar), decade)


@lru_cache(maxsize=64)
def _forex_decade(decade: int) -> Sessions:
    sunday = datetime(decade * 10, 1, 1, tzinfo=UTC).date()
    sunday += timedelta(days=(_SUNDAY - sunday.weekday()) % 7)
    opens, closes = [], []
    while sunday.year // 10 == decade:
        opens.append(_new_york(datetime.combine(sunday, _FOREX_TURN)))
        closes.append(_new_york(datetime.combine(sunday + timedelta(days=5), _FOREX_TURN)))
        sunday += timedelta(days=7)
    first = np.array(opens, dtype=np.int64)
    # Sunday to Friday, by date: the week's own six days.
    days = (first[:, None] // _DAY + np.arange(6)).ravel() * _DAY
    return Sessions(first, np.array(closes, dtype=np.int64), days)


def _new_york(local: datetime) -> int:
    return micros(local.replace(tzinfo=_NEW_YORK).astimezone(UTC))


@lru_cache(maxsize=1)
def _exchange_names() -> frozenset[str]:
    import exchange_calendars  # noqa: PLC0415 - slow to import

    return frozenset(exchange_calendars.get_calendar_names())


@lru_cache(maxsize=256)
def _resolved(name: str) -> str:
    """Return the one name behind aliases (XNAS keeps the hours of XNYS), so that a calendar is built once."""
    import exchange_calendars  # noqa: PLC0415 - slow to import

    return str(exchange_calendars.resolve_alias(name))


@lru_cache(maxsize=64)
def _exchange_decade(name: str, decade: int) -> Sessions:
    import exchange_calendars as xc  # noqa: PLC0415 - slow to import

    usual = xc.get_calendar(name)
    low, high = usual.bound_min(), usual.bound_max()
    first, last = f"{decade * 10}-01-01", f"{decade * 10 + 9}-12-31"
    first = first if low is None else max(first, f"{low:%Y-%m-%d}")
    last = last if high is None else min(last, f"{high:%Y-%m-%d}")
    if first > last:
        return _NO_SESSIONS
    try:
        schedule = xc.get_calendar(name, start=first, end=last).schedule
    except xc.errors.NoSessionsError:
        return _NO_SESSIONS
    return _from_schedule(schedule)


def _from_schedule(schedule: pd.DataFrame) -> Sessions:
    days = schedule.index.to_numpy().astype("datetime64[us]").astype(np.int64)
    opens, break_starts, break_ends, closes = (
        schedule[column].dt.tz_localize(None).to_numpy().astype("datetime64[us]")
        for column in ("open", "break_start", "break_end", "close")
    )
    lunch = ~np.isnat(break_starts)
    starts = np.concatenate([opens, break_ends[lunch]]).astype(np.int64)
    ends = np.concatenate([np.where(lunch, break_starts, closes), closes[lunch]]).astype(np.int64)
    order = np.argsort(starts, kind="stable")
    return Sessions(starts[order], ends[order], days)
