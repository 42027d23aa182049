"""Streaming ingestion: topics to bronze in micro-batches, each message once, until told to stop."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from pipelines.session import get_spark
from pipelines.storage import DeltaLakeManager
from pipelines.streaming.clients import BrokerError
from pipelines.streaming.heal import Healer
from pipelines.streaming.landing import Place
from pipelines.streaming.producers.plain import PlainSender
from pipelines.streaming.query import alone
from pipelines.streaming.status import StatusBoard
from pipelines.streaming.topic_run import Mode, OnStatus, StreamResult, TopicRun, Workshop
from pipelines.streaming.upkeep import Compactor

if TYPE_CHECKING:
    from pipelines.config import Settings
    from pipelines.streaming.topics import Topic

__all__ = ["Mode", "StreamIngester", "StreamResult"]

_log = logging.getLogger(__name__)
# A run that ends by itself leaves the rest to the next one.
_HEALED_WITHIN_SECONDS = 120.0


class StreamIngester:
    """Reads topics into a lake.

    Args:
        manager: the lake.
        settings: the brokers and the section streaming.
        topics: what to read, a query each.
        synthetic: whether the lake takes made-up data, and nothing else.
    """

    def __init__(
        self, manager: DeltaLakeManager, settings: Settings, topics: Sequence[Topic], *, synthetic: bool = False
    ) -> None:
        # The rows come to this process anyway, and need the marks in their commits.
        storage = settings.storage.model_copy(update={"engine": "embedded"})
        self._settings = settings.model_copy(update={"storage": storage})
        self._manager = DeltaLakeManager(manager.storage_path, self._settings)
        self._topics = topics
        self._synthetic = synthetic

    def run(
        self,
        mode: Mode = Mode.CONTINUOUS,
        stop: threading.Event | None = None,
        on_status: OnStatus = lambda _: None,
    ) -> list[StreamResult]:
        """Stream until told to stop, or with other modes until what is there has been read.

        A query that is to go on and fails is tried again from where its table stands, with growing pauses, for ten
        minutes; one that cannot work is given up at once. The others go on.

        Args:
            mode: how long.
            stop: ends it in good order when set: a batch under way is finished.
            on_status: is told of each batch, on any thread.

        Returns:
            A result for each topic, in their order.

        Raises:
            MixedOriginError: the lake holds data of the other origin.
            SparkUnavailableError: Spark cannot start, or lacks the kafka jars.
            StreamError: another process reads one of the topics into this lake.
        """
        self._manager.check_origin(synthetic=self._synthetic)
        # It prints what a batch raises; that is told in the results, and a batch left for the next start is no fault.
        logging.getLogger("py4j").setLevel(logging.CRITICAL)
        asked = stop or threading.Event()
        with ExitStack() as stack:
            checkpoints = [stack.enter_context(alone(self._manager, topic)) for topic in self._topics]
            get_spark(self._settings, needs=["kafka"])
            shop = stack.enter_context(self._workshop())
            runs = [
                TopicRun(topic, checkpoint, shop, mode, asked, on_status)
                for topic, checkpoint in zip(self._topics, checkpoints, strict=True)
            ]
            threads = [threading.Thread(target=run.work, name="stream") for run in runs]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if not asked.is_set():
                shop.healer.wait(_HEALED_WITHIN_SECONDS)
        return [run.result for run in runs]

    @contextmanager
    def _workshop(self) -> Iterator[Workshop]:
        """Open what the queries share; compact and heal while they run."""
        healer = Healer(self._manager, self._settings, self._synthetic)
        compactor = Compactor(self._manager, self._settings)
        place = Place(self._manager, str(uuid.uuid4()), self._synthetic, compactor.touched)
        healer.start()
        compactor.start()
        try:
            with ExitStack() as stack:
                dlq = _dlq_sender(self._settings, stack)
                yield Workshop(self._settings, place, StatusBoard(self._manager), healer, dlq)
        finally:
            healer.stop()
            compactor.stop()


def _dlq_sender(settings: Settings, stack: ExitStack) -> PlainSender | None:
    """Open what tells of dead letters in Kafka; without its topic the folder alone has them."""
    if settings.streaming.dlq_topic is None:
        return None
    try:
        return stack.enter_context(PlainSender(settings, settings.streaming.dlq_topic))
    except BrokerError as error:
        _log.warning("dead letters go to the folder alone: %s", error)
        return None
