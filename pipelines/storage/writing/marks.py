"""Rows of a message log: each lands once by its offset, which is committed with the rows as a Delta transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from typing_extensions import override

from pipelines.errors import LakehouseError
from pipelines.storage.writing.dedupe import Decision, all_new, decide
from pipelines.timeframes import from_micros, micros

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

    from pipelines.contracts import Contract

Marks = Mapping[str, int]
# The mark that is the `ingested_at` of the last rows placed by offset, in microseconds.
STAMP = "stamp"
_MICROSECOND = timedelta(microseconds=1)


class MarkedAheadError(LakehouseError):
    """Another process has read on in the log: what this one holds is not the next part of it."""


class Placement(Protocol):
    """Decides what of a batch is written to a table at some version, and which marks go with it."""

    def place(
        self, table: DeltaTable, contract: Contract, batch: pa.Table, granularity: str | None, now: datetime
    ) -> tuple[Decision, Marks]:
        """Return the rows to write, and the marks to commit with them."""


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

    def upon(self, table: DeltaTable) -> Marks:
        """Return what to commit upon a version of the table.

        Raises:
            MarkedAheadError: another process has read on.
        """
        self._check(table)
        parts = {mark_of(self.topic, partition): offset for partition, offset in self.until.items()}
        return parts | {mark_of(self.topic, name): value for name, value in self.others.items()}

    def _check(self, table: DeltaTable) -> None:
        for partition, expected in self.before.items():
            found = table.transaction_version(mark_of(self.topic, partition))
            if found is not None and found != expected:
                raise MarkedAheadError(
                    f"another process reads {self.topic} into this lake: partition {partition} stands at offset "
                    f"{found}, not {expected}; let one of them run"
                )


@dataclass(frozen=True, slots=True)
class ByKey(Placement):
    """New and changed keys; of a message log, upon the marks they follow."""

    reached: Reached | None = None

    @override
    def place(
        self, table: DeltaTable, contract: Contract, batch: pa.Table, granularity: str | None, now: datetime
    ) -> tuple[Decision, Marks]:
        marks = self.reached.upon(table) if self.reached is not None else {}
        return decide(table, contract, batch, granularity, now), marks


@dataclass(frozen=True, slots=True)
class ByOffset(Placement):
    """All rows, upon the marks they follow; every commit has a later `ingested_at` than the one before."""

    reached: Reached

    @override
    def place(
        self, table: DeltaTable, contract: Contract, batch: pa.Table, granularity: str | None, now: datetime
    ) -> tuple[Decision, Marks]:
        marks, name = self.reached.upon(table), mark_of(self.reached.topic, STAMP)
        newest = table.transaction_version(name)
        stamp = now if newest is None else max(now, from_micros(newest) + _MICROSECOND)
        return all_new(batch, stamp), {**marks, name: micros(stamp)}


def mark_of(topic: str, name: object) -> str:
    """Return a mark's name in the log: that of a partition is its next offset."""
    return f"stream/{topic}/{name}"


def marks_of(table: DeltaTable, topic: str, names: Iterable[object]) -> dict[object, int]:
    """Return the marks of a topic that a table has, by their name within the topic."""
    found = {name: table.transaction_version(mark_of(topic, name)) for name in names}
    return {name: value for name, value in found.items() if value is not None}
