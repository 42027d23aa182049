"""How each stream is getting on: a small file beside the lake's tables, written after every micro-batch."""

from __future__ import annotations

import json
import logging
import threading
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, get_args

from pipelines.errors import LakehouseError, StorageError
from pipelines.monitoring import metrics
from pipelines.storage.names import lake_root
from pipelines.storage.stores.objects import objects_of
from pipelines.timeframes import parse_instant

if TYPE_CHECKING:
    from pipelines.storage import DeltaLakeManager

logger = logging.getLogger(__name__)

State = Literal["running", "stopped", "failed"]
FOLDER = "_streams"
# Over how much time rows a second are reckoned, and how many batches are told one by one.
RATE_OVER = timedelta(minutes=1)
_LAST_BATCHES = 12
_SUFFIX = ".json"
# So many batches end in the time that rates are reckoned over, even with a trigger of a tenth of a second.
_REMEMBERED = 600


class LostRange(NamedTuple):
    """Offsets [start, until) of a partition that expired at the broker before they were read."""

    partition: int
    start: int
    until: int

    @property
    def messages(self) -> int:
        """How many offsets it has."""
        return self.until - self.start


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """One topic's stream as its last micro-batch left it.

    Attributes:
        topic: the topic.
        batch_id: number of the batch since the stream's start.
        run_id: the run that the batch's rows carry.
        finished_at: when it ended, aware UTC.
        seconds: how long it took.
        rows: messages it read.
        landed: rows it committed to the topic's table.
        refused: messages it sent to the dead letters.
        late: ticks of bars that had been built before, which are built anew.
        bars: bars it built.
        watermark: event time (aware UTC) up to which bars are closed; None for topics without bars.
        positions: the next offset to read, by partition.
        ends: the broker's end offset at the time, by partition.
        lost: offsets that had expired before they were read, since the stream's start.
        state: whether the stream goes on, was stopped or has failed.
        error: why it failed.
        unhealed: what the providers could not give of what the stream missed, in words.
    """

    topic: str
    batch_id: int
    run_id: str
    finished_at: datetime
    seconds: float
    rows: int
    landed: int
    refused: int
    late: int
    bars: int
    watermark: datetime | None
    positions: Mapping[int, int]
    ends: Mapping[int, int]
    lost: tuple[tuple[int, int, int], ...] = ()
    state: State = "running"
    error: str | None = None
    unhealed: tuple[str, ...] = ()

    @property
    def lag(self) -> dict[int, int]:
        """Messages that were at the broker and not read yet, by partition."""
        return lag(self.positions, self.ends)

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        return {name: getattr(self, name) for name in self.__slots__} | {
            "finished_at": self.finished_at.isoformat(),
            "watermark": self.watermark.isoformat() if self.watermark else None,
            "positions": {str(partition): offset for partition, offset in sorted(self.positions.items())},
            "ends": {str(partition): offset for partition, offset in sorted(self.ends.items())},
            "lost": [list(each) for each in self.lost],
            "unhealed": list(self.unhealed),
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Self:
        """Return a status from what `as_dict` returned.

        Raises:
            KeyError: something is missing.
            TypeError: a value is of another kind.
            ValueError: a value cannot be read.
            InvalidRangeError: an instant cannot be read.
        """
        if found["state"] not in get_args(State):
            raise ValueError(f"unknown state {found['state']!r}")
        values = {name: found[name] for name in cls.__slots__}
        values |= {
            "finished_at": parse_instant(found["finished_at"]),
            "watermark": parse_instant(found["watermark"]) if found["watermark"] else None,
            "positions": {int(partition): int(offset) for partition, offset in found["positions"].items()},
            "ends": {int(partition): int(offset) for partition, offset in found["ends"].items()},
            "lost": tuple(LostRange(*map(int, each)) for each in found["lost"]),
            "unhealed": tuple(found["unhealed"]),
        }
        return cls(**values)


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """What is kept of a topic's stream: its last status, and what is known of the batches before.

    Attributes:
        status: the last batch.
        rows_per_second: messages read a second, over the minute before the status.
        batch_seconds: how long the last batches took, oldest first, twelve at most.
        rows: messages read since the stream's start.
        refused: messages sent to the dead letters since the stream's start.
    """

    status: BatchStatus
    rows_per_second: float
    batch_seconds: tuple[float, ...]
    rows: int
    refused: int

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        return {
            "status": self.status.as_dict(),
            "rows_per_second": round(self.rows_per_second, 3),
            "batch_seconds": [round(seconds, 3) for seconds in self.batch_seconds],
            "rows": self.rows,
            "refused": self.refused,
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Self:
        """Return a record from what `as_dict` returned; errors are those of `BatchStatus.from_dict`."""
        return cls(
            BatchStatus.from_dict(found["status"]),
            float(found["rows_per_second"]),
            tuple(map(float, found["batch_seconds"])),
            int(found["rows"]),
            int(found["refused"]),
        )


@dataclass(slots=True)
class _Memory:
    """What this process has seen of one topic."""

    last: BatchStatus | None = None
    batches: deque[BatchStatus] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    rows: int = 0
    refused: int = 0


class StatusBoard:
    """The streams' files of one lake, `_streams/<topic>.json`: each is written whole or not at all."""

    def __init__(self, manager: DeltaLakeManager) -> None:
        self._address = manager.storage_path
        self._objects = objects_of(lake_root(manager.storage_path))
        self._memory: dict[str, _Memory] = defaultdict(_Memory)
        self._lock = threading.Lock()

    def write(self, status: BatchStatus) -> None:
        """Count a batch, set the metrics and put the topic's file in place of the one before.

        A status that is not of a running stream tells of its end and counts no batch: its numbers are those of the last
        one. Nor does one without rows, which tells of the passing of time. What cannot be written is warned of, for the
        batch itself has landed.
        """
        with self._lock:
            record = self._remembered(status)
        try:
            self._objects.put(_path(status.topic), json.dumps(record.as_dict(), indent=1).encode())
        except (LakehouseError, OSError) as error:
            logger.warning("the status of %s was not written: %s", status.topic, error)

    def read_all(self) -> list[StreamRecord]:
        """Return what is known of every topic that has been streamed into this lake, in the order of their names.

        Raises:
            StorageError: a file cannot be read, or is no status; names it.
        """
        listed = [each.path for each in self._objects.list(FOLDER) if each.path.endswith(_SUFFIX)]
        return sorted(map(self._read, listed), key=lambda record: record.status.topic)

    def _remembered(self, status: BatchStatus) -> StreamRecord:
        known = self._memory[status.topic]
        set_metrics(status, known.last)
        known.last = status
        if _is_batch(status):
            known.batches.append(status)
            known.rows += status.rows
            known.refused += status.refused
        batches = list(known.batches)
        rate = rows_per_second(batches, status.finished_at)
        seconds = tuple(batch.seconds for batch in batches[-_LAST_BATCHES:])
        return StreamRecord(status, rate, seconds, known.rows, known.refused)

    def _read(self, path: str) -> StreamRecord:
        try:
            return StreamRecord.from_dict(json.loads(self._objects.read(path)))
        except (LakehouseError, OSError) as error:
            raise StorageError(f"cannot read {self._address}/{path}: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StorageError(
                f"{self._address}/{path} is not the status of a stream; remove it, the stream writes it anew"
            ) from error


def rows_per_second(batches: Sequence[BatchStatus], end: datetime) -> float:
    """Return messages read a second over the minute before an instant (aware UTC); batches are oldest first."""
    inside = [batch for batch in batches if batch.finished_at > end - RATE_OVER]
    if not inside:
        return 0.0
    start = inside[0].finished_at - timedelta(seconds=inside[0].seconds)
    if len(inside) < len(batches):
        # The minute began in a pause, unless its first batch is longer than that.
        start = min(start, end - RATE_OVER)
    return sum(batch.rows for batch in inside) / max((end - start).total_seconds(), 0.001)


def lag(positions: Mapping[int, int], ends: Mapping[int, int]) -> dict[int, int]:
    """Return the messages from each next offset to the end offset, by partition; an unknown one is read from 0."""
    return {partition: max(0, end - positions.get(partition, 0)) for partition, end in sorted(ends.items())}


def set_metrics(status: BatchStatus, before: BatchStatus | None) -> None:
    """Set the metrics of a topic's stream.

    Args:
        status: how it is now; only that of a running stream which has read something is a batch to be counted.
        before: what the metrics were set from the last time.
    """
    topic = status.topic
    for partition, messages in status.lag.items():
        metrics.stream_lag_messages.labels(topic=topic, partition=str(partition)).set(messages)
    lost = set(status.lost) - set(before.lost if before else ())
    metrics.stream_lost_offsets_total.labels(topic=topic).inc(sum(LostRange(*each).messages for each in lost))
    if status.watermark is not None:
        behind = (status.finished_at - status.watermark).total_seconds()
        metrics.stream_watermark_seconds_behind.labels(topic=topic).set(behind)
    if _is_batch(status):
        metrics.kafka_messages_consumed_total.labels(topic=topic).inc(status.rows)
        metrics.stream_refused_total.labels(topic=topic).inc(status.refused)
        metrics.stream_batch_seconds.labels(topic=topic).observe(status.seconds)


def _is_batch(status: BatchStatus) -> bool:
    return status.state == "running" and status.rows > 0


def _path(topic: str) -> str:
    return f"{FOLDER}/{topic}{_SUFFIX}"
