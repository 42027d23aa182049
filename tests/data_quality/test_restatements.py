"""Restated bars, against pandas: every change with before and after, totals by series, limits and choices."""

from __future__ import annotations

from datetime import timedelta

import pandas as pd
import pytest

from pipelines.data_quality.restatements import restatements
from pipelines.intervals import Interval
from pipelines.storage import DeltaLakeManager
from pipelines.timeframes import Timeframe
from tests.data_quality.dead_letters import stored
from tests.data_quality.test_agreement import altered
from tests.storage.bars import DAY0, bars

TABLE = "raw_market_data_1h"
VALUES = ["open", "high", "low", "close", "volume"]


@pytest.fixture
def lake(embedded_lake: DeltaLakeManager) -> DeltaLakeManager:
    """Two assets; BTCUSD is restated in hours 3 to 5 and once more in hour 4, and at another provider in hour 4."""
    first = bars(count=24)
    btc = bars(count=24, assets=("BTCUSD",))
    second = altered(btc.slice(3, 3), close=[100.1, 99.9, 100.3], volume=[1.0, None, 2.0])
    third = altered(btc.slice(4, 1), close=[100.7])
    other = altered(btc.slice(4, 1), provider="files")
    for table in (first, second, third, other, altered(other, volume=[9.0])):
        embedded_lake.append(TABLE, table, "run")
    return embedded_lake


def oracle(lake: DeltaLakeManager) -> pd.DataFrame:
    """Return the changes by pandas, the latest first."""
    rows = stored(lake).sort_values(["asset_pair", "provider", "timestamp", "ingested_at"])
    by_key = rows.groupby(["asset_pair", "provider", "timestamp"])
    for name in [*VALUES, "ingested_at"]:
        rows[f"before_{name}"] = by_key[name].shift()
    return rows.dropna(subset=["before_ingested_at"]).sort_values(["ingested_at", "timestamp"], ascending=[False, True])


def test_every_change_is_listed_with_before_and_after(lake: DeltaLakeManager) -> None:
    expected, found = oracle(lake), restatements(lake)
    assert len(found.rows) == found.total == 5
    for change, (_, row) in zip(found.rows, expected.iterrows(), strict=True):
        assert (change.asset_pair, change.provider, change.timestamp, change.timeframe) == (
            row["asset_pair"], row["provider"], row["timestamp"], "1h",
        )  # fmt: skip
        assert (change.known_before, change.known_after) == (row["before_ingested_at"], row["ingested_at"])
        for name in VALUES:
            for side, value in ((change.after, row[name]), (change.before, row[f"before_{name}"])):
                assert side[name] == value or (side[name] is None and pd.isna(value))
        assert change.moved_bp == pytest.approx((row["close"] / row["before_close"] - 1) * 10_000)


def test_totals_by_series(lake: DeltaLakeManager) -> None:
    found = restatements(lake, limit=1)
    assert len(found.rows) == 1
    assert found.rows[0].provider == "files"
    by_provider = {each.provider: each for each in found.series}
    assert set(by_provider) == {"coinbase", "files"}
    expected = oracle(lake).query("provider == 'coinbase'")
    moved = ((expected["close"] / expected["before_close"] - 1) * 10_000).abs()
    series = by_provider["coinbase"]
    assert (series.bars, series.changes) == (3, 4)
    assert (series.median_bp, series.max_bp) == (pytest.approx(moved.median()), pytest.approx(moved.max()))
    assert (series.first, series.last) == (DAY0 + timedelta(hours=3), DAY0 + timedelta(hours=5))
    assert series.latest == expected["ingested_at"].max()
    assert (by_provider["files"].changes, by_provider["files"].max_bp) == (1, 0.0)


def test_what_is_asked_for_is_listed_alone(lake: DeltaLakeManager) -> None:
    hour = Interval(DAY0 + timedelta(hours=5), DAY0 + timedelta(hours=6))
    assert restatements(lake, interval=hour).total == 1
    assert restatements(lake, assets=["BTCUSD"]).total == 5
    assert restatements(lake, assets=["ETHUSD"]).total == 0
    assert restatements(lake, timeframes=[Timeframe.D1]).total == 0


def test_a_lake_without_any(embedded_lake: DeltaLakeManager) -> None:
    assert restatements(embedded_lake).total == 0
    embedded_lake.append(TABLE, bars(), "run")
    embedded_lake.append(TABLE, bars(), "again")
    found = restatements(embedded_lake)
    assert (found.total, found.rows, found.series) == (0, [], [])


def test_a_move_from_nothing_has_no_share(embedded_lake: DeltaLakeManager) -> None:
    base = altered(bars(count=1, assets=("^TNX",)), open=0.0, high=1.0, low=-1.0, close=0.0)
    for table in (base, altered(base, close=-0.5), altered(base, close=-0.25)):
        embedded_lake.append(TABLE, table, "run")
    assert [change.moved_bp for change in restatements(embedded_lake).rows] == [pytest.approx(5_000.0), None]
