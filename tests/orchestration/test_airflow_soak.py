"""Whole runs of the DAGs, every model included: on made-up data, on real bars, on PostgreSQL, from the command line."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from tests.batch.exchange import Exchange
from tests.orchestration.conftest import FOLDER, REAL_BARS, Platform, environment, real_minutes
from tests.orchestration.test_airflow import DAILY, STEPS, states
from tests.servers.airflow import Airflow
from tests.servers.alpha_vantage import AlphaVantageServer
from tests.servers.postgres import Postgres
from tests.servers.slack import SlackServer

pytestmark = [pytest.mark.spark(alone=True), pytest.mark.soak]

GOLD = {
    "mart_trading_performance", "mart_provider_attribution", "mart_ensemble_effectiveness", "mart_market_regime_stats",
    "mart_daily_portfolio_summary",
}  # fmt: skip


def tables(folder: Path) -> dict[str, tuple[int, int]]:
    """The version and the rows of each table of bars, silver and gold, as delta-rs reads them."""
    found = [*folder.glob("raw_*"), *folder.glob("silver/*"), *folder.glob("gold/*")]
    opened = {path.name: DeltaTable(path) for path in found if (path / "_delta_log").is_dir()}
    return {name: (table.version(), table.to_pyarrow_table().num_rows) for name, table in opened.items()}


def run_twice(airflow: Airflow, dag_id: str, folder: Path, **conf: Any) -> dict[str, tuple[int, int]]:
    """Run a DAG twice: the second run leaves every table at its version. Returns the tables."""
    first = airflow.trigger(dag_id, **conf)
    assert airflow.wait_for(dag_id, first, 1800) == "success", airflow.told()
    before = tables(folder)
    second = airflow.trigger(dag_id, **conf)
    assert airflow.wait_for(dag_id, second, 1800) == "success", airflow.told()
    assert tables(folder) == before
    assert airflow.result(dag_id, second, "ingest")["requests"] == 0
    return before


def test_all_of_it_on_made_up_data(platform: Platform) -> None:
    platform.airflow.unpause("full_pipeline_test")
    found = run_twice(
        platform.airflow, "full_pipeline_test", platform.folder / "sample",
        assets=["BTCUSD", "EURUSD"], start="2026-11-16", end="2026-11-18",
    )  # fmt: skip
    # Two days of a market that does not close, and of one that did not in these.
    assert found["raw_market_data_1h"][1] >= 48
    bronze = sum(rows for name, (_, rows) in found.items() if name.startswith("raw_market_data"))
    assert found["market_data_enriched"][1] == bronze
    assert all(found[mart][1] > 0 for mart in GOLD)


@pytest.mark.skipif(not REAL_BARS.is_file(), reason=f"no real bars at {REAL_BARS}")
def test_past_days_of_real_bars(platform: Platform) -> None:
    """A run for a logical date is about the days before it, and the scheduled ones of the past are as good."""
    airflow = platform.airflow
    airflow.unpause(DAILY)
    conf = {"assets": ["BTCUSD"], "timeframes": ["1m"], "days": 2}
    run = airflow.trigger_for(DAILY, datetime(2022, 1, 8, 1, tzinfo=UTC), **conf)
    assert airflow.wait_for(DAILY, run, 1800) == "success", airflow.told()
    assert states(platform, DAILY, run) == dict.fromkeys(STEPS, "success")
    silver = DeltaTable(platform.folder / "lake" / "silver" / "market_data_enriched").to_pandas()
    made = silver[silver["timeframe"] == "1m"].set_index("timestamp").sort_index()
    expected = real_minutes().loc["2022-01-06":"2022-01-07"]  # type: ignore[misc]
    assert made.loc[expected.index, "close"].tolist() == expected["close"].tolist()
    before = tables(platform.folder / "lake")
    again = airflow.trigger(DAILY, **{**conf, "start": "2022-01-06", "end": "2022-01-08"})
    assert airflow.wait_for(DAILY, again, 1800) == "success", airflow.told()
    assert tables(platform.folder / "lake") == before


def test_on_postgresql(tmp_path: Path) -> None:
    with (
        Exchange() as exchange,
        AlphaVantageServer() as down,
        SlackServer() as slack,
        Postgres() as postgres,
        Airflow(environment(tmp_path, exchange, down, slack), [FOLDER], postgres.address) as airflow,
    ):
        run_twice(
            airflow, "fetching", tmp_path / "sample",
            sample=True, assets=["BTCUSD"], start="2026-11-16", end="2026-11-18",
        )  # fmt: skip


def test_from_the_command_line(platform: Platform) -> None:
    """`airflow dags test` runs the DAG in its own process, though it has a deadline."""
    conf = '{"sample": true, "assets": ["ETHUSD"], "days": 1, "timeframes": ["1h"], "steps": ["ingest", "optimize"]}'
    platform.airflow.run("dags", "test", DAILY, "2026-11-20T01:00:00+00:00", "--conf", conf)
    rows = DeltaTable(platform.folder / "sample" / "raw_market_data_1h").to_pandas()
    days = rows[rows["asset_pair"] == "ETHUSD"]["timestamp"].dt.date.astype(str)
    assert set(days) >= {"2026-11-19"}
