"""Live bars: closed minutes out of landed ticks, and the longer bars out of those."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from pipelines.batch.aggregation import aggregate
from pipelines.contracts import load_contracts
from pipelines.edge import EdgeContext, validate
from pipelines.intervals import Interval, IntervalSet
from pipelines.sources.base import MARKET_DATA
from pipelines.storage import CoverageEntry
from pipelines.storage.replay import COVERED
from pipelines.streaming.checking import PROVIDER
from pipelines.streaming.topics import TICKS
from pipelines.timeframes import Timeframe, utc_now

if TYPE_CHECKING:
    from pipelines.streaming.landing import Place

_ASSET, _TIME = "asset_pair", "timestamp"
_PRICES = ("open", "high", "low", "close", "volume")
_TICK = [_ASSET, _TIME, "price", "volume", "provider", "tick_id", "ingested_at", "kafka_partition", "kafka_offset"]
_ORDER = ("kafka_partition", "kafka_offset")
Opens = dict[Timeframe, set[tuple[str, datetime]]]


class LiveBars:
    """Builds and lands the bars of one topic's assets.

    A bar is a function of the ticks that have landed: building one again gives it again, which lands nothing, or, with
    ticks that came late, a new version of it. Each tick counts once, however often it was delivered.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._contract = load_contracts()[MARKET_DATA]
        self._open: Opens = {timeframe: set() for timeframe in Timeframe}
        self._claims: dict[tuple[str, Timeframe], list[Interval]] = defaultdict(list)
        self._versions: dict[Timeframe, int] = {}
        self.since: datetime | None = None

    def touch(self, ticks: pa.Table) -> None:
        """Note which bars ticks belong to."""
        self.touch_at(minutes_of(ticks))

    def touch_at(self, minutes: Iterable[tuple[str, datetime]]) -> None:
        """Note that bars have to be built: assets and opens of minutes."""
        for asset, minute in minutes:
            for timeframe in Timeframe:
                self._open[timeframe].add((asset, timeframe.floor(minute)))

    def close(self, reached: datetime) -> int:
        """Build and land the bars that are due, and return how many versions of bars were new.

        Args:
            reached: bars that end by then (aware UTC) have closed.
        """
        landed = 0
        for timeframe in Timeframe:
            due = {(a, o) for a, o in self._open[timeframe] if o + timeframe.step <= reached}
            self._open[timeframe] -= due
            whole = {(asset, opens) for asset, opens in due if self.since is not None and opens >= self.since}
            for rows in self._built(timeframe, whole):
                landed += self._land(timeframe, rows)
        return landed

    def claim(self) -> None:
        """Record as covered what bars have landed; never more, so that a silent stream hides no bar from providers."""
        claims, self._claims = self._claims, defaultdict(list)
        entries = [
            CoverageEntry(MARKET_DATA, asset, timeframe.value, PROVIDER, part.start, part.end, COVERED,
                          timeframe.bars_between(part.start, part.end))
            for (asset, timeframe), parts in sorted(claims.items())
            if not self._undone(timeframe)
            for part in IntervalSet(parts)
        ]  # fmt: skip
        self._versions.clear()
        place = self._place
        place.manager.coverage.record(entries, place.run_id, synthetic=place.synthetic)

    def _undone(self, timeframe: Timeframe) -> bool:
        """Say whether the table was restored or repaired since: rows may be gone, so nothing is claimed."""
        version = self._versions.get(timeframe)
        return version is not None and self._place.manager.undone_since(self._contract.table_for(timeframe), version)

    def _built(self, timeframe: Timeframe, due: set[tuple[str, datetime]]) -> Iterator[pa.Table]:
        for group in _adjacent(due, timeframe.step):
            built = self._minutes(group) if timeframe is Timeframe.M1 else self._longer(timeframe, group)
            wanted = pl.DataFrame(sorted(group), schema=built.select(_ASSET, _TIME).schema, orient="row")
            found = built.join(wanted, on=[_ASSET, _TIME], how="semi").sort(_ASSET, _TIME)
            if found.height:
                yield found.to_arrow()

    def _minutes(self, due: set[tuple[str, datetime]]) -> pl.DataFrame:
        return bars_of(self._read(TICKS, due, Timeframe.M1.step, _TICK))

    def _longer(self, timeframe: Timeframe, due: set[tuple[str, datetime]]) -> pl.DataFrame:
        columns = [_ASSET, _TIME, *_PRICES, "provider", "ingested_at"]
        minutes = self._read(self._contract.table_for(Timeframe.M1), due, timeframe.step, columns)
        newest = (
            minutes.filter(pl.col("provider") == PROVIDER)
            .sort("ingested_at")
            .unique([_ASSET, _TIME], keep="last", maintain_order=True)
        )
        parts = [newest.clear().select(_ASSET, _TIME, *_PRICES)]
        for (asset,), rows in newest.group_by([_ASSET]):
            bars = pl.DataFrame(aggregate(rows.select(_TIME, *_PRICES).to_arrow(), timeframe))
            parts.append(bars.select(pl.lit(asset).alias(_ASSET), _TIME, *_PRICES))
        return pl.concat(parts)

    def _read(self, table: str, due: set[tuple[str, datetime]], step: timedelta, columns: list[str]) -> pl.DataFrame:
        opens = [when for _, when in due]
        assets = sorted({asset for asset, _ in due})
        return pl.DataFrame(self._place.manager.read_arrow(table, min(opens), max(opens) + step, assets, columns))

    def _land(self, timeframe: Timeframe, rows: pa.Table) -> int:
        context = EdgeContext(
            self._contract, PROVIDER, utc_now(), timeframe=timeframe, derived=timeframe is not Timeframe.M1
        )
        good = validate(rows, context).good
        done = self._place.append(self._contract.table_for(timeframe), good)
        self._versions.setdefault(timeframe, done.version)
        for asset, when in zip(good[_ASSET].to_pylist(), good[_TIME].to_pylist(), strict=True):
            self._claims[asset, timeframe].append(Interval(when, when + timeframe.step))
        return done.rows


