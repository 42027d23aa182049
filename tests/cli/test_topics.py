"""`lakehouse topics` as a user runs it, on a real broker."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import Result
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from pipelines.streaming.ports import reserved_port
from tests.cli.shell import run, shell

if TYPE_CHECKING:
    from tests.servers.kafka import Broker

Run = Callable[..., Result]


@pytest.fixture
def suffix() -> str:
    return uuid.uuid4().hex[:8]


@pytest.fixture
def config(tmp_path: Path, kafka: Broker, suffix: str) -> Path:
    path = tmp_path / "own.yaml"
    topics = {
        f"ticks_{suffix}": {"dataset": "raw_market_ticks", "partitions": 2, "retention_hours": 24.0},
        f"news_{suffix}": {"dataset": "raw_news_sentiment", "format": "avro", "partitions": 1},
    }
    streaming = {"bootstrap_servers": kafka.bootstrap, "dlq_topic": f"dead_{suffix}", "topics": topics}
    path.write_text(yaml.safe_dump({"streaming": streaming}), encoding="utf-8")
    return path


@pytest.fixture
def topics(tmp_path: Path, config: Path) -> Run:
    """Run `lakehouse topics` with settings of the test's own."""
    return lambda *arguments: run(tmp_path, "topics", *arguments, "--config", str(config))


def answer(done: Result) -> dict[str, Any]:
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def lines(done: Result) -> dict[str, list[str]]:
    """Return the words of each line after its first one, by that."""
    assert done.exit_code == 0, done.output
    found: dict[str, list[str]] = {}
    for words in filter(None, map(str.split, done.stdout.splitlines())):
        found.setdefault(words[0], words[1:])
    return found


@pytest.mark.kafka
def test_topics_are_shown_made_and_made_again(topics: Run, kafka: Broker, suffix: str) -> None:
    broker = AdminClient({"bootstrap.servers": kafka.bootstrap})
    ticks, news, dead = (f"{name}_{suffix}" for name in ("ticks", "news", "dead"))

    planned = topics("create", "--dry-run")
    assert lines(planned)[ticks] == ["2", "would", "create"]
    assert "Nothing was created" in planned.stdout
    assert ticks not in broker.list_topics(timeout=10).topics
    listed = topics("list")
    assert lines(listed)[ticks] == ["raw_market_ticks", "json", "2", "24", "h", "-", "no"]
    assert "lakehouse topics create" in listed.stdout

    assert lines(topics("create", ticks)) == {
        "Kafka": ["at", kafka.bootstrap],
        "topic": ["partitions", "state"],
        ticks: ["2", "created"],
        dead: ["1", "created"],
    }
    made = answer(topics("create", "--json"))
    assert (made["bootstrap_servers"], made["dry_run"]) == (kafka.bootstrap, False)
    assert {each["name"]: (each["state"], each["partitions"], each["differences"]) for each in made["topics"]} == {
        ticks: ("exists", 2, []),
        news: ("created", 1, []),
        dead: ("exists", 1, []),
    }
    assert {ticks, news, dead} <= broker.list_topics(timeout=10).topics.keys()

    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for number in range(1234):
        producer.produce(ticks, str(number), partition=number % 2)
    assert producer.flush(20) == 0
    listed = topics("list")
    assert lines(listed)[ticks] == ["raw_market_ticks", "json", "2", "24", "h", "1,234", "yes"]
    assert lines(listed)[dead] == ["(dead", "letters)", "-", "1", "-", "0", "yes"]
    found = {each["name"]: each for each in answer(topics("list", "--json"))["topics"]}
    assert found[ticks]["messages"] == 1234
    assert found[news] == {
        "name": news, "dataset": "raw_news_sentiment", "format": "avro", "partitions": 1, "retention_hours": 168.0,
        "on_broker": True, "messages": 0, "differences": [],
    }  # fmt: skip


@pytest.mark.kafka
def test_what_differs_is_said(topics: Run, config: Path, suffix: str) -> None:
    topics("create")
    config.write_text(config.read_text("utf-8").replace("24.0", "48.0"), encoding="utf-8")
    words = {"create": ["2", "differs"], "list": ["raw_market_ticks", "json", "2", "48", "h", "0", "differs"]}
    for command, wanted in words.items():
        done = topics(command)
        assert lines(done)[f"ticks_{suffix}"] == wanted
        assert "retention.ms is 86400000, the settings ask for 172800000" in done.stdout


@pytest.mark.kafka
def test_an_unknown_topic_is_a_wrong_argument(topics: Run, suffix: str) -> None:
    done = topics("create", f"tick_{suffix}")
    assert done.exit_code == 2
    assert f"did you mean ticks_{suffix}" in done.stderr


def test_no_broker_is_said_in_one_line(tmp_path: Path) -> None:
    address = f"127.0.0.1:{reserved_port()}"
    secret = {
        "LAKEHOUSE__STREAMING__SECURITY_PROTOCOL": "sasl_plaintext",
        "LAKEHOUSE__STREAMING__SASL_MECHANISM": "PLAIN",
        "LAKEHOUSE__STREAMING__SASL_USERNAME": "me",
        "LAKEHOUSE__STREAMING__SASL_PASSWORD": "s3cret-word",
    }
    code, out, err = shell(tmp_path, "topics", "list", "-vv", LAKEHOUSE__STREAMING__BOOTSTRAP_SERVERS=address, **secret)
    assert code == 1
    assert "s3cret" not in out + err
    assert f"Error: no Kafka broker to work with at {address}" in err.splitlines()[-1]
    assert out == ""
