"""What a run reports: per series, and as a whole."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from pipelines.intervals import Interval, IntervalSet
from pipelines.timeframes import Timeframe


@dataclass(frozen=True, slots=True)
class FailedWindow:
    """An interval that could not be landed, from which provider, and why."""

    interval: Interval
    provider: str
    error: str


@dataclass(slots=True)
class IngestResult:
    """What became of one series: an asset pair and timeframe, or another dataset's subject.

    Attributes:
        fetched: rows the providers answered.
        new: rows landed for the first time.
        restated: rows landed as a newer version of a known one.
        repeated: rows that were already there, unchanged.
        rejected: rows in the dead letter queue.
        reasons: why they were refused, with how many rows; a row may have several.
        served: rows fetched, by provider.
        skipped: why a provider of the chain was not asked or was given up, by provider.
        missing: what was not covered before the run.
        covered: what of the asked range is covered after it.
        asked: the range, aligned and clipped to closed bars.
        watermark: event time of the newest row landed or found in the asked range, None if there is none.
    """

    dataset: str
    subject: str
    timeframe: Timeframe | None
    asked: Interval
    fetched: int = 0
    new: int = 0
    restated: int = 0
    repeated: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    served: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    missing: IntervalSet = field(default_factory=IntervalSet)
    covered: IntervalSet = field(default_factory=IntervalSet)
    failed: list[FailedWindow] = field(default_factory=list)
    dlq_files: list[str] = field(default_factory=list)
    watermark: datetime | None = None

    @property
    def ok(self) -> bool:
        """Whether every window was landed."""
        return not self.failed

    @property
    def coverage(self) -> float:
        """The covered share of the asked range, 0 to 1."""
        return self.covered.length / self.asked.length if self.asked else 1.0

    def as_dict(self) -> dict[str, object]:
        """Return the result as plain JSON values."""
        return {
            "dataset": self.dataset,
            "asset_pair": self.subject,
            "timeframe": self.timeframe.value if self.timeframe else None,
            "start": self.asked.start.isoformat(),
            "end": self.asked.end.isoformat(),
            "providers": dict(sorted(self.served.items())),
            "skipped": self.skipped,
            "fetched": self.fetched,
            "new": self.new,
            "restated": self.restated,
            "repeated": self.repeated,
            "rejected": self.rejected,
            "reasons": dict(sorted(self.reasons.items())),
            "coverage": round(self.coverage, 6),
            "watermark": self.watermark.isoformat() if self.watermark else None,
            "failed": [
                {
                    "start": window.interval.start.isoformat(),
                    "end": window.interval.end.isoformat(),
                    "provider": window.provider,
                    "error": window.error,
                }
                for window in self.failed
            ],
            "dlq_files": self.dlq_files,
        }


@dataclass(slots=True)
class BackfillResult:
    """What a whole run did; `seconds` is wall time, `interrupted` says a stop was asked for."""

    run_id: str
    series: list[IngestResult]
    seconds: float
    requests: int
    interrupted: bool = False

    @property
    def ok(self) -> bool:
        """Whether everything asked for was landed."""
        return not self.interrupted and all(result.ok for result in self.series)

    def total(self, name: str) -> int:
        """Sum a count, as "new" or "rejected", over all series."""
        return sum(int(getattr(result, name)) for result in self.series)

    def as_dict(self) -> dict[str, object]:
        """Return the result as plain JSON values."""
        return {
            "run_id": self.run_id,
            "ok": self.ok,
            "interrupted": self.interrupted,
            "seconds": round(self.seconds, 3),
            "requests": self.requests,
            **{name: self.total(name) for name in ("fetched", "new", "restated", "repeated", "rejected")},
            "series": [result.as_dict() for result in self.series],
        }
