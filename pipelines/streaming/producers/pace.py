"""When a message is due: as fast as its events went, so many times faster, so many a second, or at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from pipelines.errors import ConfigError

MAX = "max"


@dataclass(slots=True)
class Pace:
    """Tells the seconds from the first message to each next one.

    `speed` is event time over real time, `rate` messages a second; neither means as fast as they go.
    """

    speed: float | None = None
    rate: float | None = None
    _first: datetime | None = None
    _count: int = 0

    @property
    def is_timed(self) -> bool:
        """Whether messages are due at a time, not just as soon as they can be sent."""
        return self.rate is not None or self.speed is not None

    def due(self, event_time: datetime) -> float:
        """Return when the next message is due, with its event time (aware UTC); an event out of order is due at once.

        Counts the messages it is asked about.
        """
        if self._first is None:
            self._first = event_time
        self._count += 1
        if self.rate is not None:
            return (self._count - 1) / self.rate
        if self.speed is not None:
            return (event_time - self._first).total_seconds() / self.speed
        return 0.0

    def length(self, messages: int, first: datetime | None, last: datetime | None) -> float | None:
        """Return the seconds that so many messages between two event times take; None where only the machine says."""
        if self.rate is not None:
            return messages / self.rate
        if self.speed is None or first is None or last is None:
            return None
        return (last - first).total_seconds() / self.speed

    def __str__(self) -> str:
        if self.rate is not None:
            return f"{self.rate:g} messages/s"
        return "as fast as they go" if self.speed is None else f"{self.speed:g}x event time"


def pace_of(speed: str | None, rate: float | None) -> Pace:
    """Return the pace that --speed (as 10x, 0.5x or max) or --rate asks for; event time itself where neither is given.

    Raises:
        ConfigError: both are given, or the speed is none.
    """
    if rate is not None:
        if speed is not None:
            raise ConfigError("give either --speed or --rate, not both")
        return Pace(rate=rate)
    if speed is None:
        return Pace(speed=1.0)
    if speed.strip().lower() == MAX:
        return Pace()
    try:
        times = float(speed.strip().lower().removesuffix("x"))
    except ValueError:
        times = math.nan
    if not (math.isfinite(times) and times > 0):
        raise ConfigError(f"--speed {speed!r}: write for example 1x, 60x, 0.5x or max")
    return Pace(speed=times)
