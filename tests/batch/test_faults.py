"""Killed at any instant and run again, or run twice at once: every bar once and no hole."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from pipelines.batch.engine import Backfill
from pipelines.batch.jobs import bar_job
from pipelines.config import PROJECT_ROOT
from pipelines.storage import DeltaLakeManager
from pipelines.timeframes import Timeframe, utc_now
from tests.batch.exchange import Exchange, assert_whole, count, exchange_settings
from tests.batch.worker import ASSETS

SPARK = pytest.param("spark", marks=pytest.mark.spark)
START, END = "2025-12-10", "2025-12-12"
WHOLE = 2 * 2 * 25_970 // 14
SEED = 20_251_214


class Worker:
    """A backfill process and what it has said."""

    def __init__(self, exchange: Exchange, folder: Path, engine: str) -> None:
        command = [sys.executable, "-m", "tests.batch.worker", exchange.url, str(folder), engine, START, END]
        self.process = subprocess.Popen(
            command, cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.commits = 0
        self._line = threading.Condition()
        self._ready = self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._line:
                self._ready |= line.startswith("ready")
                self.commits += line.startswith("landed")
                self._line.notify_all()
        with self._line:
            self._ended = True
            self._line.notify_all()

    def wait_until_ready(self) -> None:
        """Wait until it could begin."""
        with self._line:
            assert self._line.wait_for(lambda: self._ended or self._ready, timeout=180)

    def begin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait_for(self, commits: int) -> None:
        """Wait until it has committed so often, or has ended."""
        with self._line:
            assert self._line.wait_for(lambda: self._ended or self.commits >= commits, timeout=180)

    def kill(self) -> None:
        """Kill -9 it and its JVM at once, as a power cut would."""
        everyone = [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]
        for one in everyone:
            one.send_signal(signal.SIGKILL)
        self.process.wait(timeout=30)
        psutil.wait_procs(everyone, timeout=30)


def killed_at_random(exchange: Exchange, folder: Path, engine: str, kills: int, seed: int) -> int:
    """Start and kill a backfill so often; returns how many kills hit one at work."""
    instants, hit = random.Random(seed), 0
    for _ in range(kills):
        worker = Worker(exchange, folder, engine)
        worker.wait_until_ready()
        worker.begin()
        # Somewhere between two commits, or in one.
        worker.wait_for(commits=instants.randrange(4))
        threading.Event().wait(instants.random() * (0.8 if engine == "spark" else 0.08))
        hit += worker.process.poll() is None
        if worker.process.poll() is None:
            worker.kill()
    return hit


def finish(exchange: Exchange, folder: Path, engine: str) -> None:
    settings = exchange_settings(folder, exchange, {"storage": {"engine": engine}})
    lake = DeltaLakeManager(settings.delta_lake.storage_path, settings)
    jobs = [bar_job(asset, t, START, END, now=utc_now()) for asset in ASSETS for t in Timeframe]
    result = asyncio.run(Backfill(lake, settings).run(jobs))
    assert result.ok
    assert all(series.coverage == 1.0 for series in result.series)
    assert_whole(exchange, lake.storage_path, list(ASSETS), START, END)
    assert sum(count(lake.storage_path).values()) == WHOLE
    assert asyncio.run(Backfill(lake, settings).run(jobs)).total("fetched") == 0


@pytest.mark.spark
@pytest.mark.soak
def test_a_kill_of_spark_then_a_clean_run(tmp_path: Path, exchange: Exchange) -> None:
    assert killed_at_random(exchange, tmp_path, "spark", kills=1, seed=SEED) == 1
    finish(exchange, tmp_path, "spark")


def test_five_kills_then_a_clean_run(tmp_path: Path, exchange: Exchange) -> None:
    assert killed_at_random(exchange, tmp_path, "embedded", kills=5, seed=SEED) > 0
    finish(exchange, tmp_path, "embedded")


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("engine", [SPARK, "embedded"])
def test_twenty_kills_then_a_clean_run(tmp_path: Path, exchange: Exchange, engine: str) -> None:
    assert killed_at_random(exchange, tmp_path, engine, kills=20, seed=SEED + 1) > 0
    finish(exchange, tmp_path, engine)


@pytest.mark.spark(alone=True)
def test_two_identical_backfills_at_once_duplicate_nothing(tmp_path: Path, exchange: Exchange) -> None:
    """One by each engine, which know nothing of each other but the log; they begin together."""
    workers = [Worker(exchange, tmp_path, engine) for engine in ("spark", "embedded")]
    for worker in workers:
        worker.wait_until_ready()
    for worker in workers:
        worker.begin()
    assert [worker.process.wait(timeout=300) for worker in workers] == [0, 0]
    assert all(worker.commits for worker in workers)
    finish(exchange, tmp_path, "embedded")


@pytest.mark.spark
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_fails_clearly_and_loses_nothing(tmp_path: Path, exchange: Exchange, spark: object) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], check=True)
    try:
        settings = exchange_settings(tmp_path, exchange)
        lake = DeltaLakeManager(disk / "lake", settings)
        jobs = [bar_job("BTCUSD", "1m", START, "2025-12-30", now=utc_now())]
        result = asyncio.run(Backfill(lake, settings).run(jobs))
        assert not result.ok
        assert "disk" in result.series[0].failed[0].error.lower()
        assert result.series[0].coverage == 0.0
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        again = asyncio.run(Backfill(lake, settings).run(jobs))
        assert again.ok
        assert count(lake.storage_path) == {"raw_market_data_1m": 20 * 1440}
    finally:
        # Lazily: the JVM may still hold a file of it.
        subprocess.run(["umount", "-l", str(disk)], check=True)
