"""`lakehouse stream produce` as a user runs it: exit codes, counts, and everything delivered when it is stopped."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.config import Settings
from pipelines.streaming.creation import create_topics
from pipelines.streaming.ports import reserved_port
from tests.batch.exchange import Exchange
from tests.cli.shell import run, shell, spawn
from tests.servers.kafka import Broker
from tests.streaming.producers.reading import messages

PRODUCE = ["stream", "produce"]
TICKS = [*PRODUCE, "--topic", "crypto_ticks"]
SAMPLE = [*TICKS, "--source", "sample", "--assets", "BTCUSD,ETHUSD"]
HOUR = ["--start", "2025-12-05T14:00", "--end", "2025-12-05T15:00"]


@pytest.fixture
def topic(kafka_settings: Settings) -> str:
    create_topics(kafka_settings)
    return next(iter(kafka_settings.streaming.topics))


@pytest.fixture
def config(tmp_path: Path, kafka_settings: Settings) -> list[str]:
    """The option that leads to a settings file with the broker and its topic."""
    streaming = kafka_settings.streaming
    topics = {name: {"dataset": each.dataset, "partitions": each.partitions} for name, each in streaming.topics.items()}
    return settings_file(tmp_path, {"streaming": {"bootstrap_servers": streaming.bootstrap_servers, "topics": topics}})


def settings_file(folder: Path, settings: dict[str, Any]) -> list[str]:
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return ["--config", str(path)]


# ---- without a broker


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (PRODUCE, "--topic"),
        (TICKS, "--source"),
        ([*TICKS, "--source", "brnze"], "did you mean bronze"),
        ([*TICKS, "--source", "sample"], "--assets BTCUSD,ETHUSD"),
        ([*SAMPLE, "--speed", "fast"], "60x"),
        ([*SAMPLE, "--speed", "2x", "--rate", "5"], "either --speed or --rate"),
        ([*SAMPLE, "--days", "1", "--start", "2025-12-05"], "either --days"),
        ([*SAMPLE, "--ticks-per-bar", "3"], "--ticks-per-bar"),
        ([*TICKS, "--source", "sample", "--assets", "BTCUDS"], "did you mean BTCUSD"),
        ([*PRODUCE, "--topic", "crypto_tics", "--source", "sample"], "did you mean crypto_ticks"),
        ([*PRODUCE, "--topic", "market.stocks", "--source", "sample", "--assets", "AAPL", "--shift-to-now"], "ticks"),
        ([*TICKS, "--source", "providers", "--assets", "BTCUSD"], "name a topic of raw_market_data"),
        ([*PRODUCE, "--topic", "market.stocks", "--source", "yfinance"], "--assets"),
        ([*PRODUCE, "--topic", "market.stocks", "--source", "providers", "--assets", "AAPL", "--rate", "5"], "--rate"),
    ],
)
def test_wrong_arguments_exit_2_and_name_the_fix(arguments: list[str], says: str, tmp_path: Path) -> None:
    done = run(tmp_path, *arguments)
    assert done.exit_code == 2, done.output
    assert says in done.stderr
    assert "Traceback" not in done.output


def test_a_dry_run_needs_no_broker_and_counts(tmp_path: Path) -> None:
    nowhere = {"LAKEHOUSE__STREAMING__BOOTSTRAP_SERVERS": f"127.0.0.1:{reserved_port()}"}
    done = run(tmp_path, *SAMPLE, *HOUR, "--speed", "60x", "--dry-run", "--json", **nowhere)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["messages"], found["subjects"]) == (960, {"BTCUSD": 480, "ETHUSD": 480})
    assert found["first"].startswith("2025-12-05T14:00:0")
    assert 59 < found["seconds"] <= 60
    told = run(tmp_path, *SAMPLE, *HOUR, "--dry-run", **nowhere)
    assert "Dry run: nothing is sent" in told.stdout
    assert "960" in told.stdout
    assert run(tmp_path, *SAMPLE, *HOUR, **nowhere).exit_code == 1


def test_a_dry_run_of_providers_asks_nobody(tmp_path: Path) -> None:
    bars = [*PRODUCE, "--topic", "market.stocks", "--source", "providers", "--assets", "AAPL,BTCUSD", "--dry-run"]
    found = json.loads(run(tmp_path, *bars, "--json").stdout)["assets"]
    assert found["AAPL"]["asked"] == ["yfinance"]
    assert found["BTCUSD"]["asked"] == ["coinbase", "yfinance"]
    assert "API key" in found["BTCUSD"]["skipped"]["alpha_vantage"]


# ---- with one


@pytest.mark.kafka
def test_a_replay_delivers_everything_and_says_so(
    tmp_path: Path, kafka_settings: Settings, topic: str, config: list[str]
) -> None:
    sample = [*PRODUCE, "--topic", topic, "--source", "sample", "--assets", "BTCUSD,ETHUSD", *HOUR, "--speed", "max"]
    done = run(tmp_path, *sample, *config, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["messages"], found["delivered"], found["failed"], found["refused"]) == (960, 960, {}, {})
    assert not found["interrupted"]
    told = run(tmp_path, *sample, *config, "--limit", "100")
    assert told.exit_code == 0
    assert "100 messages delivered" in told.stdout
    rows = [each.value for each in messages(kafka_settings, topic)]
    assert len(rows) == 1060
    assert len(set(rows)) == 960, "the same ticks again, byte for byte"


@pytest.mark.kafka
def test_rows_that_cannot_be_messages_are_told_and_fail_the_run(
    tmp_path: Path, kafka_settings: Settings, topic: str, config: list[str]
) -> None:
    good = {"asset_pair": "BTCUSD", "timestamp": "2025-12-05T14:00:00Z", "price": 1.5, "tick_id": "1", "provider": "x"}
    path = tmp_path / "ticks.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in (good, good | {"price": None}, good | {"tick_id": "2"})))
    done = run(tmp_path, *PRODUCE, "--topic", topic, "--source", str(path), *config)
    assert done.exit_code == 1, done.output
    assert "2 messages delivered" in done.stdout
    assert "null price (1)" in done.stdout
    assert [each.row()["tick_id"] for each in messages(kafka_settings, topic)] == ["1", "2"]


@pytest.mark.kafka
def test_sigterm_in_mid_replay_delivers_what_was_taken(
    tmp_path: Path, kafka_settings: Settings, topic: str, config: list[str]
) -> None:
    sample = [*PRODUCE, "--topic", topic, "--source", "sample", "--assets", "BTCUSD", "--rate", "300", "--json"]
    with spawn(tmp_path, *sample, *config) as process:
        deadline = time.monotonic() + 60
        while not messages(kafka_settings, topic):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    found = json.loads(out)
    assert found["interrupted"]
    assert "Traceback" not in err
    there = messages(kafka_settings, topic)
    assert found["messages"] == found["delivered"] == len(there) < 10_000
    assert len({each.value for each in there}) == len(there)


@pytest.mark.kafka
def test_polling_ends_well_when_it_is_stopped(tmp_path: Path, kafka: Broker, exchange: Exchange) -> None:
    from tests.conftest import make_kafka_settings

    settings = make_kafka_settings(tmp_path, kafka, topics={"bars": {"dataset": "raw_market_data"}})
    create_topics(settings)
    name = next(iter(settings.streaming.topics))
    config = settings_file(
        tmp_path,
        {
            "streaming": {
                "bootstrap_servers": kafka.bootstrap,
                "topics": {name: {"dataset": "raw_market_data"}},
            },
            "providers": {"chain": ["coinbase"], "coinbase": {"base_url": exchange.url}},
        },
    )
    bars = [*PRODUCE, "--topic", name, "--source", "providers", "--assets", "BTCUSD", "--every", "1", "--json"]
    with spawn(tmp_path, *bars, *config) as process:
        deadline = time.monotonic() + 60
        while not messages(settings, name):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    found = json.loads(out)
    assert found["delivered"] == len(messages(settings, name)) >= 14
    assert found["polls"] >= 1


@pytest.mark.kafka
def test_a_missing_topic_names_the_command_that_makes_it(
    tmp_path: Path, kafka_settings: Settings, config: list[str]
) -> None:
    name = next(iter(kafka_settings.streaming.topics))
    code, _, err = shell(tmp_path, *PRODUCE, "--topic", name, "--source", "sample", "--assets", "BTCUSD", *config)
    assert code == 1
    assert f"lakehouse topics create {name}" in err
