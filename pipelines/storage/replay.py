"""What the coverage log amounts to: its entries replayed in the order they were recorded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

import pyarrow as pa

from pipelines.intervals import Interval, IntervalSet

Status = Literal["covered", "rejected", "retracted"]
COVERED: Final = "covered"
REJECTED: Final = "rejected"
RETRACTED: Final = "retracted"
# Dataset, subject (asset pair or series), timeframe.
Series = tuple[str, str, str | None]
# Who vouches for which series.
Claim = tuple[Series, str]


@dataclass(slots=True)
class Answers:
    """What one provider has answered of one series; spans may overlap."""

    covered: list[Interval] = field(default_factory=list)
    rejected: list[Interval] = field(default_factory=list)

    def add(self, status: str, interval: Interval) -> None:
        """Add what was recorded after all that is here; a retraction takes it back out."""
        if status == RETRACTED:
            self.covered = list(IntervalSet(self.covered) - IntervalSet([interval]))
            self.rejected = list(IntervalSet(self.rejected) - IntervalSet([interval]))
        else:
            (self.covered if status == COVERED else self.rejected).append(interval)

    def of(self, status: str) -> list[Interval]:
        """Return the spans of a status that still stand."""
        return self.covered if status == COVERED else self.rejected

    @property
    def done(self) -> IntervalSet:
        """What need not be asked again."""
        return IntervalSet([*self.covered, *self.rejected])


def replayed(log: pa.Table) -> dict[Claim, Answers]:
    """Return what still stands of rows of the coverage log, by series and provider."""
    found: dict[Claim, Answers] = defaultdict(Answers)
    for row in in_order(log.to_pylist()):
        found[claim_of(row)].add(row["status"], span_of(row))
    return dict(found)


def in_order(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows in the order they take effect: of one instant, retractions last, which can only cost a refetch."""
    return sorted(rows, key=lambda row: (row["recorded_at"], row["status"] == RETRACTED))


def before(log: pa.Table, instant: datetime) -> pa.Table:
    """Return the rows recorded before an instant (aware UTC)."""
    return log.filter(pa.array([when < instant for when in log["recorded_at"].to_pylist()], pa.bool_()))


def claim_of(row: dict[str, Any]) -> Claim:
    """Return the series and provider of a row."""
    return (row["dataset"], row["subject"], row["timeframe"]), row["provider"]


def span_of(row: dict[str, Any]) -> Interval:
    """Return the interval of a row."""
    return Interval(row["start"], row["end"])
