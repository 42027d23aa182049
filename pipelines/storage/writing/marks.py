"""Rows of a message log: each lands once by its offset, which is committed with the rows as a Delta transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import numpy as np
import polars as pl
import pyarrow as pa
from typing_extensions import override

from pipelines.errors import LakehouseError
from pipelines.storage.results import NEW, REPEATED
from pipelines.storage.writing.dedupe import Decision, decide
from pipelines.timeframes import from_micros, micros

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from pipelines.contracts import Contract

Marks = Mapping[str, int]
PARTITION, OFFSET = "kafka_partition", "kafka_offset"
_MICROSECOND = timedelta(microseconds=1)


class MarkedAheadError(LakehouseError):
    """Another process has read on in the log: what this one holds is not the next part of it."""


class Placement(Protocol):
    """Decides what of a batch is written to a table at some version, and which marks go with it."""

    def place(
        self, table: DeltaTable, contract: Contract, batch: pa.Table, granularity: str | None, now: datetime
    ) -> tuple[Decision, Marks]:
        """Return the rows to write, and the marks to commit with them."""


class ByKey(Placement):
    """New and changed keys, as batches are placed."""

    @override
    def place(
        self, table: DeltaTable, contract: Contract, batch: pa.Table, granularity: str | None, now: datetime
    ) -> tuple[Decision, Marks]:
        return decide(table, contract, batch, granularity, now), {}


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a topic has been read: the next offset of each partition before and after a batch.

    Attributes:
        topic: names the marks.
        before: where the batch begins; a partition that was never read is not there.
        until: where it ends.
        others: further marks, by their name within the topic.
    """

    topic: str
    before: Mapping[int, int]
    until: Mapping[int, int]
    others: Marks = field(default_factory=dict)

    def marks(self) -> dict[str, int]:
        """Return what to commit."""
        parts = {mark_of(self.topic, partition): offset for partition, offset in self.until.items()}
        return parts | {mark_of(self.topic, name): value for name, value in self.others.items()}

    def check(self, table: DeltaTable) -> None:
        """Make sure that the table stands where the batch begins.

        Raises:
            MarkedAheadError: another process has read on.
        """
        for partition, expected in self.before.items():
            found = table.transaction_version(mark_of(self.topic, partition))
            if found is not None and found != expected:
                raise MarkedAheadError(
                    f"another process reads {self.topic} into this lake: partition {partition} stands at offset "
                    f"{found}, not {expected}; let one of them run"
                )


@dataclass(frozen=True, slots=True)
class ByOffset(Placement):
    """All rows, upon the marks they follow; every commit has a later `ingested_at` than the one before."""

    reached: Reached

    @override
    def place(
        self, table: DeltaTable, contract: Contract, batch: pa.Table, granularity: str | None, now: datetime
    ) -> tuple[Decision, Marks]:
        self.reached.check(table)
        name = mark_of(self.reached.topic, "stamp")
        newest = table.transaction_version(name)
        stamp = now if newest is None else max(now, from_micros(newest) + _MICROSECOND)
        stamps = pl.Series([stamp], dtype=pl.Datetime("us", "UTC")).new_from_index(0, batch.num_rows).to_arrow()
        rows = batch.append_column("ingested_at", stamps.cast(pa.timestamp("us", "UTC")))
        kinds = np.full(batch.num_rows, NEW, np.int8)
        return Decision(rows, kinds), self.reached.marks() | {name: micros(stamp)}


@dataclass(frozen=True, slots=True)
class ByKeyUpTo(Placement):
    """New and changed keys, upon the marks they follow."""

    reached: Reached

    @override
    def place(
        self, table: DeltaTable, contract: Contract, batch: pa.Table, granularity: str | None, now: datetime
    ) -> tuple[Decision, Marks]:
        self.reached.check(table)
        if not batch.num_rows:
            return Decision(_stamped_none(batch), np.full(0, REPEATED, np.int8)), self.reached.marks()
        return decide(table, contract, batch, granularity, now), self.reached.marks()


def _stamped_none(batch: pa.Table) -> pa.Table:
    return batch.append_column("ingested_at", pa.array([], pa.timestamp("us", "UTC")))


def mark_of(topic: str, name: object) -> str:
    """Return a mark's name in the log: that of a partition is its next offset."""
    return f"stream/{topic}/{name}"


def marks_of(table: DeltaTable, topic: str, names: Iterable[object]) -> dict[object, int]:
    """Return the marks of a topic that a table has, by their name within the topic."""
    found = {name: table.transaction_version(mark_of(topic, name)) for name in names}
    return {name: value for name, value in found.items() if value is not None}
