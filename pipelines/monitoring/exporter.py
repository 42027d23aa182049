"""Metrics of all that can be read off a lake, its dead letters and Airflow. No JVM.

A look takes what it takes, in a thread of its own; a scrape only renders the last one that was finished.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from pipelines.monitoring.lake_tables import LakeTables
from pipelines.monitoring.parts.base import Look, Part, gauge
from pipelines.monitoring.parts.coverage import Coverage
from pipelines.monitoring.parts.dags import Dags
from pipelines.monitoring.parts.dead_letters import DeadLetters
from pipelines.monitoring.parts.disk import Disk
from pipelines.monitoring.parts.freshness import Freshness
from pipelines.monitoring.parts.marts import Marts
from pipelines.monitoring.parts.quality import Quality
from pipelines.monitoring.parts.records import Records
from pipelines.monitoring.parts.streams import Streams
from pipelines.monitoring.parts.tables import Tables
from pipelines.timeframes import utc_now

if TYPE_CHECKING:
    from pipelines.storage import DeltaLakeManager

logger = logging.getLogger(__name__)


def all_parts() -> list[Part]:
    """Return every part, none of which has looked yet; what asks others over a network comes last."""
    return [
        Tables(), Records(), Freshness(), Coverage(), Quality(), DeadLetters(), Disk(), Marts(), Dags(), Streams(),
    ]  # fmt: skip


class Exporter(Collector):
    """Looks at one lake, and shows its last look to a registry."""

    def __init__(
        self,
        manager: DeltaLakeManager,
        parts: Sequence[Part] | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Looks at nothing yet.

        Args:
            manager: the lake, which need not be there yet; the settings are its own.
            parts: what to look at; everything by default.
            clock: the present, aware UTC.
        """
        self._manager = manager
        self._parts = all_parts() if parts is None else list(parts)
        self._clock = clock
        self._tables = LakeTables(manager.storage_path)
        self._errors = Counter({part.name: 0 for part in self._parts})
        self._told: set[str] = set()
        self._now: set[str] = set()
        self._shown: list[Metric] = []

    def look(self) -> bool:
        """Look at everything and show it from now on; returns whether all of it could be looked at.

        What cannot be is counted, logged the first time it cannot be, and left out of what is shown.
        """
        began = time.monotonic()
        self._now = set()
        instant = self._clock()
        try:
            self._tables.refresh(lambda name, error: self._problem("tables", name, error))
        except Exception as error:  # noqa: BLE001 - the other parts go on, with the tables as they were
            self._problem("tables", self._manager.storage_path, error)
        found = [family for part in self._parts for family in self._collected(part, instant)]
        self._told = self._now
        self._shown = [*found, *self._about(instant, time.monotonic() - began)]
        return not self._now

    def run(self, stop: threading.Event, every_seconds: float) -> None:
        """Look again and again, from the beginning of one look to the next, until stopped."""
        while not stop.is_set():
            began = time.monotonic()
            self.look()
            stop.wait(max(0.0, every_seconds - (time.monotonic() - began)))

    @override
    def collect(self) -> Iterable[Metric]:
        """Return the last look."""
        return self._shown

    def _collected(self, part: Part, now: datetime) -> list[Metric]:
        def problem(what: str, error: Exception) -> None:
            self._problem(part.name, what, error)

        try:
            return list(part.collect(Look(self._manager, self._manager.settings, self._tables, now, problem)))
        except Exception as error:  # noqa: BLE001 - one part must not take the others with it
            self._problem(part.name, "", error)
            return []

    def _problem(self, part: str, what: str, error: Exception) -> None:
        self._errors[part] += 1
        text = f"{part}: {what}: {error}" if what else f"{part}: {error}"
        if text not in self._told:
            logger.warning("not exported: %s", text)
        self._now.add(text)

    def _about(self, instant: datetime, seconds: float) -> list[Metric]:
        last = gauge("pipeline_exporter_last_look_timestamp_seconds", "When the look that is shown began.")
        last.add_metric([], instant.timestamp())
        took = gauge("pipeline_exporter_look_seconds", "Seconds the look that is shown took.")
        took.add_metric([], seconds)
        errors = CounterMetricFamily(
            "pipeline_exporter_errors", "What could not be looked at, by part of a look.", labels=["part"]
        )
        for part, number in self._errors.items():
            errors.add_metric([part], number)
        return [last, took, errors]
