"""Silver converges in whatever order rows arrive and wherever a run is killed, and the past can be built again."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from pipelines.storage import DeltaLakeManager
from tests.transform.test_runner import (
    SILVER,
    Workbench,
    assert_same,
    bars,
    decision,
    execution,
    land,
    records,
    silver,
)

pytestmark = pytest.mark.spark

SERIES = (
    ("BTCUSD", "1m", 400), ("BTCUSD", "5m", 300), ("BTCUSD", "1h", 240), ("BTCUSD", "1d", 40), ("ETHUSD", "5m", 300),
    ("ETHUSD", "1h", 240), ("XRPUSD", "15m", 60),
)  # fmt: skip
ASSETS = ("BTCUSD", "ETHUSD", "XRPUSD", "TSLA")
VICTIM = """
import sys
from pathlib import Path
from pipelines.storage import DeltaLakeManager
from pipelines.transform.runner import run_dbt
def say(text, *_):
    print(text, flush=True)
say("begun")
lake, folder, *models = sys.argv[1:]
run_dbt(["--quiet", "run", "--select", *models], DeltaLakeManager(lake), Path(folder), on_node=say)
say("done")
"""


class Arrivals:
    """Seeded batches: new, late and restated bars, of several providers, and records; now and then one twice."""

    def __init__(self, lake: DeltaLakeManager, seed: int) -> None:
        self._lake = lake
        self._random = np.random.default_rng(seed)
        self._seed = seed

    def land(self, batches: int, *kinds: str) -> None:
        for _ in range(batches):
            repeats = 1 + int(self._random.random() < 0.2)
            kind = self._random.choice(kinds or ("bars", "bars", "bars", "decisions", "executions"))
            table_name, rows = getattr(self, f"_{kind}")()
            for _ in range(repeats):
                self._lake.append(table_name, rows, "run")

    def _bars(self):
        asset, timeframe, length = SERIES[self._random.integers(0, len(SERIES))]
        first = int(self._random.choice([0, *self._random.integers(0, length, 3)]))
        count = int(self._random.choice([1, 2, 20, length]))
        provider = str(self._random.choice(["coinbase", "coinbase", "alpha_vantage", "zeta"]))
        version = int(self._random.choice([0, 0, self._seed]))
        rows = bars(asset, timeframe, first, min(count, length - first), seed=version, provider=provider)
        return f"raw_market_data_{timeframe}", rows

    def _instant(self) -> timedelta:
        return timedelta(minutes=int(self._random.integers(-600, 6000)))

    def _decisions(self):
        rows = [
            decision(f"d{self._random.integers(0, 12)}", self._instant(), str(self._random.choice(["5m", "1h", "1d"])))
            | {"asset_pair": str(self._random.choice(ASSETS)), "action": str(self._random.choice(["BUY", "SELL"])),
               "provider": str(self._random.choice(["files", "coinbase"]))}
            for _ in range(3)
        ]  # fmt: skip
        return "raw_ai_decisions", records("raw_ai_decisions", once(rows, "decision_id"))

    def _executions(self):
        rows = [
            execution(f"e{self._random.integers(0, 30)}", self._instant(), str(self._random.choice(["BUY", "SELL"])))
            | {"asset_pair": str(self._random.choice(ASSETS)), "price": float(self._random.integers(900, 1100)),
               "decision_id": f"d{self._random.integers(0, 14)}"}
            for _ in range(4)
        ]  # fmt: skip
        return "raw_trade_executions", records("raw_trade_executions", once(rows, "execution_id"))


def once(rows: list[dict[str, object]], key: str) -> list[dict[str, object]]:
    """A batch has one row of a key and provider."""
    return list({(row[key], row["provider"]): row for row in rows}.values())


def gold(lake: DeltaLakeManager, suffix: str = "") -> dict[str, pd.DataFrame]:
    """Every table of gold, in an order that its rows alone say."""
    layer = DeltaLakeManager(f"{lake.storage_path}/gold{suffix}", lake.settings)
    found = {}
    for name in lake.layer("gold" + suffix).names():
        rows = layer.read_table(name)
        order = rows.map(lambda cell: str(list(cell)) if isinstance(cell, np.ndarray) else str(cell))
        places = [column for column in rows if not pd.api.types.is_float_dtype(rows[column])]
        found[name] = rows.loc[order.sort_values(places).index].reset_index(drop=True)
    return found


def all_versions(lake: DeltaLakeManager) -> dict[str, int]:
    return {
        f"{layer}.{name}": int(
            DeltaLakeManager(f"{lake.storage_path}/{layer}", lake.settings).get_table_history(name)["version"].iloc[0]
        )
        for layer in ("silver", "gold")
        for name in lake.layer(layer).names()
    }


class Then:
    """What was live at an instant, in silver and gold; later, bronze has moved on."""

    def __init__(self, bench: Workbench) -> None:
        bench.run("run")
        self.silver, self.gold = silver(bench.lake), gold(bench.lake)
        bench.lake.snapshots.create("then")
        self.instant = datetime.now(UTC)
        Arrivals(bench.lake, 30).land(6)
        bench.run("run")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Workbench:
    """Silver, built live out of what arrived first."""
    bench = Workbench(tmp_path_factory.mktemp("convergence"))
    for asset, timeframe, length in SERIES[:5]:
        land(bench.lake, bars(asset, timeframe, length // 4, length // 2))
    arrivals = Arrivals(bench.lake, 1)
    arrivals.land(10)
    arrivals.land(4, "executions")
    bench.run("run", "--select", *SILVER)
    return bench


@pytest.fixture(scope="module")
def then(bench: Workbench) -> Then:
    return Then(bench)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 10))
def test_increments_in_any_order_equal_a_full_refresh(bench: Workbench, seed: int) -> None:
    arrivals = Arrivals(bench.lake, seed)
    arrivals.land(4)
    # Of a run that is interrupted between two models the first one is up to date.
    bench.run("run", "--select", "market_data_enriched")
    arrivals.land(4)
    bench.run("run", "--select", *SILVER)
    assert_same(silver(bench.lake), bench.refreshed())


def killed(bench: Workbench, seed: int) -> str:
    """Start a run in a process of its own and kill it and its JVM in a model, or before the first; returns where."""
    chance = random.Random(seed)
    model = chance.choice(["begun", *SILVER])
    arguments = [sys.executable, "-c", VICTIM, bench.lake.storage_path, str(bench.folder / f"victim{seed}"), *SILVER]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=os.environ) as victim:
        assert victim.stdout is not None
        for line in victim.stdout:
            if line.strip() in (model, "done"):
                break
        # Longer than most models take: some runs die between two of them, or in the next one.
        time.sleep(chance.uniform(0, 3))
        with_jvm = [victim.pid, *children(victim.pid)] if chance.random() < 0.5 else [victim.pid]
        for process in with_jvm:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    return f"{model}, {len(with_jvm)} processes"


def children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def whole(found: pd.DataFrame, choices: list[pd.DataFrame]) -> bool:
    """Whether a table is one of those, to the last row."""
    for wanted in choices:
        try:
            pd.testing.assert_frame_equal(found, wanted, rtol=1e-9, atol=1e-9, check_exact=False)
        except AssertionError:
            continue
        return True
    return False


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(11, 24))
def test_a_killed_run_leaves_whole_tables_and_the_next_one_converges(bench: Workbench, seed: int) -> None:
    before = silver(bench.lake)
    Arrivals(bench.lake, seed).land(8)
    where = killed(bench, seed)
    left = silver(bench.lake)
    bench.run("run", "--select", *SILVER)
    refreshed = bench.refreshed()
    assert_same(silver(bench.lake), refreshed)
    for name, rows in left.items():
        assert whole(rows, [before[name], refreshed[name]]), f"{name} after a kill in {where}"


@pytest.mark.soak
def test_the_past_is_what_was_live_then(bench: Workbench, then: Then) -> None:
    """Bronze has moved on since; what is live stays as it is."""
    versions = all_versions(bench.lake)
    done = bench.run("run", as_of=then.instant.isoformat())
    assert_same(silver(bench.lake, done.suffix), then.silver)
    found = gold(bench.lake, done.suffix)
    assert set(found) == set(then.gold)
    assert {"mart_trading_performance", "mart_provider_attribution"} < set(found)
    assert len(then.gold["mart_trading_performance"]) > 3
    for name, rows in then.gold.items():
        pd.testing.assert_frame_equal(found[name], rows, rtol=1e-9, atol=1e-9, check_exact=False, obj=name)
    assert all_versions(bench.lake) == versions
    with pytest.raises(AssertionError):
        assert_same(silver(bench.lake), then.silver)


@pytest.mark.soak
def test_a_snapshot_gives_the_marts_of_then(bench: Workbench, then: Then) -> None:
    versions = all_versions(bench.lake)
    done = bench.run("run", "--select", "+mart_daily_portfolio_summary", snapshot="then")
    found = gold(bench.lake, done.suffix)["mart_daily_portfolio_summary"]
    wanted = then.gold["mart_daily_portfolio_summary"]
    assert len(wanted) > 3
    pd.testing.assert_frame_equal(found, wanted, rtol=1e-9, atol=1e-9, check_exact=False)
    assert all_versions(bench.lake) == versions
