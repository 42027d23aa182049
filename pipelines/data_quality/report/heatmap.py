"""The completeness heat map: one row per asset, one cell per day, as plain SVG that needs no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.data_quality.gaps import DayCount, SeriesGaps

# Lower bounds of the classes, best first; a day is in the first whose bound it reaches.
CLASSES: tuple[tuple[float, str, str], ...] = (
    (1.0, "whole", "100 %"),
    (0.99, "most", "99 % and more"),
    (0.9, "much", "90 % and more"),
    (0.5, "half", "50 % and more"),
    (0.0, "little", "less than 50 %"),
)
NOTHING = "none"
CLOSED = "closed"
_LONGEST_CELL, _SHORTEST_CELL, _WIDEST = 22, 4, 900


@dataclass(frozen=True, slots=True)
class Cell:
    """One asset's day: its place in pixels, its class, and what is said of it."""

    x: int
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """One asset."""

    asset_pair: str
    y: int
    completeness: float
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """A label of the time axis."""

    x: int
    text: str


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A timeframe's map; sizes in pixels."""

    timeframe: str
    rows: tuple[Row, ...]
    marks: tuple[Mark, ...]
    cell: int
    width: int
    height: int


def heat_maps(series: Sequence[SeriesGaps]) -> list[HeatMap]:
    """Return a map for each timeframe, the finest first, over the days that any of its assets was looked at."""
    frames = sorted({each.timeframe for each in series}, key=lambda frame: frame.seconds)
    maps = [_heat_map([each for each in series if each.timeframe is frame]) for frame in frames]
    return [found for found in maps if found is not None]


def class_of(expected: int, present: int) -> str:
    """Return the class of a day: closed without expected bars, none without any of them."""
    if not expected:
        return CLOSED
    if not present:
        return NOTHING
    return next(name for bound, name, _ in CLASSES if present / expected >= bound)


def _heat_map(series: Sequence[SeriesGaps]) -> HeatMap | None:
    known = [day.day for each in series for day in each.days]
    if not known:
        return None
    first, last = min(known), max(known)
    count = (last - first).days + 1
    cell = max(_SHORTEST_CELL, min(_LONGEST_CELL, _WIDEST // count))
    rows = tuple(_row(each, place, first, cell) for place, each in enumerate(sorted(series, key=_name)))
    marks = tuple(_marks(first, count, cell))
    return HeatMap(series[0].timeframe.value, rows, marks, cell, count * cell, len(rows) * _LONGEST_CELL)


def _name(series: SeriesGaps) -> str:
    return series.asset_pair


def _row(series: SeriesGaps, place: int, first: date, cell: int) -> Row:
    by_day = {each.day: each for each in series.days}
    span = range((max(by_day) - first).days + 1) if by_day else range(0)
    start = (min(by_day) - first).days if by_day else 0
    cells = tuple(
        _cell(series.asset_pair, first + timedelta(days=number), by_day, number * cell)
        for number in span
        if number >= start
    )
    return Row(series.asset_pair, place * _LONGEST_CELL, series.completeness, cells)


def _cell(asset_pair: str, day: date, by_day: dict[date, DayCount], x: int) -> Cell:
    found = by_day.get(day)
    if found is None:
        return Cell(x, CLOSED, f"{asset_pair} {day}: market closed")
    said = f"{found.present:,} of {found.expected:,} bars"
    return Cell(x, class_of(found.expected, found.present), f"{asset_pair} {day}: {said}")


def _marks(first: date, count: int, cell: int) -> list[Mark]:
    """Label the first day, and then days far enough apart for their dates to be read."""
    apart = max(1, -(-70 // cell))
    return [Mark(number * cell, str(first + timedelta(days=number))) for number in range(0, count, apart)]
