"""Times as files spell them, to UTC microseconds: ISO text, epoch numbers, zoned and zoneless timestamps, dates."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

_INSTANT = pa.timestamp("us", "UTC")
_ZONELESS = pa.timestamp("us")
_DATE_LENGTH = 10
# Upper bounds of |value| for seconds, milliseconds and microseconds; what is larger is nanoseconds.
_SECONDS, _MILLIS, _MICROS = 1e11, 1e14, 1e17
# Integers like 20240102 are dates, not seconds of August 1970.
_FIRST_DATE, _LAST_DATE = 19_000_101, 21_001_231
_COMPACT_DATE = "{} looks like a date without separators; write 2024-01-02 or an epoch time"
_CLOCK_CHANGE = "does not exist or happens twice in {} (clock change)"


def read_times(values: pa.Array, tz: str | None, *, bare_dates: bool) -> tuple[pa.Array, pa.Array | None]:
    """Return instants and each row's defect, if any row has one.

    Args:
        values: one batch's times as text, integers or floats (epoch s, ms, us or ns by magnitude), timestamps or dates.
        tz: IANA zone of zoneless times. Without it a wholly zoneless column stays so, for the edge to refuse.
        bare_dates: whether a date without a time is its UTC day, whatever the zone, as daily bars are labelled.
    """
    kind, is_a = values.type, pa.types
    if is_a.is_date(kind):
        values, tz = values.cast(pa.timestamp("ms")), "UTC" if bare_dates else tz
    if is_a.is_timestamp(values.type):
        return _timestamps(values, tz)
    if is_a.is_integer(kind):
        return _epoch(values.cast(pa.int64(), safe=False))
    if is_a.is_floating(kind) or is_a.is_decimal(kind):
        return _epoch(values.cast(pa.float64()))
    if is_a.is_string(kind) or is_a.is_large_string(kind):
        return _text(values.cast(pa.string()), tz, bare_dates=bare_dates)
    # Neither a time nor text: the edge says so, row by row.
    return values.cast(_INSTANT) if is_a.is_null(kind) else values, None


def _timestamps(values: pa.Array, tz: str | None) -> tuple[pa.Array, pa.Array | None]:
    if values.type.tz is not None:
        return values.cast(_INSTANT, safe=False), None
    zoneless = values.cast(_ZONELESS, safe=False)
    if tz is None:
        return zoneless, None
    if tz == "UTC":
        return zoneless.view(_INSTANT), None
    local = pl.Series(zoneless).dt.replace_time_zone(tz, ambiguous="null", non_existent="null")
    instants = local.dt.convert_time_zone("UTC").to_arrow().cast(_INSTANT)
    lost = pc.and_(pc.is_null(instants), pc.is_valid(zoneless))
    if not pc.any(lost).as_py():
        return instants, None
    reason = pc.binary_join_element_wise(zoneless.cast(pa.string()), pa.scalar(_CLOCK_CHANGE.format(tz)), " ")
    return instants, _where(lost, reason)


def _epoch(values: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    present = pc.is_valid(values)
    if pa.types.is_floating(values.type):
        present = pc.and_(present, pc.is_finite(values).fill_null(False))
    numbers = values.fill_null(0).to_numpy(zero_copy_only=False)
    size = np.abs(np.where(present.to_numpy(zero_copy_only=False), numbers, 0))
    micros = np.select(
        [size < _SECONDS, size < _MILLIS, size < _MICROS],
        [_scaled(numbers, size < _SECONDS, 1_000_000), _scaled(numbers, size < _MILLIS, 1_000), _whole(numbers)],
        _whole(numbers // 1_000),
    )
    compact = pa.array((size >= _FIRST_DATE) & (size <= _LAST_DATE))
    good = pc.and_(present, pc.invert(compact))
    instants = pc.if_else(good, pa.array(micros).view(_INSTANT), pa.scalar(None, _INSTANT))
    wrong = pc.and_(pc.is_valid(values), pc.invert(good))
    if not pc.any(wrong).as_py():
        return instants, None
    reasons = [
        None if fine else _COMPACT_DATE.format(number)
        for fine, number in zip(pc.invert(wrong).to_pylist(), values.to_pylist(), strict=True)
    ]
    return instants, pa.array(reasons, pa.string())


def _scaled(numbers: npt.NDArray[np.generic], mask: npt.NDArray[np.bool_], factor: int) -> npt.NDArray[np.int64]:
    """Scale only what is in range, so that the rest cannot overflow."""
    return _whole(np.where(mask, numbers, 0) * factor)


def _whole(numbers: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    if np.issubdtype(numbers.dtype, np.floating):
        numbers = np.rint(np.nan_to_num(numbers, nan=0.0, posinf=0.0, neginf=0.0))
    whole: npt.NDArray[np.int64] = numbers.astype(np.int64)
    return whole


def _text(values: pa.Array, tz: str | None, *, bare_dates: bool) -> tuple[pa.Array, pa.Array | None]:
    instants = _cast(values, _INSTANT)
    if instants is not None:
        return instants, None
    zoneless = _cast(values, _ZONELESS)
    if zoneless is not None:
        bare = pc.equal(pc.utf8_length(values), _DATE_LENGTH)
        if not bare_dates or not pc.any(bare).as_py():
            return _timestamps(zoneless, tz)
        if pc.all(bare).as_py():
            return _timestamps(zoneless, "UTC")
    for kind in (pa.int64(), pa.float64()):
        numbers = _cast(values, kind)
        if numbers is not None:
            return _epoch(numbers)
    return _one_by_one(values, tz, bare_dates=bare_dates)


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array | None:
    try:
        return values.cast(kind)
    except pa.ArrowInvalid:
        return None


def _one_by_one(values: pa.Array, tz: str | None, *, bare_dates: bool) -> tuple[pa.Array, pa.Array | None]:
    """Read times of mixed or broken spelling, so that a bad one spoils only its row."""
    zone = ZoneInfo(tz) if tz else None
    instants: list[datetime | None] = []
    defects: list[str | None] = []
    for value in values.to_pylist():
        instant, defect = (None, None) if value is None else _one(value.strip(), zone, bare_dates=bare_dates)
        instants.append(instant)
        defects.append(defect)
    found = any(defect is not None for defect in defects)
    return pa.array(instants, _INSTANT), pa.array(defects, pa.string()) if found else None


def _one(text: str, zone: ZoneInfo | None, *, bare_dates: bool) -> tuple[datetime | None, str | None]:
    number = _number(text)
    if number is not None:
        read, defects = _epoch(pa.array([number]))
        return read[0].as_py(), defects[0].as_py() if defects is not None else None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None, f"unreadable timestamp {text[:80]!r}"
    if parsed.tzinfo is None and bare_dates and len(text) == _DATE_LENGTH:
        parsed = parsed.replace(tzinfo=UTC)
    if parsed.tzinfo is None and zone is None:
        return None, f"timestamp {text!r} has no time zone"
    if parsed.tzinfo is None:
        early, late = (parsed.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
        if early.utcoffset() != late.utcoffset():
            return None, f"{text} {_CLOCK_CHANGE.format(zone)}"
        parsed = early
    return parsed.astimezone(UTC), None


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        return number if abs(number) < 2**63 else None
    return None


def _where(mask: pa.Array, reason: pa.Array) -> pa.Array:
    return pc.if_else(mask, reason, pa.scalar(None, pa.string()))
