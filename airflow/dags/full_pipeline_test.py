"""The Airflow DAG that tries all of the daily run on made-up data, in the lake of synthetic data; started by hand."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG

from pipelines.orchestration.flow import DAILY, deadline, defaults, parameters, steps

with DAG(
    "full_pipeline_test",
    description="All steps of the daily run on made-up bars, decisions and executions",
    schedule=None,
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    max_active_runs=1,
    default_args=defaults(),
    params=parameters(sample=True, days=7, datasets=["raw_market_data", "raw_ai_decisions", "raw_trade_executions"]),
    deadline=deadline(),
    tags=["lakehouse", "test"],
    doc_md=__doc__,
):
    steps(DAILY)
