"""How Airflow's DAGs are getting on, by its REST API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

from pipelines.monitoring.airflow_client import AirflowClient
from pipelines.monitoring.parts.base import Look, gauge
from pipelines.timeframes import parse_instant

_STATES = ("queued", "running", "success", "failed")


class Dags:
    """Of every DAG its runs at work, its last run and that one's tasks; nothing without a URL."""

    name = "airflow"

    def collect(self, look: Look) -> Iterable[Metric]:
        """Return the families of DAGs."""
        settings = look.settings.monitoring
        if settings.airflow_url is None:
            return []
        families = _Families()
        with AirflowClient(settings.airflow_url, settings.airflow_username, settings.airflow_password) as airflow:
            for dag_id in airflow.dags():
                families.add(airflow, dag_id, look.now)
        return families.all


class _Families:
    def __init__(self) -> None:
        dag = ["dag_id"]
        self._running = gauge("airflow_dag_running", "Runs of a DAG at work.", dag)
        self._state = gauge("airflow_dag_last_run_state", "1 for the state of a DAG's newest run.", [*dag, "state"])
        self._seconds = gauge(
            "airflow_dag_last_run_seconds", "How long a DAG's newest run took, or has been at work.", dag
        )
        self._success = gauge(
            "airflow_dag_last_success_timestamp_seconds", "When a DAG's newest run that succeeded ended.", dag
        )
        self._task = gauge("airflow_task_seconds", "How long a task of a DAG's newest run took.", [*dag, "task_id"])

    @property
    def all(self) -> list[GaugeMetricFamily]:
        return [self._running, self._state, self._seconds, self._success, self._task]

    def add(self, airflow: AirflowClient, dag_id: str, now: datetime) -> None:
        self._running.add_metric([dag_id], airflow.running(dag_id))
        if (success := airflow.newest_run(dag_id, "success")) and success["end_date"]:
            self._success.add_metric([dag_id], parse_instant(success["end_date"]).timestamp())
        # While one is at work, that is the one to watch: a newer one may be waiting for it.
        run = airflow.newest_run(dag_id, "running") or airflow.newest_run(dag_id)
        if run is None:
            return
        for state in _STATES:
            self._state.add_metric([dag_id, state], float(run["state"] == state))
        if (seconds := _seconds(run, now)) is not None:
            self._seconds.add_metric([dag_id], seconds)
        for task in airflow.tasks(dag_id, run["dag_run_id"]):
            # Of a task that was mapped, the first instance stands for all: the set of labels is that of the DAG.
            if task["duration"] is not None and task["map_index"] <= 0:
                self._task.add_metric([dag_id, task["task_id"]], float(task["duration"]))


def _seconds(run: Mapping[str, Any], now: datetime) -> float | None:
    if run["start_date"] is None:
        return None
    end = parse_instant(run["end_date"]) if run["end_date"] else now
    return (end - parse_instant(run["start_date"])).total_seconds()
