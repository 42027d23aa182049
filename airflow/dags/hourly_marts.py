"""The Airflow DAG that keeps the marts up to date with what streams and loads bring during the day."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG

from pipelines.orchestration.flow import deadline, defaults, parameters, steps

with DAG(
    "hourly_marts",
    description="Bring silver and gold up to date with bronze, whoever has written to it",
    # Not at the time of the daily run, which does the same and more.
    schedule="30 * * * *",
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    # The next hour tries again in any case.
    default_args=defaults(retries=1),
    params=parameters("sample", "models"),
    deadline=deadline(),
    tags=["lakehouse"],
    doc_md=__doc__,
):
    steps(["dbt_marts", "refresh_dashboards"])
