"""What has been asked for and answered: the ingester's memory, by interval rather than by a bare watermark."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa

from pipelines.intervals import Interval, IntervalSet
from pipelines.storage.replay import COVERED, REJECTED, Answers, Claim, Series, replayed

__all__ = ["COVERED", "REJECTED", "CoverageMap", "Series", "vouched"]


@dataclass(slots=True)
class CoverageMap:
    """Covered and rejected intervals of every series and provider, as read at one instant."""

    _answers: dict[Claim, Answers] = field(default_factory=dict)

    @classmethod
    def from_table(cls, table: pa.Table) -> CoverageMap:
        """Build the map from rows of the coverage log."""
        return cls(replayed(table))

    def add(self, series: Series, provider: str, status: str, interval: Interval) -> None:
        """Add one interval, as if it were recorded now."""
        self._answers.setdefault((series, provider), Answers()).add(status, interval)

    def series(self) -> set[Series]:
        """Return the series that anything is known of."""
        return {series for (series, _), held in self._answers.items() if held.done}

    def providers(self, series: Series) -> set[str]:
        """Return the providers that cover anything of a series."""
        return {provider for (known, provider), held in self._answers.items() if known == series and held.done}

    def done(self, series: Series, provider: str | None = None) -> IntervalSet:
        """Return what need not be asked again: covered or rejected, by one provider or by any."""
        return self._union(series, provider, (COVERED, REJECTED))

    def covered(self, series: Series, provider: str | None = None) -> IntervalSet:
        """Return what a provider, or any, has vouched for."""
        return self._union(series, provider, (COVERED,))

    def rejected(self, series: Series, provider: str | None = None) -> IntervalSet:
        """Return what was answered and refused, and not landed since."""
        return self._union(series, provider, (REJECTED,)) - self.covered(series, provider)

    def _union(self, series: Series, provider: str | None, statuses: tuple[str, ...]) -> IntervalSet:
        return IntervalSet(
            part
            for (known, by), held in self._answers.items()
            if known == series and provider in (None, by)
            for status in statuses
            for part in held.of(status)
        )


def vouched(covered: IntervalSet, newest_end: datetime | None, settled_until: datetime) -> IntervalSet:
    """Cut the empty tail that is younger than the settling delay: bars may still appear there.

    Args:
        covered: what the answers vouch for.
        newest_end: end of the newest row they hold, None if they hold none.
        settled_until: empty time before this instant has settled.
    """
    limit = max(newest_end, settled_until) if newest_end else settled_until
    return IntervalSet(Interval(part.start, min(part.end, limit)) for part in covered if part.start < limit)
