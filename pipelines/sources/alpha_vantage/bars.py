"""Turns Alpha Vantage's time series into a page of bars in UTC, and says what that page vouches for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pipelines.errors import MalformedAnswerError
from pipelines.intervals import Interval
from pipelines.sources.bars import bar_page, bar_window, closed_part
from pipelines.sources.base import Page, Window
from pipelines.timeframes import Timeframe

_PRICES = ("open", "high", "low", "close")
# "1. open", or "1a. open (EUR)" beside "1b. open (USD)" in older crypto answers: "a" is the market asked for.
_FIELD = re.compile(r"\d+a?\. (open|high|low|close|volume)\b")
# Equity months are published with a delay, so that the end of a recent month may not be complete yet.
_PUBLISHED_AFTER = timedelta(days=2)


def bars_page(window: Window, series: object, meta: object, now: datetime, whole: Interval | None = None) -> Page:
    """Return the closed bars of an answer that lie in the window.

    A time that its zone's clock change makes ambiguous or impossible stays zoneless text: nobody can say which instant
    it is, so the edge validation refuses that row.

    Args:
        window: what was asked for.
        series: the answer's bars: {"2025-03-10 09:30:00": {"1. open": "…", …}, …}.
        meta: the answer's "Meta Data", which names the time zone.
        now: aware UTC.
        whole: the span that the answer is complete for, as documented (an equity month); None: only from its oldest
            to its newest bar.

    Raises:
        MalformedAnswerError: not the documented shape, or a time zone nobody knows.
    """
    _, timeframe = bar_window(window)
    if not isinstance(series, dict) or not isinstance(meta, dict):
        raise MalformedAnswerError("alpha_vantage: the time series or its metadata is not an object")
    zone = UTC if timeframe is Timeframe.D1 else _zone(meta)
    names = _names(series)
    opens: list[datetime] = []
    times: list[str] = []
    rows: list[Mapping[str, object]] = []
    for text, row in sorted(series.items()):
        if not isinstance(row, dict):
            raise MalformedAnswerError("alpha_vantage: a bar is not an object")
        instant, known = _instant(text, zone, timeframe)
        if instant is not None and known and instant <= now:
            opens.append(instant)
        if instant is None or instant in window.interval:
            times.append(instant.isoformat() if instant is not None and known else text)
            rows.append(row)
    columns = {name: [row.get(key) for row in rows] for name, key in names.items()}
    return bar_page({"timestamp": times, **columns}, _covered(window, timeframe, sorted(opens), now, whole))


def _zone(meta: Mapping[str, object]) -> ZoneInfo:
    name = next((value for key, value in meta.items() if key.endswith("Time Zone")), None)
    try:
        return ZoneInfo(str(name))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise MalformedAnswerError(f"alpha_vantage: unknown time zone {name!r} in the metadata") from None


def _names(series: Mapping[str, object]) -> dict[str, str]:
    """Map our column names to the answer's own; volume is absent from forex and maps to no key."""
    first = next(iter(series.values()), None)
    found = {match[1]: key for key in first if (match := _FIELD.match(key))} if isinstance(first, dict) else {}
    missing = [name for name in _PRICES if name not in found]
    if series and missing:
        raise MalformedAnswerError(f"alpha_vantage: bars without {', '.join(missing)}")
    return {name: found.get(name, "") for name in (*_PRICES, "volume")}


def _instant(text: str, zone: tzinfo, timeframe: Timeframe) -> tuple[datetime | None, bool]:
    """Return a bar's open in UTC (None if unreadable) and whether its wall time names that one instant only."""
    try:
        local = datetime.fromisoformat(text).replace(tzinfo=zone)
        if timeframe is Timeframe.D1:
            local = local.replace(hour=0, minute=0, second=0)
        return local.astimezone(UTC), local.utcoffset() == local.replace(fold=1).utcoffset()
    except (ValueError, OverflowError):
        return None, False


def _covered(
    window: Window, timeframe: Timeframe, opens: list[datetime], now: datetime, whole: Interval | None
) -> Interval:
    """Return the part of the window that the answer vouches for."""
    nothing = Interval(window.start, window.start)
    settled = whole is not None and whole.end + _PUBLISHED_AFTER <= now
    if not opens and not settled:
        return nothing
    start = whole.start if whole is not None else opens[0]
    end = whole.end if whole is not None and settled else opens[-1] + timeframe.step
    # A bar of the regular session may be off the hour, so that the floor alone would vouch for one still open.
    still_open = (instant for instant in opens if instant + timeframe.step > now)
    start = max(start, window.start)
    end = min(end, closed_part(window, timeframe, now).end, *still_open)
    return Interval(start, end) if start < end else nothing
