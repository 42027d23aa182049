"""The six bar timeframes and UTC time parsing."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum

from pipelines.errors import InvalidRangeError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Timeframe(StrEnum):
    """A bar length; bars are aligned to the Unix epoch in UTC and named by their open."""

    M1 = "1m"
    M5 = "5m"
    M15 = "15m"
    H1 = "1h"
    H4 = "4h"
    D1 = "1d"

    @property
    def step(self) -> timedelta:
        """The bar's length."""
        return _STEPS[self]

    @property
    def seconds(self) -> int:
        """The bar's length in seconds."""
        return int(self.step.total_seconds())

    def floor(self, instant: datetime) -> datetime:
        """Return the open of the bar that holds `instant` (aware UTC)."""
        return instant - (instant - EPOCH) % self.step

    def ceil(self, instant: datetime) -> datetime:
        """Return the first bar open at or after `instant` (aware UTC)."""
        return instant + (EPOCH - instant) % self.step

    def bars_between(self, start: datetime, end: datetime) -> int:
        """Return how many bars open in [start, end), both aware UTC."""
        return max(0, (self.ceil(end) - self.ceil(start)) // self.step)


_STEPS = {
    Timeframe.M1: timedelta(minutes=1),
    Timeframe.M5: timedelta(minutes=5),
    Timeframe.M15: timedelta(minutes=15),
    Timeframe.H1: timedelta(hours=1),
    Timeframe.H4: timedelta(hours=4),
    Timeframe.D1: timedelta(days=1),
}


def utc_now() -> datetime:
    """Return the current instant, aware UTC."""
    return datetime.now(UTC)


def parse_instant(value: str | date | datetime) -> datetime:
    """Parse a user's instant to aware UTC; a bare date is 00:00 UTC and a zoneless time is taken as UTC.

    Raises:
        InvalidRangeError: the text is not ISO 8601.
    """
    if isinstance(value, datetime):
        parsed = value
    elif isinstance(value, date):
        parsed = datetime.combine(value, time())
    else:
        try:
            parsed = datetime.fromisoformat(value.strip())
        except ValueError as error:
            raise InvalidRangeError(
                f"{value!r} is not a date or time; write 2025-12-07 or 2025-12-07T14:30:00Z"
            ) from error
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def micros(instant: datetime) -> int:
    """Return an instant (aware) in microseconds since the epoch."""
    return (instant - EPOCH) // _MICROSECOND


def from_micros(count: int) -> datetime:
    """Return the instant, aware UTC, that is so many microseconds after the epoch."""
    return EPOCH + timedelta(microseconds=count)
