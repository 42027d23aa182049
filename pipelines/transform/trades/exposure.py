"""How long a book was exposed on each day: the union of the times its lots were open."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, timedelta

import pyarrow as pa

from pipelines.transform.trades.spec import EXPOSED

_SECOND = 1_000_000
_DAY = 86_400 * _SECOND


def exposed_days(intervals: pa.Table) -> pa.Table:
    """Return how many seconds of each UTC day lie in at least one interval.

    Args:
        intervals: `EXPOSURE`, half-open, in any order; they may overlap.

    Returns:
        `EXPOSED`, by day; days without exposure have no row.
    """
    ordered = intervals.sort_by("opened_at")
    spans = zip(*(ordered[name].cast(pa.int64()).to_pylist() for name in ("opened_at", "closed_at")), strict=True)
    exposed: dict[int, int] = {}
    for start, end in _union(spans):
        for day in range(start // _DAY, -(-end // _DAY)):
            exposed[day] = exposed.get(day, 0) + min(end, (day + 1) * _DAY) - max(start, day * _DAY)
    days = [date(1970, 1, 1) + timedelta(days=day) for day in exposed]
    return pa.table([pa.array(days, pa.date32()), [micros / _SECOND for micros in exposed.values()]], schema=EXPOSED)


def _union(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Join spans, which come by their start, where they touch or overlap; empty ones are left out."""
    start = end = None
    for low, high in spans:
        if high <= low:
            continue
        if start is None or end is None:
            start, end = low, high
        elif low <= end:
            end = max(end, high)
        else:
            yield start, end
            start, end = low, high
    if start is not None and end is not None:
        yield start, end
