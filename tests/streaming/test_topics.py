"""The topics of the settings: what they are, and which names and datasets are refused."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.config import Settings
from pipelines.errors import ConfigError
from pipelines.streaming.topics import topic_named, topics

TICKS = {"dataset": "raw_market_ticks"}


def having(dlq_topic: str | None = "dead", **wanted: dict[str, Any]) -> Settings:
    return Settings.model_validate({"streaming": {"dlq_topic": dlq_topic, "topics": wanted}})


def test_the_usual_topics() -> None:
    found = topics(Settings())
    assert {name: (topic.contract.id, topic.is_ticks) for name, topic in found.items()} == {
        "crypto_ticks": ("raw_market_ticks", True),
        "equities_ticks": ("raw_market_ticks", True),
        "bonds_data": ("raw_market_ticks", True),
        "market.stocks": ("raw_market_data", False),
        "news.sentiment": ("raw_news_sentiment", False),
        "ai.decisions": ("raw_ai_decisions", False),
        "trade.executions": ("raw_trade_executions", False),
    }
    assert all(topic.name == name for name, topic in found.items())


def test_a_topic_is_as_the_settings_say() -> None:
    wanted = {"dataset": "raw_news_sentiment", "format": "avro", "partitions": 5, "retention_hours": 1.5}
    found = topic_named(having(news=wanted), "news")
    assert (found.contract.id, found.format, found.partitions, found.retention_hours) == (
        "raw_news_sentiment",
        "avro",
        5,
        1.5,
    )


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "ticks/crypto", "tïcks", "ticks\n", "x" * 250])
@pytest.mark.parametrize("as_dlq", [True, False])
def test_names_that_kafka_does_not_take(name: str, as_dlq: bool) -> None:
    settings = having(dlq_topic=name) if as_dlq else having(**{name: TICKS})
    with pytest.raises(ConfigError, match="cannot be a topic's name"):
        topics(settings)


@pytest.mark.parametrize("name", ["x" * 249, "...", "a.b_c-D9"])
def test_names_that_kafka_takes(name: str) -> None:
    assert list(topics(having(**{name: TICKS}))) == [name]


def test_names_that_a_broker_takes_for_one() -> None:
    with pytest.raises(ConfigError, match=r"takes a\.b and a_b for one"):
        topics(having(**{"a.b": TICKS, "a_b": TICKS}))
    with pytest.raises(ConfigError, match=r"de\.ad and de_ad for one"):
        topics(having(dlq_topic="de_ad", **{"de.ad": TICKS}))


def test_dead_letters_need_a_topic_of_their_own_or_none() -> None:
    with pytest.raises(ConfigError, match="ticks is a topic of messages"):
        topics(having(dlq_topic="ticks", ticks=TICKS))
    assert list(topics(having(dlq_topic=None, ticks=TICKS))) == ["ticks"]


def test_an_unknown_dataset_names_the_nearest_or_all() -> None:
    with pytest.raises(ConfigError, match=r"ticks.*'raw_market_tick'; did you mean raw_market_ticks"):
        topics(having(ticks={"dataset": "raw_market_tick"}))
    with pytest.raises(ConfigError, match=r"known: .*raw_ai_decisions, raw_market_data, raw_market_ticks"):
        topics(having(ticks={"dataset": "zzz"}))


def test_an_unknown_topic_names_the_nearest_or_all() -> None:
    with pytest.raises(ConfigError, match=r"no topic 'crypto_tick' in streaming\.topics; did you mean crypto_ticks"):
        topic_named(Settings(), "crypto_tick")
    with pytest.raises(ConfigError, match=r"known: ai\.decisions, bonds_data, crypto_ticks"):
        topic_named(Settings(), "zzz")
