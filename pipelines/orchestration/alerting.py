"""What Airflow calls when something is wrong: a task that failed for good, a run that is late."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pipelines.monitoring.alerts import send

_log = logging.getLogger(__name__)


def tell(severity: str, title: str, text: str, key: str) -> None:
    """Alert people, by the log and by Slack if that is set up; an alert that cannot be sent fails nobody.

    Args:
        severity: critical, warning or info.
        title: one line.
        text: what happened, and where to look.
        key: alerts of the same key are the same, and are sent once an hour.
    """
    _log.warning("%s: %s: %s", severity, title, text)
    send(severity, title, text, key=key)


def task_failed(context: Mapping[str, Any]) -> None:
    """Alert that a task has failed and will not be tried again.

    Args:
        context: Airflow's, of the task.
    """
    task, error = context["task_instance"], context.get("exception")
    # One that was killed has no error of its own.
    why = str(error or "the task ended without saying why; its log may tell, as may the machine's (out of memory?)")
    tell(
        "critical",
        f"{task.dag_id}: {task.task_id} failed",
        f"{why}\nRun {task.run_id}, try {task.try_number}. docs/airflow.md says what to do when a task fails.",
        f"airflow:{task.dag_id}:{task.task_id}",
    )


def deadline_missed(context: Mapping[str, Any] | None = None, minutes: float = 0.0) -> None:
    """Alert that a run is not done in time.

    Args:
        context: Airflow's, of the deadline: the run.
        minutes: that it was allowed.
    """
    run = dict((context or {}).get("dag_run") or {})
    name, run_id = run.get("dag_id", "a DAG"), run.get("dag_run_id") or run.get("run_id", "unknown")
    tell(
        "critical",
        f"{name} is late",
        f"Run {run_id} is not done after {minutes:g} minutes. Airflow's page of the run shows which task it is at; "
        "docs/airflow.md says what to do about a late run.",
        f"airflow:{name}:{run_id}:late",
    )
