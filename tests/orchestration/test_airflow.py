"""A real scheduler runs the project's DAGs: the daily one as a whole, and its steps while things go wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from pipelines.timeframes import Timeframe
from tests.batch.exchange import BAR, truth
from tests.orchestration.conftest import REAL_BARS, Platform, real_minutes
from tests.servers.airflow import kill_task
from tests.servers.base import hang, status
from tests.storage.bars import bars

pytestmark = [pytest.mark.spark(alone=True), pytest.mark.timeout(1800)]

DAILY = "daily_market_data_pipeline"
STEPS = ["ingest", "validate", "dbt_silver", "dbt_marts", "dbt_tests", "optimize", "refresh_dashboards"]
SAMPLE = {"sample": True, "assets": ["BTCUSD"], "start": "2026-11-20", "end": "2026-11-21", "timeframes": ["1h", "1d"]}
# All of them are made in the soak test.
ONE_MODEL = {**SAMPLE, "models": ["market_data_enriched"]}


def versions(platform: Platform) -> dict[str, int]:
    """The version of each table of bars, silver and gold of the lake of synthetic data, as delta-rs reads it."""
    folder = platform.folder / "sample"
    tables = [*folder.glob("raw_*"), *folder.glob("silver/*"), *folder.glob("gold/*")]
    return {table.name: DeltaTable(table).version() for table in tables if (table / "_delta_log").is_dir()}


def count(platform: Platform, table: str) -> tuple[int, int]:
    """Rows of a table of the lake of synthetic data, and how many different bars they are, by DuckDB."""
    rows = DeltaTable(platform.folder / "sample" / table).to_pyarrow_table()  # noqa: F841 - DuckDB finds it by name
    (found,) = duckdb.sql("select count(*), count(distinct (asset_pair, timeframe, timestamp)) from rows").fetchall()
    return found


def minutes_of(platform: Platform, hour: str) -> dict[str, Any]:
    """The parameters of a run over an hour of real minutes."""
    start = datetime.fromisoformat(hour).replace(tzinfo=UTC)
    return {"assets": ["BTCUSD"], "timeframes": ["1m"], "start": start.isoformat(),
            "end": (start + timedelta(hours=1)).isoformat()}  # fmt: skip


def assert_landed(platform: Platform, hour: str) -> None:
    """The lake has the hour's bars as their collector published them, each once, whoever was asked first."""
    start = pd.Timestamp(hour, tz="UTC")
    stored = DeltaTable(platform.folder / "lake" / "raw_market_data_1m").to_pandas()
    found = stored[(stored["timestamp"] >= start) & (stored["timestamp"] < start + pd.Timedelta(hours=1))]
    found = found.set_index("timestamp").sort_index()
    expected = truth(platform.exchange, "BTC-USD", Timeframe.M1, hour, str(start + pd.Timedelta(hours=1)))
    if REAL_BARS.is_file():
        expected = real_minutes().loc[expected.index]
    assert len(found) == 60
    assert set(found["provider"]) == {"coinbase"}
    np.testing.assert_array_equal(found[BAR].to_numpy(float), expected[BAR].to_numpy(float))


def states(platform: Platform, dag_id: str, run: str) -> dict[str, str]:
    return {name: str(task["state"]) for name, task in platform.airflow.tasks(dag_id, run).items()}


def test_the_dags_are_what_they_shall_be(platform: Platform) -> None:
    airflow = platform.airflow
    assert airflow.get("/importErrors")["import_errors"] == []
    dags = {each["dag_id"]: each for each in airflow.get("/dags?limit=50")["dags"]}
    schedules = {
        DAILY: "0 1 * * *", "hourly_marts": "30 * * * *", "stream_health": "*/5 * * * *", "full_pipeline_test": None
    }  # fmt: skip
    for dag_id, schedule in schedules.items():
        assert dags[dag_id]["timetable_summary"] == schedule, dag_id
        assert dags[dag_id]["max_active_runs"] == 1, dag_id
        details = airflow.get(f"/dags/{dag_id}/details")
        assert details["catchup"] is False, dag_id
    tasks = {each["task_id"]: each for each in airflow.get(f"/dags/{DAILY}/tasks")["tasks"]}
    assert {name: tasks[name]["downstream_task_ids"] for name in STEPS} == {
        name: [after] if after else [] for name, after in zip(STEPS, [*STEPS[1:], ""], strict=True)
    }
    # A run for a day before a DAG's start has no tasks, and counts as a success.
    assert airflow.get(f"/dags/{DAILY}/details")["start_date"] < "2001"
    assert {task["retries"] for task in tasks.values()} == {3}
    (sent,) = {task["retry_delay"]["seconds"] + task["retry_delay"]["microseconds"] / 1e6 for task in tasks.values()}
    assert sent == pytest.approx(1.2)


