"""What the topics of the tests hold, as a plain consumer finds it."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from kafka import KafkaConsumer, TopicPartition

from pipelines.config import Settings


class Found(NamedTuple):
    """A message as it lies in its topic."""

    partition: int
    offset: int
    key: bytes
    value: bytes
    timestamp: int

    def row(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.value)
        return found


def messages(settings: Settings, topic: str) -> list[Found]:
    """Return everything that the topic holds, by partition and offset."""
    consumer = KafkaConsumer(
        bootstrap_servers=settings.streaming.bootstrap_servers, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    try:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        found: list[Found] = []
        while any(consumer.position(each) < ends[each] for each in partitions):
            for batch in consumer.poll(timeout_ms=1000).values():
                found += [Found(m.partition, m.offset, m.key, m.value, m.timestamp) for m in batch]
        return sorted(found)
    finally:
        consumer.close()
