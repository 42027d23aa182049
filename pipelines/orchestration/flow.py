"""What the DAGs in airflow/dags are made of: tasks over `pipelines.tasks`, parameters, retries, the deadline.

Only what Airflow needs to parse a DAG is imported here; a task loads its own code when it runs.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

import psutil
from airflow.sdk import Param, chain, get_current_context, task
from airflow.sdk.definitions.callback import SyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference
from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
from airflow.sdk.exceptions import AirflowSkipException
from typing_extensions import override

from pipelines.config import Settings, load_settings
from pipelines.intervals import Interval
from pipelines.monitoring.push import job_pushed
from pipelines.orchestration.alerting import deadline_missed, task_failed, tell
from pipelines.orchestration.common import Result
from pipelines.orchestration.retrying import delay_before
from pipelines.orchestration.shared_session import in_shared_session
from pipelines.orchestration.span import span_of
from pipelines.timeframes import Timeframe

if TYPE_CHECKING:
    from airflow.sdk.definitions.xcom_arg import XComArg

DAILY = ("ingest", "validate", "dbt_silver", "dbt_marts", "dbt_tests", "optimize", "refresh_dashboards")
_DATASETS = ("raw_market_data", "raw_news_sentiment", "raw_ai_decisions", "raw_trade_executions", "macro_indicators")
# As the commands call them that do the same.
_JOBS = {"ingest": "backfill", "dbt_silver": "transform", "dbt_marts": "transform", "dbt_tests": "transform",
         "optimize": "maintain"}  # fmt: skip
_log = logging.getLogger(__name__)


class BackOff(RetryPolicy):
    """Tries again after `first`, then after twice as long each time; not at all where that cannot help."""

    def __init__(self, first: timedelta, retries: int) -> None:
        self.first, self.retries = first, retries

    @override
    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: object = None
    ) -> RetryDecision:
        # Tries go on being counted when a task is cleared, and so does what they may come to.
        number = max(1, try_number - max(0, max_tries - self.retries))
        delay = delay_before(exception, number, self.first)
        return RetryDecision.fail("the same would fail again") if delay is None else RetryDecision.retry(delay)

    @override
    def serialize(self) -> dict[str, Any]:
        return {"seconds": self.first.total_seconds(), "retries": self.retries}

    @classmethod
    @override
    def deserialize(cls, data: dict[str, Any]) -> Self:
        return cls(timedelta(seconds=data["seconds"]), data["retries"])


def defaults(settings: Settings | None = None, retries: int | None = None) -> dict[str, Any]:
    """Return what all tasks of a DAG have in common: retries with growing delays, an alert when they are used up.

    Args:
        settings: those of the project otherwise.
        retries: instead of those of the settings.
    """
    chosen = (settings or load_settings()).orchestration
    count, delay = chosen.retries if retries is None else retries, timedelta(minutes=chosen.retry_minutes)
    return {
        "owner": "lakehouse",
        "retries": count,
        # Of a task that was killed, which nobody can ask why, Airflow spreads the delay up to twice as long.
        "retry_delay": delay,
        "retry_exponential_backoff": 2,
        "max_retry_delay": delay * 2 ** max(count - 1, 0),
        "retry_policy": BackOff(delay, count),
        "on_failure_callback": task_failed,
        # A step that was left out does not leave out the ones after it.
        "trigger_rule": "none_failed",
        # Of two runs, as a backfill may have at once, each step waits for the other's.
        "max_active_tis_per_dag": 1,
    }


def deadline(settings: Settings | None = None) -> DeadlineAlert | None:
    """Return the alert for a run that takes too long; None for `airflow dags test`, which fails on one."""
    if {"dags", "test"} <= set(sys.argv[1:3]):
        return None
    minutes = (settings or load_settings()).orchestration.deadline_minutes
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(minutes=minutes),
        callback=SyncCallback(deadline_missed, kwargs={"minutes": minutes}),
        name="late",
    )


def parameters(*names: str, settings: Settings | None = None, **values: object) -> dict[str, Param]:
    """Return a run's parameters, with a JSON schema each.

    Args:
        names: of the parameters; all of them if none.
        settings: those of the project otherwise.
        values: other defaults than the usual ones, by name.
    """
    chosen = (settings or load_settings()).orchestration
    frames = [each.value for each in Timeframe]
    found = {
        "assets": Param(
            list(chosen.assets), type="array", items={"type": "string"}, minItems=1, description="Asset pairs."
        ),
        "days": Param(
            chosen.days, type="integer", minimum=1, maximum=366,
            description="Whole days before the day of the run, unless start is given.",
        ),
        "start": _text("The first bar open, as 2025-12-07 or 2025-12-07T14:30Z; a bare date is 00:00 UTC."),
        "end": _text("The end of the range, exclusive; the beginning of the run's day by default."),
        "timeframes": Param(
            [], type="array", items={"type": "string", "enum": frames}, description="All six if there are none."
        ),
        "datasets": Param(
            ["raw_market_data"], type="array", items={"type": "string", "enum": list(_DATASETS)}, minItems=1,
            description="What to fetch, by contract.",
        ),
        "provider": _text("Ask only this one; the chain of the settings by default."),
        "force": Param(False, type="boolean", description="Fetch what is known again; changes land as restatements."),
        "sample": Param(False, type="boolean", description="Made-up data, in the lake of synthetic data."),
        "models": Param(
            [], type="array", items={"type": "string"},
            description="Of silver and gold only these, and what they are made from; all if there are none.",
        ),
        "steps": Param(
            list(DAILY), type="array", items={"type": "string", "enum": list(DAILY)},
            description="Which tasks do something; the others are skipped.",
        ),
    }  # fmt: skip
    for name, value in values.items():
        found[name].value = value
    return {name: found[name] for name in names or found}


def steps(names: Sequence[str]) -> list[XComArg]:
    """Make tasks by their names, one after the other; within a DAG."""
    made = [_task(name) for name in names]
    chain(*made)
    return made


def _task(name: str) -> XComArg:
    @task(task_id=name, doc_md=_STEPS[name].__doc__)
    def step() -> Result:
        return perform(name)

    return step()


def perform(name: str) -> Result:
    """Do a step of the run that is in hand; returns its result and what of its time was start.

    `start_seconds` are those from the start of the task's process to the start of the work, and `start_share` is their
    share, with that of Spark's start, in `total_seconds`.

    Raises:
        AirflowSkipException: the run's parameters leave the step out.
        LakehouseError: what the step raises.
    """
    context = get_current_context()
    params: Mapping[str, Any] = context["params"]
    if name not in params.get("steps", [name]):
        raise AirflowSkipException(f"{name} is not among the steps of this run")
    before = time.time() - psutil.Process().create_time()
    with job_pushed(load_settings().monitoring, _JOBS.get(name, name)):
        result = _STEPS[name](context, params)
    start = before + result["import_seconds"]
    total = before + result["seconds"]
    result |= {
        "start_seconds": round(start, 3),
        "total_seconds": round(total, 3),
        "start_share": round((start + result["jvm_seconds"]) / total, 3),
    }
    _log.info("%s: %s", name, result)
    return result


def _ingest(context: Mapping[str, Any], params: Mapping[str, Any]) -> Result:
    """Fetches what the lake lacks of the run's range, and lands it in bronze."""
    from pipelines.tasks import ingest  # noqa: PLC0415

    span = _span(context, params)
    result = ingest(
        params["assets"], span.start, span.end, timeframes=params["timeframes"], datasets=params["datasets"],
        provider=params["provider"], force=params["force"], sample=params["sample"],
    )  # fmt: skip
    for provider, error in result["gave_up"].items():
        served = ", ".join(result["providers"]) or "nobody"
        tell(
            "warning", f"{provider} was asked in vain",
            f"{error}\nServed by {served}. `lakehouse doctor` checks the providers.", f"provider:{provider}",
        )  # fmt: skip
    return result


