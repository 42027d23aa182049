"""What is wrong with messages before their contract is asked: unreadable, without their key, out of their time."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from pipelines.coercion import INSTANT, loose_frame, read_as
from pipelines.edge import DEFECT, EdgeContext, RefusedRow, validate
from pipelines.streaming.decoding import BYTES, KEY, OFFSET, PARTITION, RAW, TIME, UNREADABLE
from pipelines.streaming.schemas import message_columns
from pipelines.timeframes import Timeframe

if TYPE_CHECKING:
    from pipelines.config import StreamingSettings
    from pipelines.streaming.topics import Topic

PROVIDER = "stream"
SAMPLE = "sample"
TOPIC = "kafka_topic"
_VALUE, _BASE64 = "value", "value_base64"
_ASSET, _TIMEFRAME = "asset_pair", "timeframe"
_UNREADABLE = {"json": "not JSON in UTF-8", "avro": "not Avro of this schema"}


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of a batch: good rows, to be landed one part after the other, and refused messages.

    A part has the length of its bars, None for what has none; no part has two versions of one row.
    """

    good: list[tuple[Timeframe | None, pa.Table]]
    refused: list[RefusedRow]


class Checker:
    """Checks the messages of one topic; of the same messages it says the same whenever it is asked."""

    def __init__(self, topic: Topic, settings: StreamingSettings, *, synthetic: bool) -> None:
        self._topic = topic
        self._contract = topic.contract
        self._settings = settings
        self._synthetic = synthetic
        self._columns = message_columns(topic.contract)
        self._names = frozenset(column.name for column in self._columns)

    def check(self, messages: pa.Table, now: datetime) -> Checked:
        """Split decoded messages into good rows and refused ones.

        Args:
            messages: as `decoding.collected` returns them.
            now: aware UTC; what bars have closed.
        """
        checked = Checked([], [])
        for timeframe, page in self._parts(self._page(messages)):
            context = EdgeContext(self._contract, PROVIDER, now, timeframe=timeframe)
            result = validate(page.to_arrow(), context)
            checked.good.append((timeframe, result.good))
            checked.refused.extend(map(self._told_once, result.refused))
        return checked

    def _told_once(self, row: RefusedRow) -> RefusedRow:
        """Return a refused message; where nothing of it could be read, without what its contract misses in it."""
        if any(row.record.get(column.name) is not None for column in self._columns):
            return row
        known = {name: value for name, value in row.record.items() if name not in self._names}
        return RefusedRow(known, row.reason.partition("; ")[0], None)

    def _parts(self, page: pl.DataFrame) -> Iterator[tuple[Timeframe | None, pl.DataFrame]]:
        """Yield the messages by length of bar, and a later version of a row after the one before it."""
        if self._topic.is_ticks:
            yield None, page
            return
        keys = [key for key in self._contract.keys if key in page.columns]
        version = page.select(pl.int_range(pl.len()).over(keys or TOPIC)).to_series()
        for number in sorted(version.unique()):
            rows = page.filter(version == number)
            if _TIMEFRAME in page.columns:
                yield from _by_length(rows)
            else:
                yield None, rows

    def _page(self, messages: pa.Table) -> pl.DataFrame:
        """Return the messages' fields, where each lay, its known defect, and the value of what cannot be read."""
        frame = loose_frame(messages)
        frame = frame.with_columns(pl.lit(self._topic.name).alias(TOPIC), self._defects(frame).alias(DEFECT))
        frame = _with_values(frame)
        wanted = [column.name for column in self._columns if column.name in frame.columns]
        extra = [name for name in (_VALUE, _BASE64) if name in frame.columns]
        return frame.select(TOPIC, PARTITION, OFFSET, TIME, *wanted, *extra, DEFECT)

    def _defects(self, frame: pl.DataFrame) -> pl.Series:
        unreadable = pl.col(RAW).is_not_null() | (pl.col(BYTES) == 0)
        if UNREADABLE in frame.columns:
            unreadable = unreadable | pl.col(UNREADABLE).is_not_null()
        limit = self._settings.max_message_bytes
        found = (
            pl.when(pl.col(BYTES) > limit)
            .then(pl.format("{} bytes, more than streaming.max_message_bytes", pl.col(BYTES)))
            .when(pl.col(BYTES) == 0)
            .then(pl.lit("no value"))
            .when(unreadable)
            .then(pl.lit(_UNREADABLE[self._topic.format]))
            .when(pl.col(KEY).is_null())
            .then(pl.lit("no key"))
        )
        if _ASSET in frame.columns:
            found = found.when(pl.col(KEY) != pl.col(_ASSET)).then(pl.lit("the key is not the asset"))
        if self._topic.is_ticks:
            made_up = pl.col("provider") == SAMPLE
            found = found.when(made_up != self._synthetic).then(
                pl.lit("a real tick in a synthetic lake" if self._synthetic else "a synthetic tick in a real lake")
            )
            ahead = self._event_time(frame) > pl.col(TIME) + timedelta(seconds=self._settings.future_seconds)
            found = found.when(ahead).then(pl.lit("from the future: later than its message"))
        return frame.select(found.otherwise(pl.lit("")).fill_null("").alias(DEFECT)).to_series()

    def _event_time(self, frame: pl.DataFrame) -> pl.Expr:
        column = self._contract.column("timestamp")
        return read_as(column, frame.schema[column.name]).cast(INSTANT)


def _by_length(page: pl.DataFrame) -> Iterator[tuple[Timeframe, pl.DataFrame]]:
    known = pl.col(_TIMEFRAME).is_in([each.value for each in Timeframe]).fill_null(value=False)
    unknown = pl.when((pl.col(DEFECT) == "") & ~known).then(pl.lit("unknown timeframe")).otherwise(pl.col(DEFECT))
    page = page.with_columns(unknown.alias(DEFECT))
    for timeframe in Timeframe:
        # Rows of no known length are refused with those of the first one.
        mine = pl.col(_TIMEFRAME).eq_missing(timeframe.value)
        part = page.filter((mine | ~known) if timeframe is Timeframe.M1 else mine)
        if part.height:
            yield timeframe, part


def _with_values(frame: pl.DataFrame) -> pl.DataFrame:
    """Add the values of messages that could not be read, as text or, where they are none, in base 64."""
    bad = frame[DEFECT] != ""
    if not bad.any():
        return frame
    texts: Iterable[str | None] = frame[UNREADABLE] if UNREADABLE in frame.columns else [None] * frame.height
    both = [_value(raw, text) if is_bad else {} for is_bad, raw, text in zip(bad, frame[RAW], texts, strict=True)]
    columns = [pl.Series(name, [each.get(name) for each in both], dtype=pl.String) for name in (_VALUE, _BASE64)]
    return frame.with_columns(column for column in columns if column.null_count() < column.len())


def _value(raw: bytes | None, text: str | None) -> dict[str, str]:
    if text is not None:
        return {_VALUE: text}
    if raw is None:
        return {}
    try:
        return {_VALUE: raw.decode()}
    except UnicodeDecodeError:
        return {_BASE64: base64.b64encode(raw).decode()}
