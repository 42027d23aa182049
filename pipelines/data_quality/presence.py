"""Which bars a lake holds and what its coverage says of them, as numpy arrays: what gaps are found from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.batch.coverage import CoverageMap
from pipelines.calendars import is_open
from pipelines.contracts import load_contracts
from pipelines.errors import UnknownAssetError
from pipelines.instruments import load_registry
from pipelines.intervals import Interval, IntervalSet
from pipelines.sources.base import MARKET_DATA
from pipelines.timeframes import EPOCH, Timeframe, from_micros, micros

if TYPE_CHECKING:
    from pipelines.batch.coverage import Series
    from pipelines.instruments import Instrument
    from pipelines.storage import DeltaLakeManager

Micros = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class BarSeries:
    """The bars of one asset pair and length."""

    asset_pair: str
    timeframe: Timeframe

    @property
    def instrument(self) -> Instrument:
        """The asset pair as registered; UnknownAssetError where it is not any more."""
        return load_registry().resolve(self.asset_pair)

    @property
    def key(self) -> Series:
        """The series in the coverage log."""
        return MARKET_DATA, self.asset_pair, self.timeframe.value

    @property
    def table(self) -> str:
        """The table that holds it."""
        return load_contracts()[MARKET_DATA].table_for(self.timeframe)


@dataclass(frozen=True, slots=True)
class Grid:
    """Every place of a span where a bar may be, in order; `opens` are int64 microseconds since the epoch, UTC.

    Attributes:
        opens: opens of the bars, without a break.
        expected: whether the calendar has a bar there.
        present: whether the lake has one.
    """

    opens: Micros
    expected: Mask
    present: Mask

    @property
    def missing(self) -> Mask:
        """Whether a bar is expected and not there."""
        return self.expected & ~self.present


def series_in(
    manager: DeltaLakeManager,
    coverage: CoverageMap,
    assets: Sequence[str] | None = None,
    timeframes: Sequence[Timeframe | str] | None = None,
) -> list[BarSeries]:
    """Return the series that a lake has rows or coverage of, by asset pair and length.

    Args:
        manager: the lake.
        coverage: its coverage.
        assets: only these asset pairs, in any spelling; None for all.
        timeframes: only these lengths; None for all.

    Raises:
        UnknownAssetError: the lake knows nothing of one of `assets`.
    """
    known = {
        BarSeries(pair, Timeframe(length)) for kind, pair, length in coverage.series() if kind == MARKET_DATA and length
    }
    for timeframe in Timeframe:
        table = load_contracts()[MARKET_DATA].table_for(timeframe)
        if manager.exists(table):
            known |= {BarSeries(pair, timeframe) for pair in manager.assets(table)}
    found = sorted(known, key=lambda each: (each.asset_pair, each.timeframe.seconds))
    if assets is not None:
        wanted = {load_registry().resolve(asset).pair for asset in assets}
        unknown = sorted(wanted - {each.asset_pair for each in found})
        if unknown:
            there = ", ".join(dict.fromkeys(each.asset_pair for each in found)) or "no bars at all"
            raise UnknownAssetError(
                f"the lake has no bars of {', '.join(unknown)}; it has {there}. Fetch them with `lakehouse backfill`"
            )
        found = [each for each in found if each.asset_pair in wanted]
    if timeframes is not None:
        lengths = {Timeframe(timeframe) for timeframe in timeframes}
        found = [each for each in found if each.timeframe in lengths]
    return found


def opens_of(manager: DeltaLakeManager, series: BarSeries, span: Interval | None, provider: str | None) -> Micros:
    """Return the opens of a series' rows, in microseconds since the epoch, UTC; more than one version may be there.

    Args:
        manager: the lake.
        series: which bars.
        span: only those that open in it; None for all.
        provider: only those of this one; None for all.
    """
    if not manager.exists(series.table):
        return np.array([], dtype=np.int64)
    rows = manager.read_arrow(
        series.table,
        span.start if span else None,
        span.end if span else None,
        [series.asset_pair],
        ["timestamp"] if provider is None else ["timestamp", "provider"],
    )
    if provider is not None:
        rows = rows.filter(pc.equal(rows["provider"], provider))
    found: Micros = rows["timestamp"].cast(pa.int64()).to_numpy()
    return found


def known_span(series: BarSeries, opens: Micros, covered: IntervalSet) -> Interval:
    """Return the span from the first to the last instant that rows or coverage know of; empty for none."""
    edges = [(part.start, part.end) for part in covered]
    if opens.size:
        first, last = (from_micros(int(edge)) for edge in (opens.min(), opens.max()))
        edges.append((first, last + series.timeframe.step))
    if not edges:
        return Interval(EPOCH, EPOCH)
    return Interval(min(start for start, _ in edges), max(end for _, end in edges))


def grid(series: BarSeries, span: Interval, opens: Micros) -> Grid:
    """Lay a series' bars on the grid of a span.

    Raises:
        ConfigError: the instrument names an unknown calendar.
    """
    step = series.timeframe.seconds * 1_000_000
    first, end = (micros(series.timeframe.ceil(edge)) for edge in (span.start, span.end))
    places = np.arange(first, end, step, dtype=np.int64)
    present = np.zeros(places.size, dtype=np.bool_)
    present[(opens[(opens >= first) & (opens < end)] - first) // step] = True
    return Grid(places, is_open(series.instrument, series.timeframe, places.astype("datetime64[us]")), present)


def inside(instants: Micros, parts: Iterable[Interval]) -> Mask:
    """Say of each instant whether it lies in one of sorted, disjoint intervals."""
    edges = [(micros(part.start), micros(part.end)) for part in parts]
    if not edges:
        return np.zeros(instants.size, dtype=np.bool_)
    starts, ends = (np.array(edge, dtype=np.int64) for edge in zip(*edges, strict=True))
    place = np.searchsorted(starts, instants, side="right") - 1
    found: Mask = (place >= 0) & (instants < ends[np.maximum(place, 0)])
    return found
