"""The coverage log summed up by series: who vouches for it, from when to when, and how much of that span."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines.intervals import Interval, IntervalSet
from pipelines.storage.replay import Answers, Series, replayed
from pipelines.timeframes import Timeframe

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class SeriesCoverage:
    """One series: who vouches for it, from when to when, and how much of that span."""

    dataset: str
    subject: str
    timeframe: str | None
    providers: tuple[str, ...]
    start: datetime
    end: datetime
    share: float
    gaps: int
    rejected: int

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        return {
            "dataset": self.dataset,
            "asset_pair": self.subject,
            "timeframe": self.timeframe,
            "providers": list(self.providers),
            "start": self.start.isoformat(),
            "end": self.end.isoformat(),
            "coverage": round(self.share, 6),
            "gaps": self.gaps,
            "rejected_intervals": self.rejected,
        }


def coverage_of(log: pa.Table) -> list[SeriesCoverage]:
    """Sum the coverage log up by series, in the order of dataset, subject and length of bar."""
    known: dict[Series, dict[str, Answers]] = defaultdict(dict)
    for (series, provider), answers in replayed(log).items():
        if answers.done:
            known[series][provider] = answers
    return [_series(*key, known[key]) for key in sorted(known, key=lambda key: (key[0], key[1], _length(key[2])))]


def _length(timeframe: str | None) -> int:
    return Timeframe(timeframe).seconds if timeframe else 0


def _series(dataset: str, subject: str, timeframe: str | None, by: Mapping[str, Answers]) -> SeriesCoverage:
    covered = IntervalSet(part for answers in by.values() for part in answers.covered)
    rejected = IntervalSet(part for answers in by.values() for part in answers.rejected) - covered
    known = list(covered | rejected)
    span = Interval(known[0].start, known[-1].end)
    return SeriesCoverage(
        dataset,
        subject,
        timeframe,
        tuple(sorted(by)),
        span.start,
        span.end,
        covered.length / span.length if span else 1.0,
        len(known) - 1,
        len(rejected),
    )
