"""The Airflow DAG of the daily run, from the providers to the dashboards; docs/airflow.md explains it."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG

from pipelines.orchestration.flow import DAILY, deadline, defaults, parameters, steps

with DAG(
    "daily_market_data_pipeline",
    description="Fetch, check, transform, test and compact what the days before the run brought",
    schedule="0 1 * * *",
    start_date=datetime(2000, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=defaults(),
    params=parameters(),
    deadline=deadline(),
    tags=["lakehouse"],
    doc_md=__doc__,
):
    steps(DAILY)
