"""A sender on kafka-python, which is Python all through: for producers of a few messages a second."""

from __future__ import annotations

import itertools
import threading
from functools import partial

from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError
from typing_extensions import override

from pipelines.streaming.clients import connected
from pipelines.streaming.producers.sender import BUFFER_BYTES, LINGER_MS, RECONNECT_MS, Report, Sender

_REQUEST_SECONDS = 30.0
# A topic whose partitions are not known any more is asked about for so long, and then again.
_METADATA_MS = 1_000


class PlainSender(Sender):
    """Sends thousands of messages a second; kafka-python's own buffer has no bound, so it is kept here."""

    @override
    def _open(self) -> None:
        self._room = threading.Condition()
        self._held: dict[int, tuple[int, Report | None]] = {}
        self._numbers = itertools.count()
        self._buffered = 0
        self._connection = connected(
            self._settings.streaming,
            KafkaProducer,
            enable_idempotence=True,
            acks="all",
            linger_ms=LINGER_MS,
            reconnect_backoff_max_ms=RECONNECT_MS,
            max_block_ms=_METADATA_MS,
            max_request_size=self._largest,
            request_timeout_ms=round(1000 * min(_REQUEST_SECONDS, self.delivery_seconds / 2)),
            delivery_timeout_ms=round(1000 * self.delivery_seconds),
            allow_auto_create_topics=False,
        )
        self._producer: KafkaProducer = self._connection.__enter__()

    @override
    def _take(self, key: bytes, value: bytes, report: Report | None) -> bool:
        size, number = len(key) + len(value), next(self._numbers)
        with self._room:
            if self._held and self._buffered + size > BUFFER_BYTES:
                return False
            self._held[number] = size, report
            self._buffered += size
        try:
            future = self._producer.send(self.topic, value=value, key=key)
        except KafkaTimeoutError:
            self._leaves(number)
            return False
        except KafkaError as error:
            self._accept()
            self._done(number, error)
        else:
            self._accept()
            future.add_callback(lambda _where: self._done(number, None))
            future.add_errback(partial(self._done, number))
        return True

    def _done(self, number: int, error: BaseException | None) -> None:
        held = self._leaves(number)
        if held is not None:
            # Its text has numbers in it that differ from one message to the next.
            self._answered(None if error is None else type(error).__name__, held[1])

    def _leaves(self, number: int) -> tuple[int, Report | None] | None:
        """Make room, once; None if that has been done."""
        with self._room:
            held = self._held.pop(number, None)
            if held is not None:
                self._buffered -= held[0]
                self._room.notify_all()
            return held

    @override
    def _serve(self, seconds: float) -> None:
        with self._room:
            self._room.wait(seconds)

    @override
    def _close(self) -> None:
        if not self._held:
            self._connection.__exit__(None, None, None)
            return
        # Without a broker the client neither gives up what is past its time nor can be closed: close() raises, and its
        # thread would try for ever.
        self._producer._sender.force_close()  # noqa: SLF001
        for number in list(self._held):
            self._done(number, KafkaTimeoutError())
