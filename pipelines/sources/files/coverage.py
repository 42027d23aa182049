"""What the pages of one file vouch for: from a row to the next one, but never more than has been handed over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.intervals import Interval
from pipelines.timeframes import EPOCH

NOTHING = Interval(EPOCH, EPOCH)


@dataclass(slots=True)
class _Seen:
    first: datetime
    last: datetime
    is_sorted: bool


class FileCoverage:
    """Follows one file, per asset.

    Rows in order of time vouch for everything between them, page by page. Once a file turns out not to be in order,
    its later pages vouch for nothing, and `rest` vouches for its whole span after the last of them.
    """

    def __init__(self, length: timedelta) -> None:
        self._length = length
        self._seen: dict[str | None, _Seen] = {}

    def add(self, asset: str | None, times: pa.Array) -> Interval:
        """Return what the next page of an asset vouches for; `times` may hold nulls and be zoneless."""
        if not pa.types.is_timestamp(times.type) or times.type.tz is None:
            return NOTHING
        micros = times.drop_null().cast(pa.int64()).to_numpy()
        if not micros.size:
            return NOTHING
        first, last = (EPOCH + timedelta(microseconds=int(edge)) for edge in (micros.min(), micros.max()))
        in_order = bool((micros[1:] >= micros[:-1]).all())
        seen = self._seen.setdefault(asset, _Seen(first, first, is_sorted=True))
        start = min(first, seen.last + self._length) if seen.last > seen.first else first
        seen.is_sorted = seen.is_sorted and in_order and first >= seen.last
        seen.first, seen.last = min(seen.first, first), max(seen.last, last)
        return Interval(start, last + self._length) if seen.is_sorted else NOTHING

    def rest(self, asset: str | None) -> Interval:
        """Return the whole span of an asset whose rows were not in order, else an empty one."""
        seen = self._seen.get(asset)
        return NOTHING if seen is None or seen.is_sorted else Interval(seen.first, seen.last + self._length)


def by_asset(table: pa.Table, column: str) -> Iterator[tuple[str | None, pa.Table]]:
    """Split a table into one per asset, in order of appearance; without that column it stays whole."""
    if column not in table.column_names:
        yield None, table
        return
    names = table[column].cast(pa.string())
    for name in pc.unique(names).to_pylist():
        mask = pc.is_null(names) if name is None else pc.equal(names, name)
        yield name, table.filter(mask)
