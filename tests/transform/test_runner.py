"""Silver over a small lake: increments equal a full refresh, without news nothing is done, the past has its place."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from pipelines.contracts import contract_for
from pipelines.storage import DeltaLakeManager
from pipelines.timeframes import Timeframe
from pipelines.transform.runner import DbtRun, run_dbt, suffix_of
from tests.conftest import make_settings

pytestmark = pytest.mark.spark

START = datetime(2025, 1, 1, tzinfo=UTC)
KEYS = {
    "market_data_enriched": ["asset_pair", "timeframe", "timestamp"],
    "multi_timeframe_analysis": ["asset_pair", "timestamp"],
    "decision_history": ["decision_id"],
    "trade_lifecycle": ["book", "lot_id"],
}
# Those tables, and what they are made from: a run makes what it selects, and no more.
SILVER = (*KEYS, "int_closes")


def bars(asset: str, timeframe: str, first: int, count: int, *, seed: int = 0, provider: str = "coinbase") -> pa.Table:
    """Bars number `first` and so on since START: a random walk that depends on the seed alone."""
    walk = np.random.default_rng(seed).normal(0, 1, first + count)
    close = (1000 + np.cumsum(walk))[first:]
    opened = np.concatenate([[close[0]], close[:-1]])
    step = Timeframe(timeframe).step
    contract = contract_for(f"raw_market_data_{timeframe}")
    values = {
        "timestamp": [START + (first + number) * step for number in range(count)],
        "open": opened, "close": close, "high": np.maximum(opened, close) + 1, "low": np.minimum(opened, close) - 1,
        "volume": np.arange(first, first + count) % 7 + 1.0,
    }  # fmt: skip
    same = {"asset_pair": asset, "timeframe": timeframe, "provider": provider, "price_side": "trade",
            "is_adjusted": False, "is_derived": False}  # fmt: skip
    return pa.table(
        {
            column.name: pa.array(values.get(column.name, [same.get(column.name)] * count), column.arrow_type)
            for column in contract.columns
            if column.provided != "storage"
        }
    )


def land(lake: DeltaLakeManager, table: pa.Table) -> None:
    lake.append(f"raw_market_data_{table['timeframe'][0]}", table, "run")


def records(table_name: str, rows: Sequence[dict[str, object]]) -> pa.Table:
    columns = [column for column in contract_for(table_name).columns if column.provided != "storage"]
    return pa.table({c.name: pa.array([row.get(c.name) for row in rows], c.arrow_type) for c in columns})


def restated(lake: DeltaLakeManager, asset: str, timeframe: str, number: int) -> None:
    """One bar's close, moved within the bar."""
    old = bars(asset, timeframe, 0, number + 1).slice(number)
    close = pa.array([old["low"][0].as_py() + 0.25])
    land(lake, old.set_column(old.column_names.index("close"), "close", close))


def silver(lake: DeltaLakeManager, suffix: str = "") -> dict[str, pd.DataFrame]:
    layer = DeltaLakeManager(f"{lake.storage_path}/silver{suffix}", lake.settings)
    return {name: layer.read_table(name).sort_values(keys).reset_index(drop=True) for name, keys in KEYS.items()}


def versions(lake: DeltaLakeManager) -> dict[str, int]:
    layer = DeltaLakeManager(f"{lake.storage_path}/silver", lake.settings)
    return {name: int(layer.get_table_history(name)["version"].iloc[0]) for name in KEYS}


def assert_same(one: dict[str, pd.DataFrame], other: dict[str, pd.DataFrame]) -> None:
    for name in KEYS:
        pd.testing.assert_frame_equal(one[name], other[name], rtol=1e-9, atol=1e-9, check_exact=False, obj=name)


def decision(name: str, after: timedelta, timeframe: str | None = "5m") -> dict[str, object]:
    return {"decision_id": name, "asset_pair": "BTCUSD", "timestamp": START + after, "action": "BUY",
            "confidence": 0.5, "strategy": "voting", "timeframe": timeframe, "provider": "files"}  # fmt: skip


def execution(name: str, after: timedelta, side: str) -> dict[str, object]:
    return {"execution_id": name, "order_id": name, "asset_pair": "BTCUSD", "timestamp": START + after, "side": side,
            "quantity": 1.0, "price": 1000.0, "fee": 1.0, "fee_currency": "USD", "status": "filled",
            "provider": "files"}  # fmt: skip


