"""The files source: streams of pages from local files, and a file as a provider of windows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import reduce
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import FilesSettings
from pipelines.errors import UnsupportedError
from pipelines.instruments import AssetClass
from pipelines.intervals import Interval
from pipelines.sources.base import MARKET_DATA, Capabilities, Page, Source, Window
from pipelines.sources.files.columns import ASSET, Columns
from pipelines.sources.files.coverage import FileCoverage, by_asset
from pipelines.sources.files.csv_files import read_csv
from pipelines.sources.files.json_files import read_json
from pipelines.sources.files.parquet_files import BATCH_ROWS, read_parquet
from pipelines.sources.files.shape import DEFECT, shaped
from pipelines.sources.files.spec import FileSpec, format_of
from pipelines.timeframes import Timeframe, utc_now

_READERS = {"csv": read_csv, "parquet": read_parquet, "json": read_json}
_INSTANT = timedelta(microseconds=1)
_EVER = timedelta(days=366_000)


def read(spec: FileSpec) -> Iterator[Page]:
    """Stream what a spec names, in pages of at most 250,000 rows; memory does not grow with the files.

    Every row of the files comes out: one that cannot be read has its reason in the text column `_defect`. Future and
    still-open bars are left to the edge, which refuses them. Where the asset is a column, a page holds one asset. A
    page's `covered` reaches from the row before it to its last bar's close; for a file not in order of time it is
    empty, and a last page without rows vouches for the file's whole span (not where the asset is a column).

    Raises:
        SourceError: a file is missing, cut, damaged, not in a known format or lacks a column; names file and place.
    """
    contract = spec.contract()
    columns = Columns.of(spec, contract)
    return _pages(spec, columns, spec.files(), contract.event_time or "timestamp")


def read_in_order(spec: FileSpec) -> Iterator[pa.Table]:
    """Stream what a spec names in the order of the files, whatever asset a row is of; otherwise as `read`."""
    columns = Columns.of(spec, spec.contract())
    return (table for path in spec.files() for table in _tables(path, spec, columns))


def _pages(spec: FileSpec, columns: Columns, files: list[Path], event_time: str) -> Iterator[Page]:
    for path in files:
        coverage = FileCoverage(spec.timeframe.step if spec.timeframe else _INSTANT)
        table = None
        for table in _tables(path, spec, columns):
            for asset, part in by_asset(table, ASSET):
                yield Page(part, coverage.add(asset, _sound(part, event_time)))
        whole = coverage.rest(None)
        if whole and table is not None and not columns.with_asset:
            yield Page(table.slice(0, 0), whole)


def _sound(part: pa.Table, event_time: str) -> pa.Array:
    """Return the times of rows without a defect; broken lines come out of order and vouch for nothing."""
    if DEFECT in part.column_names:
        part = part.filter(pc.equal(part[DEFECT], ""))
    return part[event_time].combine_chunks()


def _tables(path: Path, spec: FileSpec, columns: Columns) -> Iterator[pa.Table]:
    for raw in _READERS[format_of(path) or ""](path, columns):
        for start in range(0, raw.num_rows, BATCH_ROWS):
            yield shaped(raw.slice(start, BATCH_ROWS), spec, columns)


class FilesSource(Source):
    """Local files as a provider. Without a `spec` it only streams (`read`); with one it answers windows from it."""

    name = "files"
    capabilities = Capabilities(
        datasets=frozenset(
            {MARKET_DATA, "raw_news_sentiment", "raw_ai_decisions", "raw_trade_executions", "macro_indicators"}
        ),
        asset_classes=frozenset(AssetClass),
        timeframes=frozenset(Timeframe),
    )

    def __init__(
        self,
        settings: FilesSettings | None = None,
        clock: Callable[[], datetime] = utc_now,
        spec: FileSpec | None = None,
    ) -> None:
        self._settings = settings or FilesSettings()
        self._clock = clock
        self._spec = spec

    def span(self, window: Window) -> timedelta:
        """Return more than any range, because a file is read from its start in any case."""
        return max(window.end - window.start, _EVER)

    def unavailable_reason(self) -> str | None:
        """Return why windows cannot be asked for: files have to be named."""
        return None if self._spec else "no file is named; use `lakehouse load PATH`"

    def read(self, spec: FileSpec) -> Iterator[Page]:
        """Stream what a spec names; see `pipelines.sources.files.read`."""
        return read(spec)

    async def fetch(self, window: Window) -> Page:
        """Read the configured file's rows inside a window; rows whose time cannot be read are kept for the edge.

        Raises:
            UnsupportedError: no file is configured, or it holds another dataset, asset or timeframe.
            SourceError: the file cannot be read whole.
        """
        if self._spec is None:
            raise UnsupportedError(self.unavailable_reason() or "")
        return await asyncio.to_thread(self._page, window, self._spec)

    def _page(self, window: Window, spec: FileSpec) -> Page:
        if (window.dataset, window.timeframe) != (spec.dataset, spec.timeframe):
            raise UnsupportedError(f"{spec.path} holds {spec.dataset} {spec.timeframe or ''}, not what is asked for")
        if spec.instrument and window.instrument and spec.instrument.pair != window.instrument.pair:
            raise UnsupportedError(f"{spec.path} holds {spec.instrument.pair}, not {window.instrument.pair}")
        now = self._clock()
        last_open = now - window.timeframe.step if window.timeframe else now
        kept: list[pa.Table] = []
        covered: list[Interval] = []
        for page in read(spec):
            kept.append(_inside(page.table, window, last_open))
            covered.append(page.covered)
        return Page(_joined(kept), _within(covered, window, window.timeframe.floor(now) if window.timeframe else now))


def _inside(table: pa.Table, window: Window, last_open: datetime) -> pa.Table:
    times = table["timestamp"]
    if ASSET in table.column_names and window.instrument:
        table = table.filter(pc.equal(table[ASSET], window.instrument.pair).fill_null(True))
        times = table["timestamp"]
    if not pa.types.is_timestamp(times.type) or times.type.tz is None:
        return table
    start, end, last = (pa.scalar(bound, times.type) for bound in (window.start, window.end, last_open))
    tests = (pc.greater_equal(times, start), pc.less(times, end), pc.less_equal(times, last))
    return table.filter(reduce(pc.and_kleene, tests).fill_null(True))


def _within(covered: list[Interval], window: Window, now: datetime) -> Interval:
    """Return the part of the window from the file's first row to its last one, as far as it has happened."""
    real = [part for part in covered if part]
    if not real:
        return Interval(window.start, window.start)
    start = max(window.start, min(part.start for part in real))
    end = min(window.end, max(part.end for part in real), now)
    return Interval(start, end) if start < end else Interval(window.start, window.start)


def _joined(tables: list[pa.Table]) -> pa.Table:
    """Put pages together; a column that is text in one of them, because of a bad value, is text in all."""
    kinds: dict[str, pa.DataType] = {}
    for field in (field for table in tables for field in table.schema):
        kinds[field.name] = pa.string() if kinds.get(field.name, field.type) != field.type else field.type
    schema = pa.schema(list(kinds.items()))
    parts = [
        pa.table(
            [
                table[f.name].cast(f.type) if f.name in table.column_names else pa.nulls(table.num_rows, f.type)
                for f in schema
            ],
            schema=schema,
        )
        for table in tables
    ]
    return pa.concat_tables(parts) if parts else pa.table({})
