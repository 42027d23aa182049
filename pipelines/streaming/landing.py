"""A topic's messages on their way into bronze: dead letters first, then the rows with how far the topic was read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.edge import edge_schema
from pipelines.errors import LakehouseError
from pipelines.storage.writing.marks import STAMP, ByKey, Reached
from pipelines.streaming.checking import Checker
from pipelines.streaming.decoding import OFFSET, PARTITION
from pipelines.streaming.status import LostRange
from pipelines.timeframes import from_micros, utc_now

if TYPE_CHECKING:
    from pipelines.config import StreamingSettings
    from pipelines.storage import DeltaLakeManager
    from pipelines.storage.files import Partition
    from pipelines.storage.results import AppendResult
    from pipelines.storage.writing.marks import Placement
    from pipelines.streaming.checking import Checked
    from pipelines.streaming.clients import Offsets
    from pipelines.streaming.dead_letters import DeadLetters
    from pipelines.streaming.topics import Topic

_log = logging.getLogger(__name__)


class StreamError(LakehouseError):
    """A topic cannot be read on as it is; says why and what to do."""


@dataclass(frozen=True, slots=True)
class Landed:
    """What became of a batch: messages read, rows committed, messages refused, late ticks, versions of bars."""

    rows: int = 0
    landed: int = 0
    refused: int = 0
    late: int = 0
    bars: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a topic's rows go: the lake, the run they carry, and whether they are made up.

    `touched` is told of each table and the partitions that got rows.
    """

    manager: DeltaLakeManager
    run_id: str
    synthetic: bool
    touched: Callable[[str, Iterable[Partition]], None]

    def append(self, table: str, rows: pa.Table, placement: Placement | None = None) -> AppendResult:
        """Append rows of a contract, as `DeltaLakeManager.append` does."""
        done = self.manager.append(table, rows, self.run_id, synthetic=self.synthetic, placement=placement)
        if done.rows:
            self.touched(table, self.manager.partitions_of(table, rows))
        return done


