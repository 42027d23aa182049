"""The gold marts, built by dbt in Spark out of a lake, against the oracle: plain pandas, written from docs/marts.md."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipelines.storage import DeltaLakeManager
from tests.transform import book_lake
from tests.transform.marts_oracle import KEYS, Settings, marts
from tests.transform.sample_book import SampleBook

pytestmark = pytest.mark.spark

SETTINGS = Settings(initial_balances={"BTC": 2.0}, initial_balance=1_000_000.0, risk_free=0.03)


@dataclass(frozen=True, slots=True)
class Built:
    """The marts as dbt built them, and the bars with the regimes that silver gave them."""

    gold: dict[str, pd.DataFrame]
    bars: pd.DataFrame


@pytest.fixture(scope="module")
def built(book_bars: pa.Table, built_book: DeltaLakeManager) -> Built:
    enriched = book_lake.read(built_book, "market_data_enriched")
    enriched = enriched[["asset_pair", "timeframe", "timestamp", "market_regime"]]
    bars = book_bars.drop_columns("regime").to_pandas().merge(enriched, on=["asset_pair", "timeframe", "timestamp"])
    assert len(bars) == book_bars.num_rows
    gold = {name: book_lake.read(built_book, name) for name in KEYS}
    return Built(gold, bars.rename(columns={"market_regime": "regime"}))


@pytest.fixture(scope="module")
def wanted(book: SampleBook, built: Built) -> dict[str, pd.DataFrame]:
    return marts(book.executions.to_pandas(), book.decisions.to_pandas(), built.bars, SETTINGS)


def assert_same(found: pd.DataFrame, expected: pd.DataFrame, keys: list[str]) -> None:
    assert set(found.columns) == set(expected.columns)
    found, expected = (table.set_index(keys).sort_index() for table in (found, expected))
    assert not found.index.has_duplicates
    pd.testing.assert_index_equal(found.index, expected.index, exact=False)
    for name in expected.columns:
        one, other = found[name], expected[name]
        if name == "known_at":
            same = (pd.to_datetime(one, utc=True) == pd.to_datetime(other, utc=True)).to_numpy()
        elif name == "quote_currency":
            same = (one == other).to_numpy()
        else:
            numbers = (one.astype(float).to_numpy(), other.astype(float).to_numpy())
            same = np.isclose(*numbers, rtol=1e-9, atol=1e-8, equal_nan=True)
        wrong = pd.DataFrame({"found": one, "expected": other})[~same]
        assert wrong.empty, f"{name}, {len(wrong)} rows:\n{wrong.head()}"


def test_the_book_has_regimes_and_every_outcome(built: Built, wanted: dict[str, pd.DataFrame]) -> None:
    assert {"trend", "range"} <= set(built.bars["regime"].dropna())
    last = wanted["mart_trading_performance"].query("asset_pair == 'ALL'")
    assert (last[["wins", "losses", "ties", "unpriced_trades"]].sum() > 0).all()


@pytest.mark.parametrize("name", KEYS)
def test_a_mart_is_the_oracles(name: str, built: Built, wanted: dict[str, pd.DataFrame]) -> None:
    assert_same(built.gold[name], wanted[name], KEYS[name])
