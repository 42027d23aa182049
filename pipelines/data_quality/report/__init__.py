"""The quality report: everything the lake's owner would ask about its data, found out in one go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pipelines.data_quality.agreement import Agreement, agreement
from pipelines.data_quality.dlq_reading import DlqStatistics, statistics
from pipelines.data_quality.freshness import SeriesFreshness, freshness
from pipelines.data_quality.gaps import DayCount, SeriesGaps
from pipelines.data_quality.report.checks import failed_last
from pipelines.data_quality.report.completeness import completeness
from pipelines.data_quality.restatements import Restatements, restatements
from pipelines.intervals import Interval
from pipelines.timeframes import Timeframe, utc_now

if TYPE_CHECKING:
    from pipelines.data_quality.dlq import DeadLetterQueue
    from pipelines.storage import DeltaLakeManager

# How many restated bars are told one by one.
_EXAMPLES = 20
STEPS = ("completeness", "freshness", "dead letters", "restatements", "agreement", "checks")


@dataclass(frozen=True, slots=True)
class QualityReport:
    """What is known of a lake's quality over a span of event time (aware UTC).

    `checks` are the rows of `quality_results` that failed when they were last checked.
    """

    lake: str
    synthetic: bool
    interval: Interval
    made_at: datetime
    gaps: Sequence[SeriesGaps]
    freshness: Sequence[SeriesFreshness]
    refused: DlqStatistics
    restated: Restatements
    agreement: Sequence[Agreement]
    checks: Sequence[dict[str, Any]]

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        return {
            "lake": self.lake,
            "synthetic": self.synthetic,
            "start": self.interval.start.isoformat(),
            "end": self.interval.end.isoformat(),
            "made_at": self.made_at.isoformat(),
            "gaps": [each.as_dict() | {"days": [_day(day) for day in each.days]} for each in self.gaps],
            "freshness": [each.as_dict() for each in self.freshness],
            "dlq": self.refused.as_dict(),
            "restatements": self.restated.as_dict(),
            "agreement": [each.as_dict() for each in self.agreement],
            "failed_checks": list(self.checks),
        }


def gather(
    manager: DeltaLakeManager,
    dlq: DeadLetterQueue,
    interval: Interval,
    *,
    synthetic: bool,
    assets: Sequence[str] | None = None,
    timeframes: Sequence[Timeframe] | None = None,
    now: datetime | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> QualityReport:
    """Find everything out; writes nothing.

    Args:
        manager: the lake.
        dlq: its dead letter queue.
        interval: the span of event time to look at, aware UTC.
        synthetic: whether the lake's data is made up.
        assets: only these asset pairs, as registered.
        timeframes: only bars of these lengths.
        now: the present, aware UTC.
        on_step: hears which of `STEPS` begins.

    Raises:
        LakehouseError: the lake cannot be read, or an asset or calendar is unknown.
    """
    now = now or utc_now()
    chosen: dict[str, Any] = {"assets": assets, "timeframes": timeframes}
    on_step("completeness")
    gaps = list(completeness(manager, interval, **chosen))
    on_step("freshness")
    fresh = freshness(manager, now, **chosen)
    on_step("dead letters")
    refused = statistics(dlq)
    on_step("restatements")
    restated = restatements(manager, interval=interval, limit=_EXAMPLES, **chosen)
    on_step("agreement")
    agreed = agreement(manager, interval=interval, tolerance_bp=manager.settings.quality.tolerance_bp, **chosen)
    on_step("checks")
    checks = failed_last(manager.quality.read(), now - timedelta(days=_days(interval)))
    return QualityReport(manager.storage_path, synthetic, interval, now, gaps, fresh, refused, restated, agreed, checks)


def _days(interval: Interval) -> int:
    return max(1, interval.length.days)


def _day(day: DayCount) -> dict[str, object]:
    return {"day": day.day.isoformat(), "expected": day.expected, "present": day.present}
