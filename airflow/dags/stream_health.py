"""The Airflow DAG that looks after the streams, as `lakehouse stream status` does."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG

from pipelines.orchestration.flow import defaults, parameters, steps

with DAG(
    "stream_health",
    description="Alert if a stream has failed, lost messages, gone stale or fallen behind",
    schedule="*/5 * * * *",
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    # It alerts at once: five minutes later it looks again.
    default_args=defaults(retries=0),
    params=parameters("sample"),
    tags=["lakehouse"],
    doc_md=__doc__,
):
    steps(["stream_health"])
