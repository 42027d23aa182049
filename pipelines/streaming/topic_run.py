"""Keeps one topic's query going: started where the table stands, and again after a failure that may pass."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.data_quality.dlq import DeadLetterQueue
from pipelines.errors import ConfigError
from pipelines.session import get_spark
from pipelines.storage.writing.marks import MarkedAheadError
from pipelines.streaming.clients import TopicNotFoundError
from pipelines.streaming.dead_letters import DeadLetters
from pipelines.streaming.landing import Landing, Place, StreamError
from pipelines.streaming.query import TopicQuery
from pipelines.streaming.ticks import TickLanding
from pipelines.timeframes import utc_now

if TYPE_CHECKING:
    from pipelines.config import Settings
    from pipelines.streaming.heal import Healer
    from pipelines.streaming.producers.sender import Sender
    from pipelines.streaming.status import BatchStatus, State, StatusBoard
    from pipelines.streaming.topics import Topic

_log = logging.getLogger(__name__)
# Another try makes these no better.
_FATAL = (MarkedAheadError, StreamError, ConfigError, TopicNotFoundError)
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
# Without a batch for so long, trying is given up.
_GIVE_UP_SECONDS = 600.0
_LOOK_SECONDS = 0.1
OnStatus = Callable[["BatchStatus"], None]


class Mode(StrEnum):
    """How long a stream goes on: until it is stopped, to the present end of the topic, or for one micro-batch."""

    CONTINUOUS = "continuous"
    AVAILABLE_NOW = "available-now"
    ONCE = "once"


@dataclass(frozen=True, slots=True)
class StreamResult:
    """What became of one topic's stream.

    Attributes:
        topic: the topic.
        batches: micro-batches that landed.
        rows: messages read.
        landed: rows committed.
        refused: messages in the dead letters.
        late: ticks that came after their bar was closed.
        bars: versions of bars built.
        lost: offsets that had expired before they were read.
        error: why it failed; None if it ended well.
    """

    topic: str
    batches: int = 0
    rows: int = 0
    landed: int = 0
    refused: int = 0
    late: int = 0
    bars: int = 0
    lost: int = 0
    error: str | None = None

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Workshop:
    """What the queries of one process share."""

    settings: Settings
    place: Place
    board: StatusBoard
    healer: Healer
    dlq: Sender | None


class TopicRun:
    """Runs one topic on a thread of its own."""

    def __init__(
        self, topic: Topic, checkpoint: Path, shop: Workshop, mode: Mode, stop: threading.Event, on_status: OnStatus
    ) -> None:
        self._topic = topic
        self._checkpoint = checkpoint
        self._shop = shop
        self._mode = mode
        self._stop = stop
        self._on_status = on_status
        self._last: BatchStatus | None = None
        self.result = StreamResult(topic.name)

    def work(self) -> None:
        """Run the query until it ends well, cannot work, or, where it is to go on, has failed for ten minutes."""
        pause, since = _FIRST_PAUSE, time.monotonic()
        while True:
            before = self.result.batches
            error = self._try()
            if error is None:
                break
            if self.result.batches > before:
                pause, since = _FIRST_PAUSE, time.monotonic()
            if self._is_final(error) or time.monotonic() - since > _GIVE_UP_SECONDS:
                break
            _log.warning("%s: %s; trying again in %.0f s", self._topic.name, _line(error), pause)
            self._stop.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        self._end(error)

    def _is_final(self, error: BaseException) -> bool:
        """Say whether another try is of no use, or not wanted: who waits for the end is told at once."""
        return self._stop.is_set() or self._mode is not Mode.CONTINUOUS or isinstance(error, _FATAL)

    def _try(self) -> BaseException | None:
        """Run the query once and return why it failed."""
        shop = self._shop
        landing = self._landing()
        query = TopicQuery(shop.settings, self._topic, landing, self._checkpoint, shop.place.run_id, self._note)
        spark = get_spark(shop.settings, needs=["kafka"])
        once = self._mode is Mode.ONCE
        try:
            with query.running(spark, available_now=self._mode is not Mode.CONTINUOUS, only_one=once):
                while query.active and not self._stop.wait(_LOOK_SECONDS):
                    if self._mode is Mode.CONTINUOUS:
                        query.idle()
        except Exception as error:  # noqa: BLE001 - whatever it is, the other topics go on
            return query.error() or error
        return query.error()

    def _landing(self) -> Landing:
        shop = self._shop
        queue = DeadLetterQueue(shop.settings.resolve(shop.settings.dlq.path))
        dead = DeadLetters(queue, self._topic, shop.dlq.send if shop.dlq else None)
        if self._topic.is_ticks:
            return TickLanding(self._topic, shop.place, shop.settings.streaming, dead, shop.healer.heal)
        return Landing(self._topic, shop.place, shop.settings.streaming, dead)

    def _note(self, status: BatchStatus) -> None:
        status = replace(status, unhealed=self._shop.healer.unhealed)
        new_lost = set(status.lost) - set(self._last.lost if self._last else ())
        done = self.result
        self.result = replace(
            done,
            batches=done.batches + bool(status.rows),
            rows=done.rows + status.rows,
            landed=done.landed + status.landed,
            refused=done.refused + status.refused,
            late=done.late + status.late,
            bars=done.bars + status.bars,
            lost=done.lost + sum(until - start for _, start, until in new_lost),
        )
        self._last = status
        self._shop.board.write(status)
        self._on_status(status)

    def _end(self, error: BaseException | None) -> None:
        told = None if error is None else _line(error)
        if told is not None:
            _log.error("%s: %s", self._topic.name, told)
            self.result = replace(self.result, error=told)
        if self._last is not None:
            state: State = "stopped" if error is None else "failed"
            self._shop.board.write(replace(self._last, finished_at=utc_now(), state=state, error=told))


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
