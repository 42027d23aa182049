"""The lag of streams, asked of a real broker, whether or not they run."""

from __future__ import annotations

import pytest
from kafka import KafkaProducer

from pipelines.monitoring.exporter import Exporter
from pipelines.monitoring.parts.streams import Streams
from pipelines.storage import DeltaLakeManager
from pipelines.streaming.clients import kafka_options
from pipelines.streaming.creation import create_topics
from pipelines.streaming.status import StatusBoard
from tests.cli.test_stream_status import status
from tests.monitoring.scrape import shown


@pytest.mark.kafka
def test_lag_is_what_the_broker_has_and_the_lake_has_not(kafka_settings):
    (topic,) = kafka_settings.streaming.topics
    create_topics(kafka_settings)
    manager = DeltaLakeManager(kafka_settings.delta_lake.storage_path, kafka_settings)
    StatusBoard(manager).write(status(topic, positions={0: 2}, ends={0: 2}, state="stopped"))
    StatusBoard(manager).write(status("deleted_since", positions={0: 9}, ends={0: 9}))
    exporter = Exporter(manager, [Streams()])
    assert exporter.look()
    assert shown(exporter).by("pipeline_stream_lag_messages", "topic", "partition") == {
        (topic, "0"): 0,
        (topic, "1"): 0,
    }
    producer = KafkaProducer(**kafka_options(kafka_settings.streaming))
    for partition, messages in ((0, 5), (1, 7)):
        for _ in range(messages):
            producer.send(topic, b"x", partition=partition)
    producer.close()
    assert exporter.look()
    found = shown(exporter)
    assert found.by("pipeline_stream_lag_messages", "topic", "partition") == {(topic, "0"): 3, (topic, "1"): 7}
    states = found.by("pipeline_stream_state", "topic", "state")
    assert {key for key, value in states.items() if value} == {(topic, "stopped"), ("deleted_since", "running")}
