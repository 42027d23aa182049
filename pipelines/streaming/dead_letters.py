"""Refused messages: each once in the dead letter queue's folder, and told in a Kafka topic."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.data_quality.dlq import record_json
from pipelines.data_quality.dlq_stream import head_of, rows_of
from pipelines.edge import RefusedRow
from pipelines.errors import LakehouseError
from pipelines.streaming.checking import PROVIDER, TOPIC
from pipelines.streaming.decoding import OFFSET, PARTITION

if TYPE_CHECKING:
    from pipelines.data_quality.dlq import DeadLetterQueue
    from pipelines.streaming.topics import Topic

REFUSED, EXPIRED = "stream_message_refused", "stream_offsets_expired"
# A file's time and a commit's are of different clocks where the folder is on a server.
_SLACK = timedelta(minutes=5)
_log = logging.getLogger(__name__)
Position = tuple[int, int]
# Takes a key and a value; what is told may be told again after a crash.
Tell = Callable[[bytes, bytes], object]


class DeadLetters:
    """The dead letters of one topic; the folder is the record, the Kafka topic only tells of it."""

    def __init__(self, queue: DeadLetterQueue, topic: Topic, tell: Tell | None = None) -> None:
        self._queue = queue
        self._topic = topic
        self._tell = tell
        self._written: set[Position] = set()

    def recall(self, reached: Mapping[int, int], newer_than: datetime | None) -> None:
        """Look up what was refused beyond the last commit, so that it is not written again, in whatever batch it comes.

        Args:
            reached: the next offset of each partition.
            newer_than: when the last commit was made (aware UTC); older files need not be looked into.

        Raises:
            DeadLetterError: a file that has to be looked into is damaged; names it.
        """
        self._written = {
            position
            for path in self._queue.files()
            if self._may_hold(path, newer_than)
            for position in positions_in(path)
            if position[1] >= reached.get(position[0], 0)
        }

    def write(self, refused: Sequence[RefusedRow]) -> None:
        """Write the refused messages that are not there yet.

        Raises:
            OSError: they cannot be written; the batch must not be committed.
        """
        new = [row for row in refused if _position(row.record) not in self._written]
        if new:
            self._queue.write(REFUSED, self._context(), new)
        # Those that were written before may not have been told.
        self._told(refused)

    def expired(self, ranges: Sequence[tuple[int, int, int]]) -> None:
        """Write which offsets, [from, until) of a partition, were gone before they were read.

        Raises:
            OSError: it cannot be written.
        """
        rows = [
            RefusedRow(
                {TOPIC: self._topic.name, PARTITION: partition, "from_offset": start, "until_offset": end},
                "expired before it was read",
                None,
            )
            for partition, start, end in ranges
        ]
        self._queue.write(EXPIRED, self._context(), rows)
        self._told(rows)

    def _told(self, rows: Sequence[RefusedRow]) -> None:
        if self._tell is None:
            return
        for row in rows:
            key = f"{self._topic.name}/{row.record.get(PARTITION)}/{row.record.get(OFFSET)}"
            try:
                self._tell(key.encode(), record_json(row).encode("utf-8", "backslashreplace"))
            except (LakehouseError, BufferError) as error:
                # The folder has it.
                _log.warning("%s is not told of in Kafka: %s", key, error)

    def _context(self) -> dict[str, object]:
        return {"dataset": self._topic.contract.id, "topic": self._topic.name, "provider": PROVIDER}

    def _may_hold(self, path: Path, newer_than: datetime | None) -> bool:
        if newer_than is not None and path.stat().st_mtime < (newer_than - _SLACK).timestamp():
            return False
        return bool(head_of(path).get("context", {}).get("topic") == self._topic.name)


def positions_in(path: Path) -> list[Position]:
    """Return the partition and offset of each message in a dead letter file.

    Raises:
        DeadLetterError: the file is damaged; names it.
    """
    return [found for record, _ in rows_of(path) if (found := _position(record)) is not None]


def _position(record: Mapping[str, object]) -> Position | None:
    partition, offset = record.get(PARTITION), record.get(OFFSET)
    return (partition, offset) if isinstance(partition, int) and isinstance(offset, int) else None
