"""How checks ended: all that the log of quality results holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, Metric

from pipelines.monitoring.file_counts import FileCounts
from pipelines.monitoring.labels import Bounded
from pipelines.monitoring.parts.base import Look
from pipelines.storage.quality_log import QUALITY_TABLE

_MOST_SUITES = 100
_OF_ROWS = ("edge", "suite")


class Quality:
    """Counts results; `suite` is the dataset for checks of rows, otherwise what checked: gaps, freshness, …."""

    name = "quality"

    def __init__(self) -> None:
        self._counts = FileCounts(["kind", "dataset", "severity", "success"])
        self._suite = Bounded(_MOST_SUITES)

    def collect(self, look: Look) -> Iterable[Metric]:
        """Return one family."""
        found: Counter[tuple[str, str]] = Counter()
        table = look.tables.get(QUALITY_TABLE)
        if table is not None:
            for (kind, dataset, severity, success), number in sorted(self._counts.of(table).items()):
                suite = self._suite(dataset if kind in _OF_ROWS else kind)
                found[suite, _status(str(severity), success=bool(success))] += number
        self._counts.forget_others([table] if table else [])
        family = CounterMetricFamily(
            "pipeline_data_quality_checks",
            "Checks by outcome; one that failed and is no more than a warning is warned.",
            labels=("suite", "status"),
        )
        for suite in sorted({suite for suite, _ in found}):
            # All of them from the start, so that a ratio has its numerator.
            for status in ("passed", "warned", "failed"):
                family.add_metric((suite, status), found[suite, status])
        return [family]


def _status(severity: str, *, success: bool) -> str:
    if success:
        return "passed"
    return "failed" if severity == "critical" else "warned"
