"""How often a provider may be asked: a token bucket for the pace and a daily quota.

`aiolimiter` is not used: its bucket belongs to one event loop, while a client here outlives several `asyncio.run` calls
and is shared with the threads that vendor packages run in.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from pipelines.errors import QuotaExhaustedError
from pipelines.timeframes import Timeframe, utc_now


class TokenBucket:
    """A bucket of `burst` tokens refilled evenly at `per_minute`; safe across event loops and threads.

    A caller reserves the next free slot under a lock and then sleeps until it comes, so waiting is first come, first
    served and nothing is bound to an event loop.
    """

    def __init__(self, per_minute: float, burst: int = 1, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 60.0 / per_minute
        self._slack = (burst - 1) * self._interval
        self._clock = clock
        self._lock = threading.Lock()
        self._next = clock() - self._slack

    def reserve(self) -> float:
        """Take the next slot and return the seconds to wait for it."""
        with self._lock:
            now = self._clock()
            slot = max(self._next, now - self._slack)
            self._next = slot + self._interval
            return max(0.0, slot - now)

    def hold(self, seconds: float) -> None:
        """Give out no new slot for that long: the provider asked everyone to wait, not only who was told."""
        with self._lock:
            self._next = max(self._next, self._clock() + seconds)

    async def acquire(self) -> None:
        """Wait for a slot without blocking the event loop."""
        wait = self.reserve()
        if wait > 0:
            await asyncio.sleep(wait)


class DailyQuota:
    """At most `per_day` requests in a UTC day, counted in this process; None is unlimited."""

    def __init__(self, name: str, per_day: int | None, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._name = name
        self._per_day = per_day
        self._clock = clock
        self._lock = threading.Lock()
        self._day = Timeframe.D1.floor(clock())
        self._used = 0

    @property
    def used(self) -> int:
        """Requests counted since 00:00 UTC."""
        return self._used

    def take(self) -> None:
        """Count one request.

        Raises:
            QuotaExhaustedError: the day's requests are used up; says when the quota resets.
        """
        if self._per_day is None:
            return
        with self._lock:
            today = Timeframe.D1.floor(self._clock())
            if today != self._day:
                self._day, self._used = today, 0
            if self._used >= self._per_day:
                resets = (today + timedelta(days=1)).isoformat()
                raise QuotaExhaustedError(
                    f"{self._name}: the daily quota of {self._per_day} requests is used up; it resets at {resets}"
                )
            self._used += 1
