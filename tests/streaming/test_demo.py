"""The demonstration as a user starts it: a process of its own that ends by itself and leaves nothing running."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import psutil
import pytest
from deltalake import DeltaTable

from pipelines.config import PROJECT_ROOT
from pipelines.jars import JarsError, jar_paths

pytestmark = pytest.mark.spark(alone=True)

_SCRIPT = PROJECT_ROOT / "scripts" / "stream_demo.py"
_SENT = re.compile(r"^([\d,]+) ticks sent; ([\d,]+) landed in \d+ commits?, 0 refused; (\d+) live bars?", re.MULTILINE)
_PRICES = ["open", "high", "low", "close", "volume"]


def test_the_demo_lands_every_tick_builds_bars_and_leaves_nothing_running(tmp_path: Path) -> None:
    try:
        jar_paths(["kafka", "broker"])
    except JarsError as error:
        pytest.skip(f"no Kafka broker to start, run make kafka: {error}")
    # Whoever it starts inherits this, and can be found by it; and all that it leaves is here.
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, str(_SCRIPT), "--seconds", "5", "--keep"]

    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert [process.cmdline() for process in started_with(str(tmp_path))] == []
    (folder,) = (path for path in tmp_path.iterdir() if path.name.startswith("lakehouse-"))
    assert folder.name.startswith("lakehouse-stream-demo-")
    told = _SENT.search(done.stdout)
    assert told, done.stdout
    sent, landed, built = (int(number.replace(",", "")) for number in told.groups())
    ticks = read(folder / "lake" / "raw_market_ticks")
    assert sent == landed == ticks.height == ticks.unique(["kafka_partition", "kafka_offset"]).height
    bars = read(folder / "lake" / "raw_market_data_1m").filter(pl.col("provider") == "stream")
    # Three minutes are sent at once when it begins, and the first of them is a part.
    assert bars.height >= 6
    assert built >= bars.height
    assert f"{bars['timestamp'].min():%H:%M}" in done.stdout
    check = bars.select("asset_pair", "timestamp", *_PRICES).sort("timestamp", "asset_pair")
    expected = resampled(ticks).join(check, on=["asset_pair", "timestamp"], how="semi").sort("timestamp", "asset_pair")
    assert check.drop("volume").equals(expected.drop("volume"))
    assert check["volume"].to_list() == pytest.approx(expected["volume"].to_list())


def started_with(folder: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR") == folder and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def read(table: Path) -> pl.DataFrame:
    return pl.DataFrame(DeltaTable(str(table)).to_pyarrow_table())


def resampled(ticks: pl.DataFrame) -> pl.DataFrame:
    price = pl.col("price")
    return (
        ticks.sort("timestamp")
        .group_by("asset_pair", pl.col("timestamp").dt.truncate("1m"))
        .agg(open=price.first(), high=price.max(), low=price.min(), close=price.last(), volume=pl.col("volume").sum())
    )
