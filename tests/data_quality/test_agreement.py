"""How far providers agree, against pandas; the newest versions, planted deviations, price sides, nothing to compare."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipelines.data_quality.agreement import Agreement, agreement
from pipelines.intervals import Interval
from pipelines.storage import DeltaLakeManager
from pipelines.timeframes import Timeframe
from tests.storage.bars import DAY0, bars

PRICES = ("open", "high", "low", "close")


def altered(table: pa.Table, **columns: object) -> pa.Table:
    """Return bars with columns replaced."""
    frame = table.to_pandas()
    for name, values in columns.items():
        frame[name] = values
    return pa.Table.from_pandas(frame, schema=table.schema, preserve_index=False)


def noisy(table: pa.Table, seed: int, bp: float = 30.0) -> pa.Table:
    """Return bars whose prices are off by some basis points."""
    noise = np.random.default_rng(seed)
    frame = table.to_pandas()
    for name in PRICES:
        frame[name] = frame[name] * (1 + noise.normal(0, bp / 10_000, len(frame)))
    frame["high"], frame["low"] = frame[[*PRICES]].max(axis=1), frame[[*PRICES]].min(axis=1)
    return pa.Table.from_pandas(frame, schema=table.schema, preserve_index=False)


def oracle(one: pa.Table, other: pa.Table, asset: str) -> pd.DataFrame:
    """Return the deviations of shared bars, by pandas."""
    left, right = (
        frame[frame["asset_pair"] == asset].set_index("timestamp") for frame in map(pa.Table.to_pandas, (one, other))
    )
    both = left.join(right, rsuffix="_b", how="inner")
    for name in PRICES:
        larger = both[[name, f"{name}_b"]].abs().max(axis=1)
        both[f"{name}_bp"] = ((both[name] - both[f"{name}_b"]).abs() / larger * 10_000).fillna(0)
    return both


def one_of(found: list[Agreement], asset: str) -> Agreement:
    (result,) = [each for each in found if each.asset_pair == asset]
    return result


def test_the_numbers_are_those_of_pandas(embedded_lake: DeltaLakeManager) -> None:
    a = bars(count=300)
    b = noisy(altered(bars(count=300, start=DAY0 + timedelta(hours=50)), provider="oanda", price_side="mid"), seed=1)
    for table in (a, b):
        embedded_lake.append("raw_market_data_1h", table, "run")
    found = agreement(embedded_lake, tolerance_bp=60.0, worst=5)
    assert [(each.asset_pair, each.provider, each.other) for each in found] == [
        ("BTCUSD", "coinbase", "oanda"),
        ("ETHUSD", "coinbase", "oanda"),
    ]
    for asset in ("BTCUSD", "ETHUSD"):
        expected, result = oracle(a, b, asset), one_of(found, asset)
        close = expected["close_bp"]
        assert (result.bars, result.timeframe) == (250, "1h")
        assert result.median_bp == pytest.approx(close.median())
        assert result.p95_bp == pytest.approx(close.quantile(0.95))
        assert result.p99_bp == pytest.approx(close.quantile(0.99))
        assert result.max_bp == pytest.approx(close.max())
        assert result.ohlc_max_bp == pytest.approx(expected[[f"{name}_bp" for name in PRICES]].max().max())
        assert 0 < result.beyond == int((close > 60).sum())
        worst = close[close > 60].sort_values(ascending=False).head(5)
        assert [bar.timestamp for bar in result.worst] == list(worst.index)
        assert [bar.bp for bar in result.worst] == pytest.approx(list(worst))
        for bar in result.worst:
            row = expected.loc[bar.timestamp]
            assert (bar.close, bar.other_close) == (row["close"], row["close_b"])
            assert bar.worst_bp == pytest.approx(max(row[f"{name}_bp"] for name in PRICES))
        assert result.remarks == ["coinbase has trade prices, oanda has mid prices"]


def test_the_newest_versions_count(embedded_lake: DeltaLakeManager) -> None:
    a = bars(count=10, assets=("BTCUSD",))
    wrong = altered(a, provider="oanda", high=300.0, close=200.0)
    for table in (a, wrong, altered(a, provider="oanda")):
        embedded_lake.append("raw_market_data_1h", table, "run")
    (found,) = agreement(embedded_lake)
    assert (found.bars, found.max_bp, found.ohlc_max_bp, found.beyond, found.worst) == (10, 0.0, 0.0, 0, [])
    assert found.remarks == []


def test_around_zero_and_for_three_providers(embedded_lake: DeltaLakeManager) -> None:
    base = bars(count=3, assets=("^TNX",))
    flat = {"open": 0.0, "high": 0.5, "low": -0.5}
    a = altered(base, **flat, close=[0.0, 0.0, 0.1])
    b = altered(base, **flat, close=[0.0, 0.1, -0.1], provider="files", is_adjusted=True)
    for table in (a, b, altered(a, provider="yfinance")):
        embedded_lake.append("raw_market_data_1h", table, "run")
    found = agreement(embedded_lake)
    assert [(each.provider, each.other) for each in found] == [
        ("coinbase", "files"),
        ("coinbase", "yfinance"),
        ("files", "yfinance"),
    ]
    assert [bar.bp for bar in found[0].worst] == [20_000.0, 10_000.0]
    assert found[1].max_bp == 0.0
    assert found[0].remarks == ["coinbase has unadjusted prices, files has adjusted prices"]


def test_what_is_asked_for_is_compared_alone(embedded_lake: DeltaLakeManager) -> None:
    for provider in ("coinbase", "files"):
        embedded_lake.append("raw_market_data_1h", bars(count=48, provider=provider), "run")
        embedded_lake.append("raw_market_data_1d", bars("1d", count=5, provider=provider), "run")
    some = agreement(
        embedded_lake,
        assets=["ETHUSD"],
        timeframes=[Timeframe.H1],
        interval=Interval(DAY0 + timedelta(hours=10), DAY0 + timedelta(hours=13)),
    )
    assert [(each.asset_pair, each.timeframe, each.bars) for each in some] == [("ETHUSD", "1h", 3)]
    assert len(agreement(embedded_lake)) == 4


def test_nothing_to_compare(embedded_lake: DeltaLakeManager) -> None:
    assert agreement(embedded_lake) == []
    embedded_lake.append("raw_market_data_1h", bars(count=5), "run")
    later = bars(count=5, start=DAY0 + timedelta(days=9), provider="files")
    embedded_lake.append("raw_market_data_1h", later, "run")
    assert agreement(embedded_lake) == []
