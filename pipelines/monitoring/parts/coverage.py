"""What is covered of each series, as `lakehouse status` tells it."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import Metric

from pipelines.monitoring.lake_tables import LookedAt
from pipelines.monitoring.parts.base import Look, gauge
from pipelines.sources.base import MARKET_DATA
from pipelines.storage.creation import MARKER_TABLE
from pipelines.storage.series_coverage import SeriesCoverage, coverage_of

_LABELS = ("asset_pair", "timeframe")


class Coverage:
    """One sample a series of bars, read again once the log of coverage has grown."""

    name = "coverage"

    def __init__(self) -> None:
        self._of: LookedAt | None = None
        self._series: list[SeriesCoverage] = []

    def collect(self, look: Look) -> Iterable[Metric]:
        """Return the families of coverage."""
        table = look.tables.get(MARKER_TABLE)
        if table is not self._of:
            self._series = coverage_of(look.manager.coverage.read(dataset=MARKET_DATA)) if table else []
            self._of = table
        share = gauge("pipeline_coverage_ratio", "Answered share of a series, from its first to last instant.", _LABELS)
        gaps = gauge(
            "pipeline_gaps", "Stretches of time between a series' answered ones that nobody asked for.", _LABELS
        )
        rejected = gauge("pipeline_rejected_intervals", "Stretches of a series whose rows were refused.", _LABELS)
        for each in self._series:
            labels = (each.subject, each.timeframe or "")
            share.add_metric(labels, each.share)
            gaps.add_metric(labels, each.gaps)
            rejected.add_metric(labels, each.rejected)
        return share, gaps, rejected