def test_the_daily_run_twice_and_two_at_once(platform: Platform) -> None:
    """Both are started at once: they run one after the other, the second adds nothing; both are late, and say so."""
    airflow = platform.airflow
    airflow.unpause(DAILY)
    first, second = (airflow.trigger(DAILY, **ONE_MODEL) for _ in range(2))
    assert airflow.wait_for(DAILY, first) == "success", airflow.told()
    before = versions(platform)
    assert airflow.wait_for(DAILY, second) == "success", airflow.told()
    for run in (first, second):
        assert states(platform, DAILY, run) == dict.fromkeys(STEPS, "success")
    ended, began = (airflow.get(f"/dags/{DAILY}/dagRuns/{run}") for run in (first, second))
    assert ended["end_date"] <= began["start_date"]
    assert count(platform, "raw_market_data_1h") == (24, 24)
    assert count(platform, "raw_market_data_1d") == (1, 1)
    assert airflow.result(DAILY, first, "ingest")["new"] == 25
    assert airflow.result(DAILY, first, "dbt_silver")["models"].keys() == {"market_data_enriched"}
    assert count(platform, "silver/market_data_enriched") == (25, 25)
    dbt = [airflow.result(DAILY, first, name) for name in ("dbt_silver", "dbt_marts", "dbt_tests")]
    assert len({each["session_process"] for each in dbt}) == 1
    assert [each["jvm_seconds"] > 0 for each in dbt] == [True, False, False]
    again = {name: airflow.result(DAILY, second, name) for name in STEPS}
    assert (again["ingest"]["requests"], again["ingest"]["new"]) == (0, 0)
    assert (again["dbt_silver"]["built"], again["dbt_marts"]["built"], again["dbt_silver"]["jvm_seconds"]) == (0, 0, 0)
    assert again["validate"]["rows"] == 25
    assert versions(platform) == before
    for result in again.values():
        assert 0 < result["start_seconds"] <= result["total_seconds"]
        assert 0 < result["start_share"] <= 1
    # Grafana and the Pushgateway are down.
    assert again["refresh_dashboards"]["grafana"].startswith("not told: ConnectError")
    late = platform.slack.wait_for(f"Run {first} is not done", 60)
    assert late.attachment["title"] == f"[critical] {DAILY} is late"


def test_a_killed_task_is_tried_again_and_a_provider_that_is_down_is_told_of(platform: Platform) -> None:
    hour, airflow = "2022-01-10T04:00:00", platform.airflow
    platform.exchange.log.clear()
    platform.exchange.misbehave(hang(120))
    run = airflow.trigger("fetching", **minutes_of(platform, hour))
    airflow.until(lambda: platform.exchange.log, 120, "nobody asked the exchange")
    kill_task(airflow.tasks("fetching", run)["ingest"]["pid"])
    assert airflow.wait_for("fetching", run) == "success", airflow.told()
    assert airflow.tasks("fetching", run)["ingest"]["try_number"] == 2
    assert_landed(platform, hour)
    result = airflow.result("fetching", run, "ingest")
    assert result["providers"] == {"coinbase": 60}
    assert "503" in result["gave_up"]["alpha_vantage"]
    alert = platform.slack.wait_for("alpha_vantage was asked in vain", 10)
    assert alert.attachment["color"] == "#f2a900"
    assert "Served by coinbase" in alert.text


def test_a_scheduler_that_is_killed_and_started_again_goes_on(platform: Platform) -> None:
    """Slack is down as well, when the run wants to alert."""
    hour, airflow = "2022-01-11T04:00:00", platform.airflow
    platform.exchange.log.clear()
    platform.exchange.misbehave(hang(5))
    platform.slack.always(status(500))
    try:
        run = airflow.trigger("fetching", **minutes_of(platform, hour))
        airflow.until(lambda: platform.exchange.log, 120, "nobody asked the exchange")
        airflow.kill("scheduler")
        airflow.start("scheduler")
        assert airflow.wait_for("fetching", run) == "success", airflow.told()
    finally:
        platform.slack.always(None)
    assert_landed(platform, hour)


def test_a_failed_validation_stops_the_rest_and_says_where_to_look(platform: Platform) -> None:
    airflow = platform.airflow
    frame = bars(count=50, assets=("ETHUSD",)).to_pandas()
    frame.loc[[3, 7], ["open", "high", "low", "close"]] = 1e9
    rows = pa.Table.from_pandas(frame, schema=bars(count=1).schema, preserve_index=False)
    platform.lake().append("raw_market_data_1h", rows, "planted")
    first, last = frame["timestamp"].min(), frame["timestamp"].max()
    run = airflow.trigger(
        "checking", assets=["ETHUSD"], start=first.isoformat(), end=(last + pd.Timedelta(hours=1)).isoformat()
    )
    assert airflow.wait_for("checking", run) == "failed"
    assert states(platform, "checking", run) == {"validate": "failed", "refresh_dashboards": "upstream_failed"}
    # The same rows would fail again.
    assert airflow.tasks("checking", run)["validate"]["try_number"] == 1
    alert = platform.slack.wait_for("checking: validate failed", 30)
    assert alert.attachment["color"] == "#d00000"
    for where in ("raw_market_data_1h", "2 rows", "lakehouse dlq list", "data_docs/index.html", run):
        assert where in alert.text, where
    assert (platform.folder / "quality" / "data_docs" / "index.html").is_file()
