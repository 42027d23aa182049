"""A sender on confluent-kafka, whose work is done in C: for replays, which want its speed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException, Producer
from typing_extensions import override

from pipelines.streaming.clients import BrokerError, confluent_options
from pipelines.streaming.producers.sender import BUFFER_BYTES, LINGER_MS, RECONNECT_MS, Report, Sender

if TYPE_CHECKING:
    from confluent_kafka import Message

_log = logging.getLogger(__name__)


class FastSender(Sender):
    """Sends eight times as many messages a second as `PlainSender`; equal keys go to the same partitions."""

    @override
    def _open(self) -> None:
        self._alone = False
        own = {
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": LINGER_MS,
            "reconnect.backoff.max.ms": RECONNECT_MS,
            "delivery.timeout.ms": round(self.delivery_seconds * 1000),
            "message.max.bytes": self._largest,
            "queue.buffering.max.kbytes": BUFFER_BYTES // 1024,
            # Its own default would send a key elsewhere than Java and kafka-python do.
            "partitioner": "murmur2_random",
            # It would tell of every try to connect.
            "log_level": 2,
            "error_cb": self._told,
        }
        self._producer = Producer(confluent_options(self._settings.streaming) | own, logger=_log)

    @override
    def _take(self, key: bytes, value: bytes, report: Report | None) -> bool:
        def answered(error: KafkaError | None, _message: Message) -> None:
            self._alone = self._alone and error is not None
            self._answered(None if error is None else error.str(), report)

        try:
            self._producer.produce(self.topic, value, key, on_delivery=answered)
        except BufferError:
            return False
        except KafkaException as refused:
            error: KafkaError = refused.args[0]
            if error.fatal():
                raise BrokerError(f"Kafka at {self._settings.streaming.bootstrap_servers}: {error.str()}") from None
            self._accept()
            self._answered(error.str(), report)
        else:
            self._accept()
        self._producer.poll(0)
        return True

    @override
    def _serve(self, seconds: float) -> None:
        self._producer.poll(seconds)

    @override
    def _close(self) -> None:
        self._producer.purge()
        self._producer.poll(0)

    def _told(self, error: KafkaError) -> None:
        """Say that no broker is there, once until one answers."""
        if error.name() == "_ALL_BROKERS_DOWN" and not self._alone:
            self._alone = True
            _log.warning("no Kafka broker at %s; trying again", self._settings.streaming.bootstrap_servers)
