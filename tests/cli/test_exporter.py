"""`lakehouse exporter` as a user runs it."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.cli.shell import run, spawn
from tests.monitoring.scrape import Samples, scraped

EMBEDDED = {"LAKEHOUSE__STORAGE__ENGINE": "embedded", "JAVA_HOME": "/nowhere"}
DAY = ["--start", "2025-12-01", "--end", "2025-12-02", "--timeframes", "1h", "--quiet"]


def backfill(folder: Path, assets: str) -> None:
    done = run(folder, "backfill", "--provider", "sample", "--assets", assets, *DAY, **EMBEDDED)
    assert done.exit_code == 0, done.output


def address_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("metrics at "):
            return line.split()[2].rstrip(",")
    raise AssertionError(process.communicate())


def test_once_prints_what_a_scrape_would_show(tmp_path):
    missing = run(tmp_path, "exporter", "--once", **EMBEDDED)
    assert missing.exit_code == 1
    assert "no lake yet" in missing.output
    backfill(tmp_path, "BTCUSD")
    done = run(tmp_path, "exporter", "--once", **EMBEDDED)
    assert done.exit_code == 0, done.output
    name = "pipeline_ingestion_records_total"
    assert Samples(done.stdout).by(name, "asset_pair", "timeframe", "provider") == {("BTCUSD", "1h", "sample"): 24}
    bad = tmp_path / "dlq" / "dlq_bad.json"
    bad.parent.mkdir()
    bad.write_text("{", encoding="utf-8")
    partly = run(tmp_path, "exporter", "--once", "--sample", **EMBEDDED)
    assert partly.exit_code == 1
    assert Samples(partly.stdout).value(name, asset_pair="BTCUSD", timeframe="1h", provider="sample") == 24


def test_it_serves_until_it_is_told_to_end_and_sees_what_lands(tmp_path):
    quick = EMBEDDED | {"LAKEHOUSE__MONITORING__REFRESH_SECONDS": "0.2"}
    with spawn(tmp_path, "exporter", "--sample", "--port", "0", **quick) as process:
        try:
            url = address_of(process)
            assert url.startswith("http://127.0.0.1:")
            # There is no lake yet.
            assert scraped(url).by("pipeline_ingestion_records_total", "asset_pair") == {}
            backfill(tmp_path, "BTCUSD,ETHUSD")
            for _ in range(200):
                found = scraped(url)
                if len(found.by("pipeline_ingestion_records_total", "asset_pair")) == 2:
                    break
                time.sleep(0.1)
            assert found.by("pipeline_ingestion_records_total", "asset_pair") == {"BTCUSD": 24, "ETHUSD": 24}
            assert (found.value("process_resident_memory_bytes") or 0) > 1_000_000
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_port_that_is_taken_is_a_wrong_setting(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run(tmp_path, "exporter", "--sample", "--port", str(taken.getsockname()[1]), **EMBEDDED)
    assert done.exit_code == 2
    assert "cannot serve metrics at 127.0.0.1" in done.output
    assert "monitoring.exporter_port" in done.output
