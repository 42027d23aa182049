"""Where a replay's rows come from: the sample provider, the lake or files; in order of time where there is one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl
import pyarrow as pa

from pipelines.coercion import loose_frame, polars_type, read_as, unreadable_reason
from pipelines.contracts import Column
from pipelines.data_quality.series_reading import newest
from pipelines.edge import DEFECT
from pipelines.intervals import Interval
from pipelines.sources.base import MARKET_DATA, Window
from pipelines.sources.files import FileSpec, read_in_order
from pipelines.sources.sample import SampleSource
from pipelines.streaming.encoding import subject_column
from pipelines.streaming.producers.expansion import USUAL, expanded
from pipelines.streaming.schemas import message_columns
from pipelines.streaming.topics import TICKS, Topic
from pipelines.timeframes import Timeframe

if TYPE_CHECKING:
    from pipelines.config import Settings
    from pipelines.instruments import Instrument
    from pipelines.storage import DeltaLakeManager

_TICKS_AT_ONCE = 200_000
_DAY = timedelta(days=1)
_BAR = ("asset_pair", "timestamp", "open", "high", "low", "close", "volume", "provider")


class Chunk(NamedTuple):
    """Rows to send, in that order, with the columns of the topic's messages; and rows that cannot be, by reason."""

    rows: pl.DataFrame
    refused: Mapping[str, int]


def sample_chunks(
    settings: Settings, topic: Topic, instruments: Sequence[Instrument], span: Interval, ticks_per_bar: int = USUAL
) -> Iterator[Chunk]:
    """Yield what the sample provider has of some assets; a topic of ticks gets its 1m bars, expanded.

    Raises:
        UnsupportedError: it makes nothing of the topic's dataset.
    """
    for day in _days(span):
        frame = asyncio.run(_sample(settings, topic, instruments, day))
        if not frame.is_empty():
            yield from _of_bars(frame, topic, ticks_per_bar) if topic.is_ticks else [_chunk(frame, topic)]


def lake_chunks(
    manager: DeltaLakeManager, topic: Topic, assets: Sequence[str] | None, span: Interval, ticks_per_bar: int = USUAL
) -> Iterator[Chunk]:
    """Yield what the lake's bronze has: newest versions; of bars those of 1m, each of its best provider.

    A topic of ticks gets 1m bars, expanded, with their provider.

    Raises:
        TableNotFoundError: the lake does not have the dataset.
    """
    if topic.is_ticks or topic.contract.id == MARKET_DATA:
        for day in _days(span):
            bars = _lake_bars(manager, assets, day)
            if not bars.is_empty():
                yield from _of_bars(bars, topic, ticks_per_bar) if topic.is_ticks else [_chunk(bars, topic)]
        return
    for day in _days(span):
        rows = _frame(manager.read_arrow(topic.contract.tables[0], day.start, day.end, assets))
        if not rows.is_empty():
            versions = newest(rows, topic.contract.keys)
            yield _chunk(versions.sort(str(topic.contract.event_time), *topic.contract.keys), topic)


def tick_chunks(
    manager: DeltaLakeManager, topic: Topic, assets: Sequence[str] | None, span: Interval
) -> Iterator[Chunk]:
    """Yield the lake's ticks as they are, a tick that was delivered twice also twice.

    Raises:
        TableNotFoundError: the lake has no ticks.
    """
    for day in _days(span):
        rows = _frame(manager.read_arrow(TICKS, day.start, day.end, assets))
        if not rows.is_empty():
            yield _chunk(rows.sort("timestamp", "kafka_topic", "kafka_partition", "kafka_offset"), topic)


def file_chunks(
    path: str | Path, topic: Topic, assets: Sequence[str] | None = None, span: Interval | None = None
) -> Iterator[Chunk]:
    """Return a file's rows in the order of the file, piece by piece; bars are taken for 1m ones.

    Raises:
        SourceError: a file is missing, damaged, not in a known format or lacks a column.
    """
    bars = topic.contract.id == MARKET_DATA
    tables = read_in_order(FileSpec(path, topic.contract.id, timeframe=Timeframe.M1 if bars else None))
    return (_selected(_chunk(loose_frame(table), topic), topic, assets, span) for table in tables)


