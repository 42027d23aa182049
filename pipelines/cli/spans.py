"""The span of event time that a command looks at, as its options say it."""

from __future__ import annotations

from datetime import datetime, timedelta

from pipelines.errors import ConfigError, InvalidRangeError
from pipelines.intervals import Interval
from pipelines.timeframes import parse_instant, utc_now


def asked_span(days: int | None, start: str | None, end: str | None, now: datetime | None = None) -> Interval | None:
    """Return the span that --days, or --start and --end, ask for; None where none of them is given.

    Args:
        days: so many times 24 hours up to now.
        start: an ISO date or time; a bare date is 00:00 UTC.
        end: the same, exclusive; now by default.
        now: the present, aware UTC.

    Raises:
        ConfigError: the options contradict each other.
        InvalidRangeError: a time cannot be read, or the span is empty or inverted.
    """
    present = now or utc_now()
    if days is not None:
        if start or end:
            raise ConfigError("give either --days or --start and --end, not both")
        return Interval(present - timedelta(days=days), present)
    if start is None:
        if end is not None:
            raise ConfigError("--end needs a --start")
        return None
    first, last = parse_instant(start), parse_instant(end) if end else present
    if first >= last:
        raise InvalidRangeError(f"the span is empty: {first.isoformat()} is not before {last.isoformat()}")
    return Interval(first, last)
