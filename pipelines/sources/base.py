"""What a source is: it declares what it can serve and how one window of it is fetched."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from pipelines.intervals import Interval
from pipelines.timeframes import Timeframe

if TYPE_CHECKING:
    from pipelines.instruments import AssetClass, Instrument

MARKET_DATA = "raw_market_data"


@dataclass(frozen=True, slots=True)
class Window:
    """One request's worth of a dataset: rows whose event time lies in [start, end), aware UTC.

    `subject` is what is asked for: an asset pair for bars, a series id for macro data, an asset pair for news.
    `instrument` is set where the subject is an asset pair; `timeframe` only for bars.
    """

    dataset: str
    subject: str
    start: datetime
    end: datetime
    instrument: Instrument | None = None
    timeframe: Timeframe | None = None

    @property
    def interval(self) -> Interval:
        """The window's span."""
        return Interval(self.start, self.end)


@dataclass(frozen=True, slots=True)
class Page:
    """What a source answered for a window.

    `table` holds the contract's business columns as the source spelled their values: types may still be loose (text
    where a number is due), because the edge validation coerces, checks and refuses row by row. `timestamp` must be
    time-zone-aware, or text with an offset; zoneless values are refused later. `covered` is what the answer vouches
    for: an absent row inside it means the provider has none, outside it means nothing.
    """

    table: pa.Table
    covered: Interval
    derived: bool = False


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a source can serve.

    Attributes:
        datasets: contract ids served.
        asset_classes: classes of instruments served (empty for subjects that are no instruments).
        timeframes: bar lengths the provider itself serves.
        derived: bar lengths built here from a finer native one, as {Timeframe.H4: Timeframe.H1}.
        price_side: what the prices are: "trade", "bid" or "mid".
        adjusted: whether prices are adjusted for splits and dividends.
        synthetic: whether the data is made up (only `sample`).
    """

    datasets: frozenset[str]
    asset_classes: frozenset[AssetClass] = frozenset()
    timeframes: frozenset[Timeframe] = frozenset()
    derived: Mapping[Timeframe, Timeframe] = field(default_factory=dict)
    price_side: str = "trade"
    adjusted: bool = False
    synthetic: bool = False


class Source(ABC):
    """A provider of one or more datasets.

    A new one is one file with one subclass: set `name` and `capabilities`, implement `span` and `fetch`, and name it
    in `registry.py`. HTTP goes through `pipelines.sources.http`, so that limits, retries, the circuit breaker and
    metrics come with it.
    """

    name: ClassVar[str]
    capabilities: Capabilities  # of the class; of the instance where a setting decides, as the price side

    @abstractmethod
    def span(self, window: Window) -> timedelta:
        """Return how much time one request can cover for a window like this one."""

    @abstractmethod
    async def fetch(self, window: Window) -> Page:
        """Fetch one window that `windows` made.

        Raises:
            SourceError: one of its subclasses; the answer was not usable and nothing of it may be stored.
        """

    def unavailable_reason(self) -> str | None:
        """Return why this source cannot be asked at all (a missing key), or None."""
        return None

    def supports(self, dataset: str, instrument: Instrument | None, timeframe: Timeframe | None) -> bool:
        """Say whether this source serves the dataset for that instrument and timeframe, natively or derived."""
        can = self.capabilities
        if dataset not in can.datasets:
            return False
        if instrument is not None and can.asset_classes and instrument.asset_class not in can.asset_classes:
            return False
        return timeframe is None or timeframe in can.timeframes or timeframe in can.derived

    def windows(self, whole: Window) -> Iterator[Window]:
        """Cut a range into windows of at most one request each, oldest first."""
        step = self.span(whole)
        start = whole.start
        while start < whole.end:
            end = min(start + step, whole.end)
            yield Window(whole.dataset, whole.subject, start, end, whole.instrument, whole.timeframe)
            start = end

    def oldest(self, window: Window) -> datetime | None:  # noqa: ARG002
        """Return the first instant (aware UTC) of which it keeps what a window asks for; None where none is known."""
        return None

    def get_circuit_breaker_stats(self) -> dict[str, object]:
        """Return the circuit breaker's `state`, `failure_count` and more; a source without network is always closed."""
        return {"state": "closed", "failure_count": 0}

    async def aclose(self) -> None:
        """Release connections."""
        return


def raw_table(columns: Mapping[str, Sequence[object]]) -> pa.Table:
    """Build an Arrow table from columns of loosely typed values, as they came from JSON or CSV.

    A column whose values do not share one type becomes text, so that one wrong value spoils its row, not the page.
    """
    return pa.table({name: _loose_array(values) for name, values in columns.items()})


def _loose_array(values: Sequence[object]) -> pa.Array:
    try:
        return pa.array(values, from_pandas=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return pa.array([None if value is None else str(value) for value in values], type=pa.string())


def empty_bars() -> pa.Table:
    """Return a bar page without rows."""
    price = pa.float64()
    return pa.table(
        {
            "timestamp": pa.array([], pa.timestamp("us", "UTC")),
            **{name: pa.array([], price) for name in ("open", "high", "low", "close", "volume")},
        }
    )