def _selected(chunk: Chunk, topic: Topic, assets: Sequence[str] | None, span: Interval | None) -> Chunk:
    rows = chunk.rows
    if assets is not None:
        rows = rows.filter(pl.col(subject_column(topic.contract)).is_in(assets))
    if span is not None:
        rows = rows.filter(pl.col(str(topic.contract.event_time)).is_between(span.start, span.end, closed="left"))
    return Chunk(rows, chunk.refused)


async def _sample(settings: Settings, topic: Topic, instruments: Sequence[Instrument], span: Interval) -> pl.DataFrame:
    source = SampleSource(settings.providers.sample)
    bars = topic.is_ticks or topic.contract.id == MARKET_DATA
    dataset, timeframe = (MARKET_DATA, Timeframe.M1) if bars else (topic.contract.id, None)
    windows = [Window(dataset, each.pair, span.start, span.end, each, timeframe) for each in instruments]
    pages = await asyncio.gather(*(source.fetch(window) for window in windows))
    frames = [
        loose_frame(page.table).with_columns(asset_pair=pl.lit(window.subject), provider=pl.lit(SampleSource.name))
        for window, page in zip(windows, pages, strict=True)
        if page.table.num_rows
    ]
    time = str(topic.contract.event_time)
    return pl.concat(frames).sort(time, "asset_pair") if frames else pl.DataFrame()


def _lake_bars(manager: DeltaLakeManager, assets: Sequence[str] | None, span: Interval) -> pl.DataFrame:
    columns = [*_BAR, "ingested_at"]
    rows = _frame(manager.read_arrow("raw_market_data_1m", span.start, span.end, assets, columns))
    chain = manager.settings.providers.chain
    rank = pl.col("provider").replace_strict({name: place for place, name in enumerate(chain)}, default=len(chain))
    ranked = rows.with_columns(rank=rank).sort("rank", "provider", "ingested_at", descending=[False, False, True])
    best = ranked.unique(subset=["asset_pair", "timestamp"], keep="first", maintain_order=True)
    return best.select(_BAR).sort("timestamp", "asset_pair")


def _of_bars(bars: pl.DataFrame, topic: Topic, ticks_per_bar: int) -> Iterator[Chunk]:
    """Expand bars, so many minutes at a time that memory stays small."""
    minutes = bars["timestamp"].unique().sort()
    step = max(1, _TICKS_AT_ONCE // (ticks_per_bar * bars["asset_pair"].n_unique()))
    for first in range(0, len(minutes), step):
        part = minutes[first : first + step]
        some = bars.filter(pl.col("timestamp").is_between(part[0], part[-1]))
        ticks = [
            expanded(str(asset), group, ticks_per_bar)
            for (asset,), group in some.group_by("asset_pair", maintain_order=True)
        ]
        yield _chunk(pl.concat(ticks).sort("timestamp", "asset_pair"), topic)


def _chunk(raw: pl.DataFrame, topic: Topic) -> Chunk:
    """Read a frame's columns in the types of the topic's messages; a row that cannot be read as such is refused."""
    columns = message_columns(topic.contract)
    rows = raw.select(_column(raw, column, topic) for column in columns)
    reasons = [raw[DEFECT].replace("", None)] if DEFECT in raw.columns else []
    for column in columns:
        name, values = column.name, rows[column.name]
        if name in raw.columns and values.null_count() > raw[name].null_count():
            lost = raw[name].is_not_null() & values.is_null()
            reasons.append(_said(lost, unreadable_reason(column, raw.schema[name])))
        if column.required and values.null_count():
            reasons.append(_said(values.is_null(), f"null {name}"))
    if not reasons:
        return Chunk(rows, {})
    reason = pl.select(pl.coalesce(reasons)).to_series()
    return Chunk(rows.filter(reason.is_null()), Counter(reason.drop_nulls().to_list()))


def _column(raw: pl.DataFrame, column: Column, topic: Topic) -> pl.Expr:
    if column.name in raw.columns:
        return read_as(column, raw.schema[column.name])
    bars = column.name == "timeframe" and topic.contract.id == MARKET_DATA
    return pl.lit(Timeframe.M1.value if bars else None, dtype=polars_type(column)).alias(column.name)


def _said(mask: pl.Series, text: str) -> pl.Series:
    return pl.select(pl.when(mask).then(pl.lit(text))).to_series()


def _frame(table: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(table)


def _days(span: Interval) -> Iterator[Interval]:
    """Cut a span into pieces of at most a day, oldest first."""
    start = span.start
    while start < span.end:
        end = min(start + _DAY, span.end)
        yield Interval(start, end)
        start = end