class Landing:
    """Lands the messages of one topic; used by one thread at a time.

    The table is the memory: the next offset of each partition is committed with the rows themselves. A batch that was
    cut off anywhere is read again from there; what of it was refused, or landed in further tables, is known then.
    """

    def __init__(self, topic: Topic, place: Place, settings: StreamingSettings, dead: DeadLetters) -> None:
        self._topic = topic
        self._place = place
        self._settings = settings
        self._dead = dead
        self._checker = Checker(topic, settings, synthetic=place.synthetic)
        # The rows of longer bars go before: what is committed there again is known there.
        self._table = topic.contract.tables[0]
        self.positions: dict[int, int] = {}
        self.lost: list[LostRange] = []

    def resume(self, offsets: Offsets) -> Mapping[int, int]:
        """Find out where to read on, and return the next offset of each partition.

        Args:
            offsets: what the broker holds.

        Raises:
            StreamError: the topic holds less than has been read: it was made anew.
            StorageError: the lake cannot be read or written.
        """
        manager = self._place.manager
        manager.ensure_table(self._table, synthetic=self._place.synthetic)
        marks = manager.marks(self._table, self._topic.name, [*offsets.end, STAMP, *self._mark_names()])
        known = {partition: marks[partition] for partition in offsets.end if partition in marks}
        self._check_not_remade(known, offsets)
        self.positions = dict(known)
        start = dict(self._beginning(offsets) if not known else offsets.beginning) | known
        lost = _expired(known, offsets.beginning) if known else []
        stamp = marks.get(STAMP)
        self._dead.recall(known, from_micros(stamp) if stamp is not None else None)
        self._restore(marks)
        if start != known or lost:
            self._move_on(start | {each.partition: each.until for each in lost}, lost)
        self._catch_up(offsets.end)
        return self.positions

    def land(self, messages: pa.Table, ends: Mapping[int, int], beginnings: Callable[[], Mapping[int, int]]) -> Landed:
        """Land decoded messages: refused ones as dead letters, good ones as rows.

        Args:
            messages: as `decoding.collected` returns them.
            ends: the broker's end offset of each partition.
            beginnings: asks the broker for the first offsets it still holds.

        Raises:
            MarkedAheadError: another process reads the topic into this lake.
            StorageError: it cannot be written.
            OSError: the dead letters cannot be written; nothing was committed.
        """
        messages = self._unread(messages)
        if not messages.num_rows:
            return Landed()
        first, until = _ranges(messages)
        if any(offset > self.positions.get(partition, 0) for partition, offset in first.items()):
            self._note_expired(first, beginnings())
        checked = self._checker.check(messages, utc_now())
        landed, late, bars = self._landed(checked, self.positions | until, ends)
        return Landed(messages.num_rows, landed, len(checked.refused), late, bars)

    def idle(self, ends: Mapping[int, int]) -> int:
        """Do what is due without messages; returns how many versions of bars came of it."""
        del ends
        return 0

    def close(self) -> None:
        """Record what is still to be recorded."""

    @property
    def watermark(self) -> datetime | None:
        """Event time (aware UTC) up to which bars are closed; None without bars."""
        return None

    def _mark_names(self) -> tuple[str, ...]:
        """Return the names of further marks."""
        return ()

    def _restore(self, marks: Mapping[object, int]) -> None:
        """Take up what the marks tell."""

    def _catch_up(self, ends: Mapping[int, int]) -> None:
        """Finish what follows from rows that have landed."""

    def _others(self) -> dict[str, int]:
        """Return further marks to commit."""
        return {}

    def _rejoin(self, lost: list[LostRange]) -> None:
        """Take note that the topic is not read without a hole."""

    def _landed(self, checked: Checked, until: dict[int, int], ends: Mapping[int, int]) -> tuple[int, int, int]:
        """Commit a batch; returns rows, late ticks, versions of bars."""
        del ends
        self._dead.write(checked.refused)
        landed, mine = 0, []
        for timeframe, rows in checked.good:
            table = self._topic.contract.table_for(timeframe)
            if table == self._table:
                mine.append(rows)
            elif rows.num_rows:
                landed += self._place.append(table, rows).rows
        landed += sum(self._place.append(self._table, rows).rows for rows in mine[:-1] if rows.num_rows)
        last = mine[-1] if mine else edge_schema(self._topic.contract).empty_table()
        reached = Reached(self._topic.name, self.positions, until, self._others())
        landed += self._place.append(self._table, last, ByKey(reached)).rows
        self.positions = until
        return landed, 0, 0

    def _behind(self, ends: Mapping[int, int]) -> list[int]:
        """Return the partitions that have messages which have not landed."""
        return [partition for partition, end in ends.items() if end > self.positions.get(partition, 0)]

    def _unread(self, messages: pa.Table) -> pa.Table:
        """Return the messages that have not landed yet; Spark repeats a batch that it does not know the end of."""
        known = pa.array(self.positions.keys(), pa.int64())
        places = pc.index_in(messages[PARTITION], known)
        reached = pc.take(pa.array(self.positions.values(), pa.int64()), places)
        return messages.filter(pc.greater_equal(messages[OFFSET], pc.fill_null(reached, 0)))

    def _note_expired(self, first: Mapping[int, int], beginnings: Mapping[int, int]) -> None:
        """Tell what expired before it was read; offsets without a message are no loss."""
        held = {partition: min(offset, beginnings.get(partition, 0)) for partition, offset in first.items()}
        if gone := _expired(self.positions, held):
            self._tell_lost(gone)

    def _move_on(self, until: Mapping[int, int], lost: list[LostRange]) -> None:
        """Commit where reading begins, without rows."""
        if lost:
            self._tell_lost(lost)
        reached = Reached(self._topic.name, self.positions, until, self._others())
        none = edge_schema(self._topic.contract).empty_table()
        self._place.append(self._table, none, ByKey(reached))
        self.positions = dict(until)

    def _tell_lost(self, lost: list[LostRange]) -> None:
        for each in lost:
            _log.error(
                "%s: offsets %d to %d of partition %d expired before they were read: %d messages are lost",
                self._topic.name, each.start, each.until - 1, each.partition, each.messages,
            )  # fmt: skip
        self._dead.expired(lost)
        self.lost += lost
        self._rejoin(lost)

    def _beginning(self, offsets: Offsets) -> Mapping[int, int]:
        return offsets.end if self._settings.starting_offsets == "latest" else offsets.beginning

    def _check_not_remade(self, known: Mapping[int, int], offsets: Offsets) -> None:
        for partition, position in known.items():
            if position > offsets.end[partition]:
                raise StreamError(
                    f"{self._topic.name} was read up to offset {position} of partition {partition}, and the broker's "
                    f"topic ends at {offsets.end[partition]}: it was made anew, or it is another broker; "
                    "give the new topic a name of its own in streaming.topics"
                )


def _expired(read: Mapping[int, int], held: Mapping[int, int]) -> list[LostRange]:
    """Return what lies, of each partition, between the next offset to read and the first that is held."""
    return [
        LostRange(partition, read.get(partition, 0), beginning)
        for partition, beginning in held.items()
        if beginning > read.get(partition, 0)
    ]


def _ranges(messages: pa.Table) -> tuple[dict[int, int], dict[int, int]]:
    """Return the first and the next offset of each partition in a batch."""
    found = messages.group_by(PARTITION).aggregate([(OFFSET, "min"), (OFFSET, "max")])
    partitions = found[PARTITION].to_pylist()
    first = dict(zip(partitions, found[f"{OFFSET}_min"].to_pylist(), strict=True))
    last = dict(zip(partitions, found[f"{OFFSET}_max"].to_pylist(), strict=True))
    return first, {partition: offset + 1 for partition, offset in last.items()}
