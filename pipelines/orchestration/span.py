"""Which range a scheduled run is about."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pipelines.errors import InvalidRangeError
from pipelines.intervals import Interval
from pipelines.timeframes import parse_instant


def span_of(params: Mapping[str, Any], logical_date: datetime | None, run_after: datetime) -> Interval:
    """Return the range of a run: as it was given, else the whole days before the day of the run.

    The day of a scheduled run and of a backfilled one is that of its logical date, so that running it again, whenever,
    is about the same days. A run started by hand has none, and is about the days before the present one.

    Args:
        params: the run's parameters: `start` and `end`, or `days`.
        logical_date: aware; None for a run started by hand.
        run_after: when the run was to begin, aware.

    Raises:
        InvalidRangeError: a time cannot be read, or the range is empty or inverted.
    """
    day = (logical_date or run_after).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    end = parse_instant(params["end"]) if params.get("end") else day
    start = parse_instant(params["start"]) if params.get("start") else end - timedelta(days=int(params["days"]))
    if start >= end:
        raise InvalidRangeError(f"the range is empty or inverted: {start.isoformat()} is not before {end.isoformat()}")
    return Interval(start, end)
