"""Real bars with planted defects: every planted row in the dead letter queue, every other one in bronze."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pipelines.batch.load import FileLoad
from pipelines.config import PROJECT_ROOT, Settings
from pipelines.instruments import load_registry
from pipelines.sources.base import MARKET_DATA
from pipelines.sources.files import FileSpec
from pipelines.storage import DeltaLakeManager
from pipelines.timeframes import Timeframe
from tests.batch.exchange import stored

pytestmark = pytest.mark.spark

SHARED = PROJECT_ROOT.parent / "shared" / "data"
FILES = [
    ("btc_usd_perp_1m_2022-01.csv", "BTCUSD", Timeframe.M1, {}),
    ("gbpusd_1m_bid_2012-02.csv", "GBPUSD", Timeframe.M1, {}),
    ("eth_btc_5m_2018-01.csv", "ETHBTC", Timeframe.M5, {"timestamp": "date"}),
    ("ltc_btc_5m_2018-01.csv", "LTCBTC", Timeframe.M5, {"timestamp": "date"}),
]
Row = dict[str, str]
DEFECTS: dict[str, Callable[[Row], Row]] = {
    "high < low": lambda row: {**row, "high": row["low"], "low": str(float(row["high"]) * 1.01)},
    "close not in range": lambda row: {**row, "close": str(float(row["high"]) * 1.5)},
    "null close": lambda row: {**row, "close": ""},
    "negative price": lambda row: {**row, "low": "-1"},
    "price out of bounds": lambda row: {**row, "high": "1e9"},
    "wrong type: open": lambda row: {**row, "open": "abc"},
    "NaN high": lambda row: {**row, "high": "NaN"},
    "bar not closed yet": lambda row: {**row, "time": row["time"].replace(row["time"][:4], "2096", 1)},
}


def planted(frame: pd.DataFrame, time: str, seed: int) -> tuple[pd.DataFrame, dict[pd.Timestamp, str]]:
    """Return the file with a defect in one row of forty, and each such row's time and reason."""
    rows = frame.to_dict("records")
    kinds, expected = list(DEFECTS), {}
    for turn, place in enumerate(random.Random(seed).sample(range(len(rows)), len(rows) // 40)):
        reason = kinds[turn % len(kinds)]
        row = {"time": rows[place].pop(time), **rows[place]}
        broken = DEFECTS[reason](row)
        rows[place] = {time: broken.pop("time"), **broken}
        expected[pd.Timestamp(rows[place][time])] = reason
    return pd.DataFrame(rows)[list(frame.columns)], expected


def in_utc(when: pd.Timestamp) -> pd.Timestamp:
    return when.tz_localize("UTC") if when.tzinfo is None else when.tz_convert("UTC")


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no folder of real data at {SHARED}")
@pytest.mark.parametrize(("name", "asset", "timeframe", "mapping"), FILES)
def test_every_planted_row_and_no_other_is_refused(
    name: str,
    asset: str,
    timeframe: Timeframe,
    mapping: dict[str, str],
    settings: Settings,
    lake: DeltaLakeManager,
    tmp_path: Path,
    spark: object,
) -> None:
    frame = pd.read_csv(SHARED / name, dtype=str)
    time = mapping.get("timestamp", "timestamp")
    broken, expected = planted(frame, time, seed=len(frame))
    path = tmp_path / name
    broken.to_csv(path, index=False)
    spec = FileSpec(path, MARKET_DATA, load_registry().resolve(asset), timeframe, mapping, "UTC")
    result = asyncio.run(FileLoad(lake, settings).run(spec))
    assert result.ok
    assert result.total("rejected") == len(expected) == len(frame) // 40
    assert result.total("new") == len(frame) - len(expected)
    dead = [
        record
        for file in sorted(Path(settings.dlq.path).glob("dlq_*.json"))
        for record in json.loads(file.read_text(encoding="utf-8"))["records"]
    ]
    found = {in_utc(pd.Timestamp(record["timestamp"])): record["reason"] for record in dead}
    assert len(dead) == len(expected)
    assert set(found) == {in_utc(when) for when in expected}
    assert all(reason in found[in_utc(when)] for when, reason in expected.items())
    landed = stored(lake.storage_path, f"raw_market_data_{timeframe.value}", asset)
    assert len(landed) == len(frame) - len(expected)
    assert not set(landed.index) & set(found)
