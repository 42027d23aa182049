"""Half-open time intervals and sets of them: the algebra behind coverage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, order=True)
class Interval:
    """A half-open span [start, end) of aware UTC instants.

    Raises:
        ValueError: a bound is zoneless, or end is before start.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ValueError("an interval needs time-zone-aware bounds")
        if self.end < self.start:
            raise ValueError(f"inverted interval: {self.start.isoformat()} is after {self.end.isoformat()}")

    def __bool__(self) -> bool:
        return self.end > self.start

    def __contains__(self, instant: datetime) -> bool:
        return self.start <= instant < self.end

    @property
    def length(self) -> timedelta:
        """The time from start to end."""
        return self.end - self.start


class IntervalSet:
    """An immutable, normalised set of disjoint, non-touching, sorted intervals."""

    __slots__ = ("_parts",)

    def __init__(self, intervals: Iterable[Interval] = ()) -> None:
        self._parts = tuple(_merge(intervals))

    def __iter__(self) -> Iterator[Interval]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __bool__(self) -> bool:
        return bool(self._parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IntervalSet) and self._parts == other._parts

    def __hash__(self) -> int:
        return hash(self._parts)

    def __repr__(self) -> str:
        spans = ", ".join(f"{part.start.isoformat()}..{part.end.isoformat()}" for part in self._parts)
        return f"IntervalSet({spans})"

    def __contains__(self, instant: datetime) -> bool:
        return any(instant in part for part in self._parts)

    def __or__(self, other: IntervalSet) -> IntervalSet:
        return IntervalSet((*self._parts, *other._parts))

    def __and__(self, other: IntervalSet) -> IntervalSet:
        return self - (self - other)

    def __sub__(self, other: IntervalSet) -> IntervalSet:
        return IntervalSet(_subtract(self._parts, other._parts))

    @property
    def length(self) -> timedelta:
        """The total time covered."""
        return sum((part.length for part in self._parts), timedelta())


def _merge(intervals: Iterable[Interval]) -> Iterator[Interval]:
    current: Interval | None = None
    for part in sorted(part for part in intervals if part):
        if current is None:
            current = part
        elif part.start <= current.end:
            current = Interval(current.start, max(current.end, part.end))
        else:
            yield current
            current = part
    if current is not None:
        yield current


def _subtract(parts: tuple[Interval, ...], holes: tuple[Interval, ...]) -> Iterator[Interval]:
    """Yield what of sorted `parts` lies outside sorted `holes`, in one pass over both."""
    first = 0
    for part in parts:
        start = part.start
        while first < len(holes) and holes[first].end <= start:
            first += 1
        index = first
        while index < len(holes) and holes[index].start < part.end:
            if holes[index].start > start:
                yield Interval(start, holes[index].start)
            start = max(start, holes[index].end)
            index += 1
        if start < part.end:
            yield Interval(start, part.end)
