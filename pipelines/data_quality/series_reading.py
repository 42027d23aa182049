"""Reading bars piece by piece: only the assets that matter, one after the other, in the columns that are needed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from pipelines.intervals import Interval
from pipelines.storage.scan import literal, quoted
from pipelines.timeframes import Timeframe

if TYPE_CHECKING:
    from pipelines.contracts import Contract
    from pipelines.storage import DeltaLakeManager

_TIME = quoted("timestamp")
_BARS_AT_ONCE = 200_000
_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Span:
    """A table of bars and which of it: asset pairs and opens; None means all."""

    table: str
    timeframe: Timeframe
    assets: Sequence[str] | None = None
    interval: Interval | None = None

    def where(self) -> str:
        """Return the condition as SQL, with escaped literals; empty if all counts."""
        found = []
        if self.assets is not None:
            found.append(f"asset_pair IN ({', '.join(map(literal, self.assets)) or 'NULL'})")
        if self.interval is not None:
            found.append(f"{_TIME} >= {literal(self.interval.start)} AND {_TIME} < {literal(self.interval.end)}")
        return f"WHERE {' AND '.join(found)}" if found else ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which bars a user asks for; None means all."""

    assets: Sequence[str] | None = None
    timeframes: Sequence[Timeframe] | None = None
    interval: Interval | None = None

    def spans(self, contract: Contract) -> Iterator[Span]:
        """Yield what is asked for table by table."""
        for timeframe in Timeframe:
            if self.timeframes is None or timeframe in self.timeframes:
                yield Span(contract.table_for(timeframe), timeframe, self.assets, self.interval)


@dataclass(frozen=True, slots=True)
class Held:
    """What a table has of an asset: the providers, sorted, and the first and last open (aware UTC)."""

    providers: Sequence[str]
    first: datetime
    last: datetime


def held_by_asset(manager: DeltaLakeManager, span: Span) -> dict[str, Held]:
    """Return what there is of each asset; empty where there is no such table."""
    return _by_asset(manager, span, "")


def restated_by_asset(manager: DeltaLakeManager, span: Span) -> dict[str, Held]:
    """Return of each asset the providers whose bars have more than one version; empty where there is no such table."""
    return _by_asset(manager, span, f"HAVING count(*) > count(DISTINCT {_TIME})")


def slices(span: Span, held: Held) -> Iterator[Span]:
    """Cut the time of an asset's bars into spans of a bounded number of bars, oldest first."""
    start, step = held.first, span.timeframe.step * _BARS_AT_ONCE
    while start <= held.last:
        # The last one ends right after the last bar, which may be off the grid.
        end = min(start + step, held.last + _INSTANT)
        yield replace(span, interval=Interval(start, end))
        start = end


def read_series(manager: DeltaLakeManager, span: Span, asset: str, columns: Sequence[str]) -> pl.DataFrame:
    """Return an asset's rows, all versions and providers."""
    start, end = (span.interval.start, span.interval.end) if span.interval else (None, None)
    return pl.DataFrame(manager.read_arrow(span.table, start, end, [asset], list(columns)))


def newest(rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Return the newest version of each key."""
    return rows.sort("ingested_at").unique(subset=list(keys), keep="last", maintain_order=True)


def _by_asset(manager: DeltaLakeManager, span: Span, having: str) -> dict[str, Held]:
    if not manager.exists(span.table):
        return {}
    columns = f"asset_pair, provider, min({_TIME}) AS first, max({_TIME}) AS last"
    where = f"{span.where()} GROUP BY asset_pair, provider {having}"
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    rows = manager.query(f"SELECT {columns} FROM {span.table} {where}").to_pylist()  # noqa: S608 - escaped literals
    for row in sorted(rows, key=lambda row: (row["asset_pair"], row["provider"])):
        found[row["asset_pair"]].append(row)
    return {
        asset: Held(
            [part["provider"] for part in parts],
            min(part["first"] for part in parts),
            max(part["last"] for part in parts),
        )
        for asset, parts in found.items()
    }
