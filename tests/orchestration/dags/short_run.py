"""Airflow DAGs of the tests: a few steps of the daily run each, made as that one is."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from airflow.sdk import DAG

from pipelines.orchestration.flow import defaults, parameters, steps

# Airflow parses DAGs again and again, and before each task: what is slow to import has no business here.
if slow := {"dbt", "deltalake", "great_expectations", "pyspark"} & sys.modules.keys():
    raise ImportError(f"a DAG should not import {slow}")

for name, wanted in {"fetching": ["ingest"], "checking": ["validate", "refresh_dashboards"]}.items():
    with DAG(
        name,
        schedule=None,
        start_date=datetime(2025, 1, 1, tzinfo=UTC),
        max_active_runs=1,
        is_paused_upon_creation=False,
        default_args=defaults(),
        params=parameters(),
    ) as dag:
        steps(wanted)
    globals()[name] = dag
