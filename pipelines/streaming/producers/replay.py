"""Plays what is known to a topic, in the rhythm of its events or another one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pipelines.errors import ConfigError
from pipelines.sources.base import MARKET_DATA
from pipelines.streaming.encoding import EncodingError, encoder, message_key, subject_column
from pipelines.timeframes import Timeframe, micros, utc_now

if TYPE_CHECKING:
    from pipelines.streaming.producers.origins import Chunk
    from pipelines.streaming.producers.pace import Pace
    from pipelines.streaming.producers.sender import Sender
    from pipelines.streaming.topics import Topic

# A shorter wait costs more than it is worth.
_SHORTEST_WAIT = 0.002
_INSTANT = timedelta(microseconds=1)


@dataclass(slots=True)
class Played:
    """What a replay has come to so far; times are aware UTC, `refused` rows could not be messages."""

    messages: int = 0
    bytes: int = 0
    first: datetime | None = None
    last: datetime | None = None
    subjects: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    whole: bool = False

    def add(self, subject: str, event_time: datetime, size: int) -> None:
        """Count a message."""
        self.messages += 1
        self.bytes += size
        self.subjects[subject] += 1
        self.first = self.first or event_time
        self.last = event_time


class Replay:
    """Sends chunks of rows to a topic.

    With `to_now`, events happen when they are due: the first one now, and none ahead of the clock however fast it
    plays. A tick that is moved is another tick, so its id gets the new instant added.
    """

    def __init__(
        self,
        topic: Topic,
        chunks: Iterable[Chunk],
        pace: Pace,
        *,
        limit: int | None = None,
        to_now: bool = False,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Prepare a replay; nothing is read or sent yet.

        Raises:
            ConfigError: `to_now`, and the topic is not one of ticks.
        """
        if to_now and not topic.is_ticks:
            raise ConfigError(f"--shift-to-now is for ticks; messages of {topic.name} stay at their own times")
        self._topic = topic
        self._chunks = chunks
        self._pace = pace
        self._limit = limit
        self._to_now = to_now
        self._clock = clock
        self._time, self._subject = str(topic.contract.event_time), subject_column(topic.contract)
        self._encode, self._key = encoder(topic), message_key(topic.contract)
        self._moved_to = datetime.min.replace(tzinfo=UTC)
        self.played = Played()

    def run(self, sender: Sender) -> Played:
        """Send everything, or what there is until the limit or until the sender is stopped.

        Raises:
            BrokerError: nothing can be sent any more.
        """
        begun, began = time.monotonic(), self._clock()
        for row, at in self._rows():
            ahead = self._pace.due(at)
            left = begun + ahead - time.monotonic()
            if left > _SHORTEST_WAIT and not sender.wait(left):
                return self.played
            due = began + timedelta(seconds=ahead) if self._pace.is_timed else self._clock()
            if not self._play(self._moved(row, due) if self._to_now else row, sender.send):
                return self.played
        self.played.whole = True
        return self.played

    def preview(self) -> Played:
        """Read and encode everything up to the limit, at once, and send nothing."""
        for row, _ in self._rows():
            self._play(row, lambda _key, _value: True)
        self.played.whole = True
        return self.played

    def _play(self, row: Mapping[str, Any], send: Callable[[bytes, bytes], bool]) -> bool:
        """Make a row a message and send it; returns whether to go on."""
        try:
            value = self._encode(row)
        except EncodingError as error:
            self.played.refused[str(error)] += 1
            return True
        if not send(self._key(row), value):
            return False
        self.played.add(row[self._subject], row[self._time], len(value))
        return True

    def _moved(self, row: Mapping[str, Any], instant: datetime) -> dict[str, Any]:
        """Return a tick as it happens at another instant, after the one before it."""
        self._moved_to = max(instant, self._moved_to + _INSTANT)
        return {**row, self._time: self._moved_to, "tick_id": f"{row['tick_id']}@{micros(self._moved_to)}"}

    def _rows(self) -> Iterator[tuple[dict[str, Any], datetime]]:
        """Yield rows, each with the instant from which on it is known: of a bar that is its close."""
        length = Timeframe.M1.step if self._topic.contract.id == MARKET_DATA else timedelta()
        for chunk in self._chunks:
            self.played.refused.update(chunk.refused)
            for row in chunk.rows.iter_rows(named=True):
                if self._limit is not None and self.played.messages >= self._limit:
                    return
                yield row, row[self._time] + length
