"""What a part of a look is given, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from prometheus_client.core import GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from pipelines.config import Settings
    from pipelines.monitoring.lake_tables import LakeTables
    from pipelines.storage import DeltaLakeManager


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a lake.

    Attributes:
        manager: the lake.
        settings: the settings in force.
        tables: its tables as they are now.
        now: when the look began, aware UTC.
        problem: tells of something that could not be looked at, while the rest of the part goes on.
    """

    manager: DeltaLakeManager
    settings: Settings
    tables: LakeTables
    now: datetime
    problem: Callable[[str, Exception], None]


class Part(Protocol):
    """Looks at one thing. It may remember between looks; it is never called twice at once."""

    @property
    def name(self) -> str:
        """What errors of it are counted under."""

    def collect(self, look: Look) -> Iterable[Metric]:
        """Return the metrics; what it raises is counted and logged, and the other parts go on."""


def gauge(name: str, text: str, labels: Iterable[str] = ()) -> GaugeMetricFamily:
    """Return a family without samples."""
    return GaugeMetricFamily(name, text, labels=list(labels))
