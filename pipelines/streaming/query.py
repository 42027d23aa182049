"""One topic's Structured Streaming query: Spark reads, the driver lands, and the table says where to read on."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.storage.names import lake_root
from pipelines.storage.stores.locks import locked
from pipelines.streaming.clients import BrokerError, Offsets, consumer, offsets, spark_options
from pipelines.streaming.decoding import collected, decoded
from pipelines.streaming.landing import Landed, Landing, StreamError
from pipelines.streaming.status import BatchStatus
from pipelines.timeframes import utc_now

if TYPE_CHECKING:
    from kafka import KafkaConsumer
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

    from pipelines.config import Settings
    from pipelines.storage import DeltaLakeManager
    from pipelines.streaming.topics import Topic

_log = logging.getLogger(__name__)
_IDLE_TRIGGERS = 2


class _EndedError(Exception):
    """The stream is being stopped; the batch is left for the next start."""


class TopicQuery:
    """Runs the query of one topic once, from where the table stands; a new one is made for another try.

    Args:
        settings: the section streaming, and the brokers.
        topic: what to read.
        landing: where it goes.
        run_id: what its rows carry.
        checkpoint: a folder of Spark's own, made anew.
        on_status: is told of each batch.
    """

    def __init__(
        self,
        settings: Settings,
        topic: Topic,
        landing: Landing,
        checkpoint: Path,
        run_id: str,
        on_status: Callable[[BatchStatus], None],
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._landing = landing
        self._checkpoint = checkpoint
        self._run_id = run_id
        self._on_status = on_status
        self._lock = threading.RLock()
        self._ending = False
        self._left = False
        self._only_one = False
        self._query: StreamingQuery | None = None
        self._client: KafkaConsumer | None = None
        self._known = Offsets({}, {})
        self._last = time.monotonic()
        self.batches = 0
        self.failure: BaseException | None = None

    @contextmanager
    def running(self, spark: SparkSession, *, available_now: bool, only_one: bool) -> Iterator[TopicQuery]:
        """Run it for as long as the context lasts; a batch under way is finished.

        Args:
            spark: the session.
            available_now: read what is there and end, else go on.
            only_one: end after the first batch.

        Raises:
            BrokerError: Kafka cannot be reached or lacks the topic.
            StreamError: the topic was made anew.
            StorageError: the lake cannot be read or written.
        """
        with consumer(self._settings, metadata_max_age_ms=10_000) as client:
            self._client = client
            self._known = offsets(self._settings, self._topic.name, client)
            start = self._landing.resume(self._known)
            shutil.rmtree(self._checkpoint, ignore_errors=True)
            self._only_one = only_one
            self._query = self._started(spark, dict(start), available_now=available_now or only_one)
            try:
                yield self
            finally:
                self._stop()

    @property
    def active(self) -> bool:
        """Whether it goes on."""
        return self._query is not None and self._query.isActive and not (self._only_one and self.batches)

    def idle(self) -> None:
        """Let event time pass where no message has come for a while."""
        quiet = self._settings.streaming.trigger_seconds * _IDLE_TRIGGERS
        if time.monotonic() - self._last < quiet or not self._lock.acquire(blocking=False):
            return
        try:
            started = time.monotonic()
            bars = self._landing.idle(self._ask().end)
            self._last = time.monotonic()
            if bars:
                self._tell(Landed(bars=bars), self._last - started)
        finally:
            self._lock.release()

    def error(self) -> BaseException | None:
        """Return why it ended, None if it ended well."""
        if self.failure is not None or self._left or self._query is None:
            return self.failure
        return self._query.exception()

    def _started(self, spark: SparkSession, start: dict[int, int], *, available_now: bool) -> StreamingQuery:
        streaming, name = self._settings.streaming, self._topic.name
        source = (
            spark.readStream.format("kafka")
            .options(**spark_options(streaming))
            .option("subscribe", name)
            .option("startingOffsets", json.dumps({name: {str(p): offset for p, offset in start.items()}}))
            .option("maxOffsetsPerTrigger", str(streaming.max_messages_per_batch))
            # What expired is found out and told here, and then reading goes on.
            .option("failOnDataLoss", "false")
            .option("kafka.isolation.level", "read_committed")
            # Spark asks for a partition's ends after every poll; at the topic's end that waits for the fetch before.
            .option("kafka.fetch.max.wait.ms", "10")
            .option("kafka.max.poll.records", "20000")
            .load()
        )
        rows = decoded(source, self._topic, streaming.max_message_bytes)
        writer = (
            rows.writeStream.queryName(f"lakehouse {name}")
            .foreachBatch(self._on_batch)
            .option("checkpointLocation", self._checkpoint.as_uri())
        )
        if available_now:
            return writer.trigger(availableNow=True).start()
        return writer.trigger(processingTime=f"{round(streaming.trigger_seconds * 1000)} milliseconds").start()

    def _on_batch(self, rows: DataFrame, _batch_id: int) -> None:
        with self._lock:
            if self._ending or (self._only_one and self.batches):
                self._left = True
                raise _EndedError
            try:
                self._land(rows)
            except BaseException as error:
                self.failure = error
                if isinstance(error, Exception):
                    raise
                # A panic of a library in Rust is none; it would end the thread, and Java would wait for ever.
                raise StreamError(f"{self._topic.name}: {error}") from error

    def _land(self, rows: DataFrame) -> None:
        started = time.monotonic()
        messages = collected(rows)
        known = self._ask()
        landed = self._landing.land(messages, known.end, lambda: known.beginning)
        self.batches += 1
        self._last = time.monotonic()
        self._tell(landed, self._last - started)

    def _ask(self) -> Offsets:
        """Return what the broker holds now; what it held before, while it does not answer."""
        try:
            self._known = offsets(self._settings, self._topic.name, self._client)
        except BrokerError as error:
            _log.warning("%s", error)
        return self._known

    def _tell(self, landed: Landed, seconds: float) -> None:
        landing = self._landing
        status = BatchStatus(
            topic=self._topic.name,
            batch_id=self.batches,
            run_id=self._run_id,
            finished_at=utc_now(),
            seconds=seconds,
            rows=landed.rows,
            landed=landed.landed,
            refused=landed.refused,
            late=landed.late,
            bars=landed.bars,
            watermark=landing.watermark,
            positions=dict(landing.positions),
            ends=dict(self._known.end),
            lost=tuple(landing.lost),
        )
        self._on_status(status)

    def _stop(self) -> None:
        """Stop between two batches."""
        with self._lock:
            self._ending = True
        # Without the lock: Spark waits for a batch that has just begun, and that one for the lock.
        if self._query is not None:
            self._query.stop()
        self._landing.close()


@contextmanager
def alone(manager: DeltaLakeManager, topic: Topic) -> Iterator[Path]:
    """Be the only process on this machine that reads a topic into a lake; yields the folder for Spark's checkpoint.

    For a lake in an object store the checkpoint is in a temporary folder: it is made anew at each start anyway.

    Raises:
        StreamError: another process does.
    """
    if "://" in manager.storage_path:
        with tempfile.TemporaryDirectory(prefix="lakehouse-checkpoint-") as folder:
            yield Path(folder) / topic.name
        return
    root = lake_root(manager.storage_path)
    with locked(root, f"stream-{topic.name}", patience_seconds=0) as held:
        if not held:
            raise StreamError(f"another process reads {topic.name} into {root.path}; stop it first")
        yield root.path / "_checkpoints" / topic.name
