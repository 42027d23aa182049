"""Topics made on a real broker, and looked at by another library than the one that made them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource
from kafka import KafkaProducer

from pipelines.config import Settings
from pipelines.errors import ConfigError
from pipelines.streaming.clients import BrokerError, connected, offsets
from pipelines.streaming.creation import TopicState, create_topics
from tests.conftest import make_kafka_settings

if TYPE_CHECKING:
    from tests.servers.kafka import Broker

pytestmark = pytest.mark.kafka

NEWS = {"dataset": "raw_news_sentiment"}


def there(settings: Settings) -> dict[str, int]:
    """Return how many partitions each topic of the broker has."""
    client = AdminClient({"bootstrap.servers": settings.streaming.bootstrap_servers})
    return {name: len(topic.partitions) for name, topic in client.list_topics(timeout=10).topics.items()}


def config_of(settings: Settings, topic: str) -> dict[str, str]:
    client = AdminClient({"bootstrap.servers": settings.streaming.bootstrap_servers})
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    return {name: entry.value for name, entry in client.describe_configs([resource])[resource].result(10).items()}


def changed(settings: Settings, **topic: object) -> Settings:
    """Return settings whose one topic has other settings."""
    (name, now), *_ = settings.streaming.topics.items()
    wanted: dict[str, Any] = settings.model_dump()
    wanted["streaming"]["topics"] = {name: now.model_dump() | topic}
    return Settings.model_validate(wanted)


def names(settings: Settings) -> tuple[str, str]:
    """Return the first topic of the settings, and that of dead letters."""
    assert settings.streaming.dlq_topic
    return next(iter(settings.streaming.topics)), settings.streaming.dlq_topic


def produce(settings: Settings, topic: str, value: bytes) -> None:
    with connected(settings.streaming, KafkaProducer, max_request_size=8 << 20) as producer:
        producer.send(topic, value, key=b"BTCUSD").get(10)


def test_topics_are_made_as_the_settings_say(tmp_path: Path, kafka: Broker) -> None:
    wanted = {"ticks": {"dataset": "raw_market_ticks", "partitions": 3, "retention_hours": 1.5}, "news": NEWS}
    settings = make_kafka_settings(tmp_path, kafka, topics=wanted)
    (ticks, news), dead = settings.streaming.topics, names(settings)[1]
    assert create_topics(settings) == [
        TopicState(ticks, "created", 3),
        TopicState(news, "created", 3),
        TopicState(dead, "created", 1),
    ]
    found = there(settings)
    assert (found[ticks], found[news], found[dead]) == (3, 3, 1)
    configs = {name: config_of(settings, name) for name in (ticks, news, dead)}
    assert {name: config["retention.ms"] for name, config in configs.items()} == {
        ticks: "5400000",
        news: "604800000",
        dead: "604800000",
    }
    for config in configs.values():
        assert (config["cleanup.policy"], config["message.timestamp.type"]) == ("delete", "CreateTime")


def test_made_again_they_keep_what_they_hold(kafka_settings: Settings) -> None:
    ticks, dead = names(kafka_settings)
    create_topics(kafka_settings)
    produce(kafka_settings, ticks, b"one")
    assert create_topics(kafka_settings) == [TopicState(ticks, "exists", 2), TopicState(dead, "exists", 1)]
    assert offsets(kafka_settings, ticks).held == 1


def test_a_topic_grows_and_keeps_what_it_holds(kafka_settings: Settings) -> None:
    ticks, dead = names(kafka_settings)
    create_topics(kafka_settings)
    produce(kafka_settings, ticks, b"one")
    larger = changed(kafka_settings, partitions=5)
    assert create_topics(larger, dry_run=True)[0] == TopicState(ticks, "would grow", 2)
    assert there(kafka_settings)[ticks] == 2
    assert create_topics(larger) == [TopicState(ticks, "grown", 5), TopicState(dead, "exists", 1)]
    assert there(kafka_settings)[ticks] == 5
    assert offsets(kafka_settings, ticks).held == 1


def test_what_differs_is_told_and_left(kafka_settings: Settings) -> None:
    ticks, _ = names(kafka_settings)
    create_topics(kafka_settings)
    other = changed(kafka_settings, partitions=1, retention_hours=1.0)
    differences = (
        "partitions is 2, the settings ask for 1",
        "retention.ms is 604800000, the settings ask for 3600000",
    )
    for dry_run in (True, False):
        assert create_topics(other, [ticks], dry_run=dry_run)[0] == TopicState(ticks, "differs", 2, differences)
    assert there(kafka_settings)[ticks] == 2
    assert config_of(kafka_settings, ticks)["retention.ms"] == "604800000"


def test_a_dry_run_makes_nothing(kafka_settings: Settings) -> None:
    ticks, dead = names(kafka_settings)
    assert create_topics(kafka_settings, dry_run=True) == [
        TopicState(ticks, "would create", 2),
        TopicState(dead, "would create", 1),
    ]
    assert not {ticks, dead} & there(kafka_settings).keys()


def test_some_are_made_and_the_one_for_dead_letters(tmp_path: Path, kafka: Broker) -> None:
    settings = make_kafka_settings(tmp_path, kafka, topics={"ticks": {"dataset": "raw_market_ticks"}, "news": NEWS})
    ticks, news = settings.streaming.topics
    dead = names(settings)[1]
    assert [each.name for each in create_topics(settings, [news, news])] == [news, dead]
    assert {ticks, news, dead} & there(settings).keys() == {news, dead}
    with pytest.raises(ConfigError, match="no topic 'other'"):
        create_topics(settings, ["other", ticks])
    assert ticks not in there(settings)


def test_no_topic_for_dead_letters_if_none_is_wanted(tmp_path: Path, kafka: Broker) -> None:
    settings = make_kafka_settings(tmp_path, kafka, {"streaming": {"dlq_topic": None}})
    assert [each.state for each in create_topics(settings)] == ["created"]


def test_a_message_that_is_too_large_for_the_lake_fits(kafka_settings: Settings) -> None:
    """So that it becomes a dead letter; its broker takes what the topic says, whatever its own limit."""
    ticks, dead = names(kafka_settings)
    create_topics(kafka_settings)
    produce(kafka_settings, ticks, b"x" * 2_000_000)
    produce(kafka_settings, dead, b"x" * 4_000_000)
    assert offsets(kafka_settings, ticks).held == offsets(kafka_settings, dead).held == 1


def test_two_at_once_make_each_topic_once(tmp_path: Path, kafka: Broker) -> None:
    settings = make_kafka_settings(tmp_path, kafka, topics={f"t{number}": NEWS for number in range(8)})
    with ThreadPoolExecutor(3) as pool:
        states = [done.result() for done in [pool.submit(create_topics, settings) for _ in range(3)]]
    assert [[each.partitions for each in found] for found in states] == [[3] * 8 + [1]] * 3
    assert {each.state for found in states for each in found} <= {"created", "exists"}


def test_what_the_broker_refuses_is_told(kafka_settings: Settings) -> None:
    ticks, _ = names(kafka_settings)
    with pytest.raises(BrokerError, match=rf"does not make topic {ticks}: .*retention\.ms"):
        create_topics(changed(kafka_settings, retention_hours=1e18))
    assert ticks not in there(kafka_settings)
