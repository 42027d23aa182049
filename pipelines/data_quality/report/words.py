"""Figures and times as the report's page says them."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def share(part: float) -> str:
    """Return 0.99999 as 99.99 %: only what is whole is shown as whole."""
    return f"{math.floor(part * 10_000 + 1e-9) / 100:.2f} %".replace(".00 %", " %")


def moment(instant: datetime | None) -> str:
    """Return a time in UTC to the minute, a dash for none."""
    return instant.strftime("%Y-%m-%d %H:%M") if instant else "-"


def lasting(time: timedelta) -> str:
    """Return how long something took, in its two largest units."""
    seconds = int(time.total_seconds())
    if seconds < _MINUTE:
        return f"{seconds} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE} min"
    if seconds < _DAY:
        return f"{seconds // _HOUR} h {seconds % _HOUR // _MINUTE} min"
    return f"{seconds // _DAY} d {seconds % _DAY // _HOUR} h"


def basis_points(value: float | None) -> str:
    """Return a deviation in basis points, a dash for none."""
    return "-" if value is None else f"{value:,.2f}"


def price(value: float | None) -> str:
    """Return a price with its own digits, a dash for none."""
    return "-" if value is None else f"{value:,.10g}"
