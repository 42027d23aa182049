"""`lakehouse stream run` killed at random instants, while ticks keep coming and others work on its tables."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from pipelines.config import Settings
from pipelines.storage import DeltaLakeManager
from pipelines.storage.lake import Lake
from pipelines.storage.names import lake_root
from pipelines.streaming.creation import create_topics
from tests.conftest import make_kafka_settings
from tests.servers.kafka import Broker
from tests.streaming.tick_log import START, Tick, TickLog, assert_exact

pytestmark = pytest.mark.spark(alone=True)

ASSETS = {"BTCUSD": 0, "ETHUSD": 1, "SOLUSD": 1}
_QUICK = {
    "streaming": {"trigger_seconds": 0.5, "heal_hours": 0, "compact_minutes": 0.02, "max_messages_per_batch": 400}
}


def start(folder: Path, topic: str, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipelines.cli", "stream", "run", "--config", str(folder / "config.yaml")]
    return subprocess.Popen(
        [*command, "--topics", topic, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def kill(process: subprocess.Popen[str]) -> None:
    """End the process, and the JVM that it started, in the middle of what they do."""
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
    for pid in [process.pid, *map(int, children.stdout.split())]:
        os.kill(pid, signal.SIGKILL)
    process.wait(30)
    assert process.stdout is not None
    process.stdout.close()


def ticks(chance: random.Random, count: int, start_at: float) -> TickLog:
    log = TickLog({0: [], 1: []})
    for number in range(count):
        asset = chance.choice(sorted(ASSETS))
        at = START + timedelta(seconds=start_at + number * 0.7 + chance.uniform(-1, 1))
        bad = "{" if chance.random() < 0.01 else None
        tick = Tick(asset, at, round(chance.uniform(1, 2), 3), 1.0, f"{start_at}-{number}", bad)
        log.partitions[ASSETS[asset]] += [tick] * (2 if chance.random() < 0.05 else 1)
    return log


def killed_again_and_again(tmp_path: Path, kafka: Broker, kills: int, seed: int, in_s3: str | None = None) -> None:
    elsewhere = {"delta_lake": {"storage_path": in_s3}} if in_s3 else {}
    settings = make_kafka_settings(tmp_path, kafka, _QUICK, elsewhere)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(json.loads(settings.model_dump_json())), encoding="utf-8")
    create_topics(settings)
    (topic,) = settings.streaming.topics
    chance, log = random.Random(seed), TickLog({0: [], 1: []})
    lake = DeltaLakeManager(settings.delta_lake.storage_path, settings)
    for number in range(kills):
        produce(log, ticks(chance, 700, number * 700.0), kafka, topic)
        process = start(tmp_path, topic)
        began = time.monotonic()
        # From before Spark is up to some batches later.
        first = landed(lake)
        while landed(lake) == first and time.monotonic() - began < 60:
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 2.5))
        kill(process)
    produce(log, ticks(chance, 300, kills * 700.0), kafka, topic)
    process = start(tmp_path, topic, "--available-now")
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    assert_exact(lake, log, topic)


def landed(lake: DeltaLakeManager) -> int:
    """Return how many commits the ticks have."""
    return len(Lake(lake_root(lake.storage_path)).versions("raw_market_ticks"))


def produce(log: TickLog, more: TickLog, kafka: Broker, topic: str) -> None:
    before = {partition: len(each) for partition, each in log.partitions.items()}
    for partition, each in more.partitions.items():
        log.partitions[partition] += each
    log.produce(kafka.bootstrap, topic, before)


def test_a_job_killed_three_times_loses_and_repeats_nothing(tmp_path: Path, kafka: Broker) -> None:
    killed_again_and_again(tmp_path, kafka, 3, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 6))
def test_a_job_killed_five_times_loses_and_repeats_nothing(tmp_path: Path, kafka: Broker, seed: int) -> None:
    killed_again_and_again(tmp_path, kafka, 5, seed)


@pytest.mark.soak
def test_a_job_killed_three_times_loses_and_repeats_nothing_in_s3(
    tmp_path: Path, kafka: Broker, s3_lake_path: str
) -> None:
    killed_again_and_again(tmp_path, kafka, 3, seed=6, in_s3=s3_lake_path)


def test_sigterm_ends_it_in_good_order(tmp_path: Path, kafka: Broker) -> None:
    settings: Settings = make_kafka_settings(tmp_path, kafka, _QUICK)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(json.loads(settings.model_dump_json())), encoding="utf-8")
    create_topics(settings)
    (topic,) = settings.streaming.topics
    lake = DeltaLakeManager(settings.delta_lake.storage_path, settings)
    log = TickLog({0: [], 1: []})
    produce(log, ticks(random.Random(9), 900, 0.0), kafka, topic)
    process = start(tmp_path, topic, "--json")
    began = time.monotonic()
    while landed(lake) < 4 and time.monotonic() - began < 90:
        time.sleep(0.1)
    process.terminate()
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 0, output
    told = json.loads(output[output.index("{\n") :])
    assert told["ok"] is True
    assert told["topics"][0]["landed"] == len(lake.read_table("raw_market_ticks"))