def minutes_of(ticks: pa.Table) -> set[tuple[str, datetime]]:
    """Return the assets and minutes (aware UTC) that ticks belong to."""
    frame = pl.DataFrame(ticks.select([_ASSET, _TIME]))
    return set(frame.select(_ASSET, pl.col(_TIME).dt.truncate("1m")).unique().iter_rows())


def bars_of(ticks: pl.DataFrame) -> pl.DataFrame:
    """Return the 1m bars of ticks: asset_pair, timestamp (open, UTC), open, high, low, close, volume.

    First and last go by event time, then by where the messages lay. Of a tick that was delivered more than once the
    last version counts. Volume is summed over ticks that have one, null if none has.
    """
    once = ticks.sort("ingested_at", *_ORDER).unique([_ASSET, "provider", "tick_id"], keep="last", maintain_order=True)
    return (
        once.sort(_TIME, *_ORDER)
        .group_by(_ASSET, pl.col(_TIME).dt.truncate("1m"), maintain_order=True)
        .agg(
            pl.col("price").first().alias("open"),
            pl.col("price").max().alias("high"),
            pl.col("price").min().alias("low"),
            pl.col("price").last().alias("close"),
            pl.when(pl.col("volume").is_not_null().any()).then(pl.col("volume").sum()).alias("volume"),
        )
    )


def _adjacent(due: set[tuple[str, datetime]], step: timedelta) -> Iterator[set[tuple[str, datetime]]]:
    """Yield bars in groups without holes in time, so that what lies between two of them is not read."""
    group: set[tuple[str, datetime]] = set()
    last: datetime | None = None
    for asset, opens in sorted(due, key=lambda bar: bar[1]):
        if last is not None and opens > last + step:
            yield group
            group = set()
        group.add((asset, opens))
        last = opens
    if group:
        yield group
