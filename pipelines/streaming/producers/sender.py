"""Messages on their way to a topic: idempotent, acknowledged by every replica, counted; none is dropped in silence."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

from pipelines.monitoring import metrics
from pipelines.streaming.clients import offsets

if TYPE_CHECKING:
    from pipelines.config import Settings

# Told of one message: None if it was delivered, else why not.
Report: TypeAlias = Callable[[str | None], None]

DELIVERY_SECONDS = 60.0
BUFFER_BYTES = 64 * 1024 * 1024
LINGER_MS = 5
# How long a client waits at most until it tries again to reach a broker that has gone.
RECONNECT_MS = 1_000
_TURN_SECONDS = 0.1
# The client itself gives a message up in time; this is for its answer to arrive.
_GRACE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Deliveries:
    """What became of the messages that a sender took; `failed` is by reason, the rest are on their way."""

    taken: int
    delivered: int
    failed: Mapping[str, int]

    @property
    def lost(self) -> int:
        """Messages that were not delivered; one whose answer was lost may be in the topic all the same."""
        return sum(self.failed.values())

    @property
    def waiting(self) -> int:
        """Messages without an answer so far."""
        return self.taken - self.delivered - self.lost


class Sender(ABC):
    """Sends to one topic; a context manager, and on leaving it everything that was taken has an answer.

    What is taken is buffered up to 64 MiB and retried until `delivery_seconds` are over; then it has failed, which
    kafka-python may tell only once it has a broker again. A full buffer holds the caller back. `send` and `wait` are
    for one thread, everything else for any.
    """

    def __init__(self, settings: Settings, topic: str, delivery_seconds: float = DELIVERY_SECONDS) -> None:
        self._settings = settings
        self.topic = topic
        self.delivery_seconds = delivery_seconds
        # What a topic takes that `create_topics` made: what is too large for the lake is for the lake to refuse.
        self._largest = 3 * max(1024 * 1024, settings.streaming.max_message_bytes)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._giving_up = self._ended = False
        self._too_late = f"no answer within {delivery_seconds:g} s"
        self._taken = self._delivered = 0
        self._failed: Counter[str] = Counter()
        self._metric = metrics.kafka_messages_produced_total.labels(topic=topic)

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            BrokerError: no broker answers within seconds, or it has no such topic.
        """
        offsets(self._settings, self.topic)
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until everything is answered, `delivery_seconds` and a little at most, and close."""
        over = time.monotonic() + self.delivery_seconds + _GRACE_SECONDS
        while self.deliveries().waiting and time.monotonic() < over:
            self._serve(_TURN_SECONDS)
        self._giving_up = True
        self._close()
        with self._lock:
            self._ended = True
            if unanswered := self._taken - self._delivered - sum(self._failed.values()):
                self._failed[self._too_late] += unanswered

    def send(self, key: bytes, value: bytes, report: Report | None = None) -> bool:
        """Take a message; waits where the buffer is full. Returns False, and has not taken it, once it is stopped.

        `report` is told what became of it, on any thread.

        Raises:
            BrokerError: the client can send nothing any more.
        """
        patience: float | None = None
        while not self._stopped.is_set():
            if self._take(key, value, report):
                return True
            patience = patience or time.monotonic() + self.delivery_seconds + _GRACE_SECONDS
            if time.monotonic() > patience:
                self._accept()
                self._answered(f"no room for it within {self.delivery_seconds:g} s", report)
                return True
            self._serve(_TURN_SECONDS)
        return False

    def wait(self, seconds: float) -> bool:
        """Let time pass, or less if it is stopped; returns whether it goes on."""
        end = time.monotonic() + seconds
        while not self._stopped.is_set() and (left := end - time.monotonic()) > 0:
            self._serve(min(left, _TURN_SECONDS))
        return not self._stopped.is_set()

    def stop(self) -> None:
        """Take nothing more, and do not wait any longer for room."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Whether it was asked to stop."""
        return self._stopped.is_set()

    def deliveries(self) -> Deliveries:
        """Return the counts as they are now."""
        with self._lock:
            return Deliveries(self._taken, self._delivered, dict(self._failed))

    @abstractmethod
    def _open(self) -> None:
        """Make the client."""

    @abstractmethod
    def _take(self, key: bytes, value: bytes, report: Report | None) -> bool:
        """Give a message to the client, and call `_accept`; False, and neither, if there is no room."""

    @abstractmethod
    def _serve(self, seconds: float) -> None:
        """Let answers come in, for up to so long."""

    @abstractmethod
    def _close(self) -> None:
        """End the client; what it still holds is given up and answered so."""

    def _accept(self) -> None:
        with self._lock:
            self._taken += 1

    def _answered(self, failure: str | None, report: Report | None) -> None:
        """Count an answer; one that comes after the end has been counted as missing."""
        if failure is not None and self._giving_up:
            failure = self._too_late
        with self._lock:
            if self._ended:
                return
            if failure is None:
                self._delivered += 1
            else:
                self._failed[failure] += 1
        if failure is None:
            self._metric.inc()
        if report is not None:
            report(failure)