def _validate(context: Mapping[str, Any], params: Mapping[str, Any]) -> Result:
    """Checks the run's range of every table against its contract, by Great Expectations."""
    from pipelines.tasks import validate  # noqa: PLC0415

    span = _span(context, params)
    return validate(params["assets"], span.start, span.end, sample=params["sample"])


def _silver(_: Mapping[str, Any], params: Mapping[str, Any]) -> Result:
    """Brings staging and silver up to date with bronze, and tests them."""
    return in_shared_session("transform_silver", params["models"], sample=params["sample"])


def _marts(_: Mapping[str, Any], params: Mapping[str, Any]) -> Result:
    """Brings the marts, gold, up to date, and tests them."""
    return in_shared_session("transform_marts", params["models"], sample=params["sample"])


def _tests(_: Mapping[str, Any], params: Mapping[str, Any]) -> Result:
    """Sees to it that the tests of every table have passed at its present version."""
    return in_shared_session("check_transform", params["models"], sample=params["sample"])


def _optimize(_: Mapping[str, Any], params: Mapping[str, Any]) -> Result:
    """Compacts small files, removes what has expired, and shortens logs."""
    from pipelines.tasks import optimize  # noqa: PLC0415

    return optimize(sample=params["sample"])


def _refresh(context: Mapping[str, Any], _: Mapping[str, Any]) -> Result:
    """Leaves an annotation in Grafana that data is new."""
    from pipelines.tasks import refresh_dashboards  # noqa: PLC0415

    run = context["dag_run"]
    return refresh_dashboards(f"{run.dag_id} is done: {run.run_id}")


def _streams(_: Mapping[str, Any], params: Mapping[str, Any]) -> Result:
    """Looks whether a stream has failed, lost messages, gone stale or fallen behind."""
    from pipelines.tasks import check_streams  # noqa: PLC0415

    return check_streams(sample=params["sample"])


def _span(context: Mapping[str, Any], params: Mapping[str, Any]) -> Interval:
    run = context["dag_run"]
    return span_of(params, run.logical_date, run.run_after)


def _text(description: str) -> Param:
    return Param(None, type=["null", "string"], description=description)


_STEPS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Result]] = {
    "ingest": _ingest,
    "validate": _validate,
    "dbt_silver": _silver,
    "dbt_marts": _marts,
    "dbt_tests": _tests,
    "optimize": _optimize,
    "refresh_dashboards": _refresh,
    "stream_health": _streams,
}
