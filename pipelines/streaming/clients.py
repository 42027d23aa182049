"""The one door to Kafka: how its clients are configured, opened and closed, and what is said when it is not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    NodeNotReadyError,
    RequestTimedOutError,
    SaslAuthenticationFailedError,
)
from kafka.net.compat import KafkaNetClient

from pipelines.config import Settings, StreamingSettings
from pipelines.errors import LakehouseError
from pipelines.streaming.client_logs import hide_credentials, overheard
from pipelines.streaming.client_options import confluent_options, kafka_options, spark_options

__all__ = [
    "BrokerError",
    "Offsets",
    "TopicNotFoundError",
    "admin",
    "confluent_options",
    "connected",
    "consumer",
    "explained",
    "kafka_options",
    "offsets",
    "spark_options",
]

_BOOTSTRAP_MS = 5_000
_REQUEST_MS = 15_000


class BrokerError(LakehouseError):
    """Kafka did not answer, or refused; names the address and what to look at."""


class TopicNotFoundError(BrokerError):
    """The broker has no such topic."""


class _Closable(Protocol):
    def close(self) -> None: ...


_Client = TypeVar("_Client", bound=_Closable)


@dataclass(frozen=True, slots=True)
class Offsets:
    """Of each partition of a topic, the first offset that is still held and the one that comes next."""

    beginning: Mapping[int, int]
    end: Mapping[int, int]

    @property
    def held(self) -> int:
        """How many offsets are held: the messages, of a topic that is neither compacted nor transactional."""
        return sum(end - self.beginning[partition] for partition, end in self.end.items())


@contextmanager
def admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    """Open a client that creates and describes topics.

    Raises:
        BrokerError: no broker answers within seconds, or one refuses what it is asked.
    """
    with connected(settings.streaming, KafkaAdminClient, request_timeout_ms=_REQUEST_MS) as client:
        yield client


@contextmanager
def consumer(settings: Settings, **options: object) -> Iterator[KafkaConsumer]:
    """Open a consumer that is in no group, commits nothing and makes no topics; `options` are kafka-python's.

    Raises:
        BrokerError: no broker answers within seconds, or one refuses what it is asked.
    """
    usual: dict[str, object] = {
        "enable_auto_commit": False,
        "allow_auto_create_topics": False,
        "request_timeout_ms": _REQUEST_MS,
    }
    with connected(settings.streaming, KafkaConsumer, **(usual | options)) as client:
        yield client


@contextmanager
def connected(streaming: StreamingSettings, kind: Callable[..., _Client], **options: object) -> Iterator[_Client]:
    """Open a kafka-python client of any kind, and close it.

    Raises:
        BrokerError: no broker answers within seconds, or one refuses what it is asked, then or later.
    """
    hide_credentials()
    with explained(streaming):
        client = _opened(streaming, kind, options)
        try:
            yield client
        finally:
            client.close()


def offsets(settings: Settings, topic: str, client: KafkaConsumer | None = None) -> Offsets:
    """Return what the broker holds of a topic; `client` is a consumer to ask, if one is open.

    Raises:
        TopicNotFoundError: the broker has no such topic.
        BrokerError: no broker answers within seconds.
    """
    if client is None:
        with consumer(settings) as opened:
            return offsets(settings, topic, opened)
    with explained(settings.streaming):
        # Asks the broker; a consumer by itself looks for new partitions every few minutes.
        client.topics()
        partitions = [TopicPartition(topic, number) for number in sorted(client.partitions_for_topic(topic))]
        if not partitions:
            raise TopicNotFoundError(
                f"no topic {topic!r} at {settings.streaming.bootstrap_servers}; "
                f"create it with `lakehouse topics create {topic}`"
            )
        beginning, end = client.beginning_offsets(partitions), client.end_offsets(partitions)
    return Offsets(
        {each.partition: beginning[each] for each in partitions}, {each.partition: end[each] for each in partitions}
    )


@contextmanager
def explained(streaming: StreamingSettings) -> Iterator[None]:
    """Turn what kafka-python raises into an error that names the broker and the fix.

    Raises:
        BrokerError: something of kafka-python was raised.
    """
    try:
        yield
    except (KafkaTimeoutError, KafkaConnectionError, NodeNotReadyError) as error:
        raise _unreachable(streaming, error) from None
    except KafkaError as error:
        raise BrokerError(f"Kafka at {streaming.bootstrap_servers}: {error}") from None


def _opened(streaming: StreamingSettings, kind: Callable[..., _Client], options: dict[str, object]) -> _Client:
    networks: list[KafkaNetClient] = []

    def network(**configuration: object) -> KafkaNetClient:
        networks.append(KafkaNetClient(**configuration))
        return networks[-1]

    given = kafka_options(streaming) | {"bootstrap_timeout_ms": _BOOTSTRAP_MS, "kafka_client": network} | options
    with overheard() as failures:
        try:
            return kind(**given)
        except BaseException as error:
            # A client that did not come up closes nothing of itself, and its thread would try for ever.
            for each in networks:
                each.close()
            if isinstance(error, KafkaTimeoutError):
                raise _unreachable(streaming, _reason(failures) or error) from None
            raise


def _reason(failures: list[BaseException]) -> BaseException | None:
    """Return what says most of why no attempt succeeded: the last, but rather that we are refused than how it ended."""
    telling = [each for each in failures if not isinstance(each, (KafkaTimeoutError, RequestTimedOutError))]
    refused = [each for each in telling if isinstance(each, SaslAuthenticationFailedError)]
    return next(reversed(refused or telling), None)


def _unreachable(streaming: StreamingSettings, reason: object) -> BrokerError:
    user = f" as {streaming.sasl_username}" if streaming.security_protocol.startswith("sasl") else ""
    address = f"{streaming.bootstrap_servers} ({streaming.security_protocol}{user})"
    return BrokerError(
        f"no Kafka broker to work with at {address}: {reason}; start one, or mend streaming.bootstrap_servers "
        "or the security settings beside it"
    )
