"""What sources of timed rows share: which part of a window has closed, and instants as providers spell them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import UnsupportedError
from pipelines.instruments import Instrument
from pipelines.intervals import Interval
from pipelines.sources.base import Page, Window, empty_bars, raw_table
from pipelines.timeframes import Timeframe

_INSTANT = pa.timestamp("us", "UTC")
_MICROSECONDS = 1_000_000


def bar_window(window: Window) -> tuple[Instrument, Timeframe]:
    """Return the instrument and timeframe of a window of bars.

    Raises:
        UnsupportedError: the window is not one of bars.
    """
    if window.instrument is None or window.timeframe is None:
        raise UnsupportedError(f"{window.dataset} for {window.subject} needs an instrument and a timeframe")
    return window.instrument, window.timeframe


def closed_part(window: Window, timeframe: Timeframe, now: datetime) -> Interval:
    """Return the part of a window whose bars have closed by `now`; empty, at the window's start, if there is none."""
    return Interval(window.start, max(window.start, min(window.end, timeframe.floor(now))))


def bar_page(columns: Mapping[str, Sequence[object]], covered: Interval) -> Page:
    """Make a page of the rows that lie in `covered`.

    Args:
        columns: contract columns; `timestamp` as Unix seconds or as ISO 8601 text with an offset. A value that is
            neither stays as text, and its row stays too, for the edge to refuse.
        covered: what the answer vouches for.
    """
    times = instants(columns["timestamp"])
    if not len(times):
        return Page(empty_bars(), covered)
    table = raw_table({name: values for name, values in columns.items() if name != "timestamp"})
    table = table.add_column(0, "timestamp", times)
    return Page(table.filter(rows_inside(times, covered)), covered)


def instants(values: Sequence[object]) -> pa.Array:
    """Return instants as timestamps in UTC, or as text where one of them cannot be read."""
    try:
        array = pa.array(values)
        if pa.types.is_integer(array.type):
            return pc.multiply_checked(array.cast(pa.int64()), _MICROSECONDS).cast(_INSTANT)
        # Nanoseconds first: some providers write nine decimals.
        return array.cast(pa.string()).cast(pa.timestamp("ns", "UTC")).cast(_INSTANT)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return pa.array([_as_text(value) for value in values], pa.string())


def days(values: Sequence[object]) -> pa.Array:
    """Return ISO dates as dates, or as text where one of them cannot be read."""
    texts = pa.array([None if value is None else str(value) for value in values], pa.string())
    try:
        return texts.cast(pa.date32())
    except pa.ArrowInvalid:
        return texts


def _as_text(value: object) -> str | None:
    if value is None:
        return None
    moment = _moment(value)
    return str(value) if moment is None else moment.isoformat()


def _moment(value: object) -> datetime | None:
    try:
        if isinstance(value, int) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        moment = datetime.fromisoformat(str(value))
    except (ValueError, OverflowError, OSError):
        return None
    return moment.astimezone(UTC) if moment.tzinfo else None


def rows_inside(times: pa.Array | pa.ChunkedArray, covered: Interval) -> pa.Array:
    """Mark the rows to keep: those in `covered`, and those whose time cannot be read, for the edge to refuse."""
    if pa.types.is_timestamp(times.type):
        start, end = (pa.scalar(bound, _INSTANT) for bound in (covered.start, covered.end))
        inside = pc.and_(pc.greater_equal(times, start), pc.less(times, end))
        return pc.fill_null(inside, True)
    return pa.array(_keep(times.to_pylist(), covered))


def _keep(times: Iterable[str | None], covered: Interval) -> list[bool]:
    moments = [None if text is None else _moment(text) for text in times]
    return [moment is None or moment in covered for moment in moments]