class Workbench:
    """A lake, and where dbt writes; one for the module, whose tests tell one story."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        settings = make_settings(folder, {"storage": {"engine": "embedded"}})
        self.lake = DeltaLakeManager(settings.delta_lake.storage_path, settings)

    def run(self, *arguments: str, **options: str) -> DbtRun:
        done = run_dbt(["--quiet", *arguments], self.lake, self.folder / "dbt", **options)
        assert done.ok, [(node.name, node.status, node.message) for node in done.nodes if not node.ok]
        return done

    def refreshed(self) -> dict[str, pd.DataFrame]:
        """What a full refresh makes of bronze; what is there stays as it is."""
        before = datetime.now(UTC)
        done = self.run("run", "--select", *SILVER, as_of=before.isoformat())
        return silver(self.lake, done.suffix)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Workbench:
    """BTCUSD in four timeframes, two decisions and two executions; silver is built."""
    bench = Workbench(tmp_path_factory.mktemp("transform"))
    for timeframe, count in (("1m", 900), ("5m", 400), ("1h", 260), ("1d", 30)):
        land(bench.lake, bars("BTCUSD", timeframe, 0, count))
    decisions = [decision("early", -timedelta(days=9)), decision("later", timedelta(minutes=60))]
    bench.lake.append("raw_ai_decisions", records("raw_ai_decisions", decisions), "run")
    fills = [execution("in", timedelta(minutes=61), "BUY"), execution("out", timedelta(minutes=90), "SELL")]
    bench.lake.append("raw_trade_executions", records("raw_trade_executions", fills), "run")
    done = bench.run("build", "--select", *SILVER, "--exclude", "source:*")
    assert {node.kind for node in done.nodes} == {"model", "test", "unit_test"}
    return bench


def test_a_decision_sees_the_bar_that_closed_at_its_instant_and_none_after(bench: Workbench) -> None:
    found = silver(bench.lake)["decision_history"].set_index("decision_id")
    bars_5m = bars("BTCUSD", "5m", 0, 12).to_pandas()
    assert found.loc["later", "context_closed_at"] == START + timedelta(minutes=60)
    assert found.loc["later", "close"] == bars_5m["close"].iloc[11]
    assert found.loc["later", "confluence_as_of"] == START + timedelta(minutes=60)
    assert found.loc["early", ["context_closed_at", "close", "confluence_score"]].isna().all()


def test_pulses_are_of_the_last_closed_bars(bench: Workbench) -> None:
    """An as-of join by pandas is the oracle."""
    tables = silver(bench.lake)
    enriched = tables["market_data_enriched"]
    signs = [np.sign(enriched["ema_12"] - enriched["ema_26"]), np.sign(enriched["macd_hist"]),
             np.sign(enriched["rsi_14"] - 50)]  # fmt: skip
    enriched["pulse"] = sum(signs) / 3
    steps = enriched["timeframe"].map({str(timeframe): timeframe.step for timeframe in Timeframe})
    enriched["closed_at"] = enriched["timestamp"] + pd.to_timedelta(steps).dt.as_unit("us")
    found = tables["multi_timeframe_analysis"].sort_values("as_of")
    assert len(found) == 400
    for timeframe in ("1m", "5m", "1h", "1d"):
        of_it = enriched.loc[enriched["timeframe"] == timeframe, ["closed_at", "pulse"]].sort_values("closed_at")
        joined = pd.merge_asof(found, of_it.assign(at=of_it["closed_at"]), left_on="as_of", right_on="closed_at")
        pd.testing.assert_series_equal(joined["at"], joined[f"closed_at_{timeframe}"], check_names=False)
        pd.testing.assert_series_equal(joined["pulse"], joined[f"pulse_{timeframe}"], check_names=False)


def test_a_run_in_a_fresh_process_without_news_rewrites_nothing(bench: Workbench) -> None:
    before = versions(bench.lake)
    code = (
        "import sys; from pathlib import Path; from pipelines.storage import DeltaLakeManager; "
        "from pipelines.transform.runner import run_dbt; "
        "lake, folder = DeltaLakeManager(sys.argv[1]), Path(sys.argv[2]); "
        "sys.exit(not run_dbt(['--quiet', 'run', '--select', *sys.argv[3:]], lake, folder).ok)"
    )
    arguments = [sys.executable, "-c", code, bench.lake.storage_path, str(bench.folder / "elsewhere"), *SILVER]
    subprocess.run(arguments, check=True, env=os.environ, timeout=300)
    assert versions(bench.lake) == before


@pytest.mark.soak
def test_increments_equal_a_full_refresh(bench: Workbench) -> None:
    """New bars, a restated one in the middle, an asset that appears, a better provider, a timeframe that appears."""
    restated(bench.lake, "BTCUSD", "1h", 100)
    land(bench.lake, bars("BTCUSD", "1m", 900, 30))
    land(bench.lake, bars("ETHUSD", "5m", 10, 50, seed=1))
    land(bench.lake, bars("BTCUSD", "5m", 390, 5, seed=2, provider="alpha_vantage"))
    land(bench.lake, bars("BTCUSD", "15m", 0, 40, seed=3))
    before = versions(bench.lake)
    bench.run("run", "--select", *SILVER)
    after = versions(bench.lake)
    assert {name: after[name] - before[name] for name in ("market_data_enriched", "multi_timeframe_analysis")} == {
        "market_data_enriched": 1, "multi_timeframe_analysis": 1
    }  # fmt: skip
    layer = DeltaLakeManager(f"{bench.lake.storage_path}/silver", bench.lake.settings)
    assert layer.get_table_history("market_data_enriched")["operation"].iloc[0] == "WRITE"
    assert_same(silver(bench.lake), bench.refreshed())


@pytest.mark.soak
def test_a_restored_table_takes_its_bars_back(bench: Workbench) -> None:
    land(bench.lake, bars("ETHUSD", "5m", 60, 20, seed=1))
    bench.run("run", "--select", *SILVER)
    newest = bench.lake.pin("raw_market_data_5m").version
    bench.lake.restore_table("raw_market_data_5m", version=newest - 1)
    bench.run("run", "--select", *SILVER)
    eth = silver(bench.lake)["market_data_enriched"].query("asset_pair == 'ETHUSD'")
    assert len(eth) == 50
    assert_same(silver(bench.lake), bench.refreshed())


@pytest.mark.soak
def test_a_snapshot_is_built_beside_what_is_live(bench: Workbench) -> None:
    bench.lake.snapshots.create("before-backtest")
    live = silver(bench.lake)
    restated(bench.lake, "BTCUSD", "5m", 50)
    before = versions(bench.lake)
    done = bench.run("run", "--select", *SILVER, snapshot="before-backtest")
    assert versions(bench.lake) == before
    assert_same(silver(bench.lake, done.suffix), live)


def test_suffixes_are_names_and_differ() -> None:
    names = ["a-b", "a.b", "a_b", "ab"]
    assert len({suffix_of(None, name) for name in names}) == len(names)
    assert suffix_of("2025-12-13", None) == "_as_of_20251213t000000"
    assert suffix_of(None, None) == ""
