"""The one retry policy: which failures may pass by themselves and how long to wait for it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pipelines.errors import SourceUnavailableError
from pipelines.timeframes import utc_now

_SYSTEM_RANDOM = random.SystemRandom()


class RateLimitedError(SourceUnavailableError):
    """The provider wants to be left alone for a while; `retry_after` is for how many seconds, if it says so."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with full jitter; what the provider asks for wins, up to a cap. Times in seconds."""

    max_retries: int
    backoff_seconds: float
    backoff_cap_seconds: float
    max_retry_after_seconds: float
    uniform: Callable[[float, float], float] = field(default=_SYSTEM_RANDOM.uniform)

    def delay(self, tries: int, asked: float | None = None) -> float:
        """Return the wait after the given number of failed tries (1 is the first)."""
        if asked is not None:
            return min(asked, self.max_retry_after_seconds)
        # 2**63 is far past any cap and keeps the power from overflowing a float.
        ceiling = min(self.backoff_cap_seconds, self.backoff_seconds * 2.0 ** min(tries - 1, 63))
        return self.uniform(0.0, ceiling)


def parse_retry_after(value: str | None, clock: Callable[[], datetime] = utc_now) -> float | None:
    """Return the seconds a Retry-After header (delta seconds or HTTP date) asks for; None if absent or unreadable."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - clock()).total_seconds())
