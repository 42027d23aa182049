"""Leaves what a finished batch job alone knows at a Pushgateway; a job never fails or waits long because of it."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Gauge, push_to_gateway

from pipelines.monitoring.limited import limited
from pipelines.monitoring.own import OwnMetrics

if TYPE_CHECKING:
    from pipelines.config import MonitoringSettings

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class JobRun:
    """A job under way; `ok` says at its end whether all of it was done."""

    ok: bool = True


@contextmanager
def job_pushed(settings: MonitoringSettings, job: str) -> Iterator[JobRun]:
    """Push the metrics of a job when it ends; it counts as failed if it raises, or sets `ok` to False.

    Args:
        settings: where to; without a Pushgateway nothing is pushed.
        job: its name, as backfill.
    """
    run, began = JobRun(), time.monotonic()
    try:
        yield run
    except BaseException:
        run.ok = False
        raise
    finally:
        push_job(settings, job, time.monotonic() - began, ok=run.ok)


def push_job(settings: MonitoringSettings, job: str, seconds: float, *, ok: bool) -> bool:
    """Push this process's metrics, how long a job took, and whether it did well; returns whether they were taken.

    They replace those of the job's run before on this machine. A gateway that is down, hangs or refuses is warned of.

    Args:
        settings: where to; without a Pushgateway nothing is pushed.
        job: its name, as backfill.
        seconds: how long it took.
        ok: whether all of it was done.
    """
    if settings.pushgateway is None:
        return False
    registry = CollectorRegistry()
    registry.register(OwnMetrics())
    Gauge("pipeline_job_seconds", "Seconds a job's last run took.", registry=registry).set(seconds)
    Gauge("pipeline_job_ok", "1 if a job's last run did all it had to, else 0.", registry=registry).set(float(ok))
    gateway, wait, instance = settings.pushgateway, settings.push_timeout_seconds, {"instance": socket.gethostname()}
    error = limited(lambda: push_to_gateway(gateway, job, registry, instance, timeout=wait), wait)
    if error is not None:
        logger.warning("metrics of %s were not pushed to %s: %s", job, _address(gateway), error)
    return error is None


def _address(gateway: str) -> str:
    """Return a gateway's address without what may be a password."""
    parts = urlsplit(gateway if "://" in gateway else f"//{gateway}")
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
