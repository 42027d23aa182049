"""The daily run by a real Airflow: ten assets, one new day, task by task."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.bars import ASSETS
from benchmarks.measure import PYTHON, BenchmarkError, run, say
from tests.servers.airflow import Airflow

DAG = "daily_market_data_pipeline"
_TASKS = ("ingest", "validate", "dbt_silver", "dbt_marts", "dbt_tests", "optimize", "refresh_dashboards")
_LAST, _NEXT = "2025-06-30", "2025-07-01"
_DATASETS = ("raw_market_data", "raw_ai_decisions", "raw_trade_executions")
_WITHIN_SECONDS = 3_600.0


@dataclass(frozen=True, slots=True)
class Step:
    """One task, or all of the run: seconds in all, of them those of process start and imports, and of Spark's start."""

    name: str
    seconds: float
    start: float
    jvm: float


def measure(days: int) -> list[Step]:
    """Build so many days of ten assets, and run the DAG for the day after; the last step is the whole run.

    Raises:
        BenchmarkError: the run failed.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        environment = _environment(Path(scratch))
        _history(environment, days)
        with Airflow(environment) as airflow:
            airflow.unpause(DAG)
            say("  the daily run …")
            given = {"sample": True, "assets": list(ASSETS), "datasets": list(_DATASETS), "start": _LAST, "end": _NEXT}
            run_id = airflow.trigger(DAG, **given)
            state = airflow.wait_for(DAG, run_id, _WITHIN_SECONDS)
            if state != "success":
                logs = "\n".join(airflow.log(DAG, run_id, name)[-2_000:] for name in _TASKS)
                raise BenchmarkError(f"the run ended as {state}:\n{logs}")
            return _steps(airflow, run_id)


def _steps(airflow: Airflow, run_id: str) -> list[Step]:
    results: Mapping[str, dict[str, Any]] = {name: airflow.result(DAG, run_id, name) for name in _TASKS}
    if not results["ingest"]["new"] or not results["dbt_silver"]["built"]:
        raise BenchmarkError(f"there was nothing to do: {results}")
    steps = [
        Step(name, each["total_seconds"], each["start_seconds"], each["jvm_seconds"]) for name, each in results.items()
    ]
    about = airflow.get(f"/dags/{DAG}/dagRuns/{run_id}")
    began, ended = (datetime.fromisoformat(about[name]) for name in ("start_date", "end_date"))
    whole = (ended - began).total_seconds()
    # What is not in a task's process is Airflow's own: handing it out, and noticing that it is done.
    between = whole - sum(step.seconds for step in steps)
    steps.append(Step("between tasks", between, between, 0.0))
    steps.append(Step("the whole run", whole, sum(s.start for s in steps), sum(s.jvm for s in steps)))
    for step in steps:
        say(f"  {step.name}: {step.seconds:.1f} s")
    return steps


def _history(environment: Mapping[str, str], days: int) -> None:
    first = (date.fromisoformat(_LAST) - timedelta(days=days)).isoformat()
    lakehouse = [PYTHON, "-m", "pipelines.cli"]
    for dataset in _DATASETS:
        given = ["--provider", "sample", "--dataset", dataset, "--assets", ",".join(ASSETS)]
        span = ["--start", first, "--end", _LAST, "--engine", "embedded", "--quiet", "--json"]
        run([*lakehouse, "backfill", *given, *span], environment)
    say("  silver and gold of the days before …")
    run([*lakehouse, "transform", "--sample", "--json"], environment)


def _environment(scratch: Path) -> dict[str, str]:
    places = {
        "DELTA_LAKE__STORAGE_PATH": "lake", "DELTA_LAKE__SAMPLE_STORAGE_PATH": "sample", "DLQ__PATH": "dlq",
        "QUALITY__PATH": "quality", "TRANSFORM__PATH": "transform", "MONITORING__PATH": "monitoring",
    }  # fmt: skip
    return {f"LAKEHOUSE__{name}": str(scratch / folder) for name, folder in places.items()}
