"""What has been asked for and answered: the ingester's memory, by interval rather than by a bare watermark."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import pyarrow as pa

from pipelines.intervals import Interval, IntervalSet

COVERED: Final = "covered"
REJECTED: Final = "rejected"
Series = tuple[str, str, str | None]


@dataclass(slots=True)
class CoverageMap:
    """Covered and rejected intervals of every series and provider, as read at one instant."""

    _parts: dict[tuple[Series, str, str], list[Interval]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def from_table(cls, table: pa.Table) -> CoverageMap:
        """Build the map from rows of the coverage log."""
        found = cls()
        for row in table.to_pylist():
            series = (row["dataset"], row["subject"], row["timeframe"])
            found.add(series, row["provider"], row["status"], Interval(row["start"], row["end"]))
        return found

    def add(self, series: Series, provider: str, status: str, interval: Interval) -> None:
        """Add one interval."""
        self._parts[series, provider, status].append(interval)

    def providers(self, series: Series) -> set[str]:
        """Return the providers that cover anything of a series."""
        return {provider for known, provider, _ in self._parts if known == series}

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
            for (known, by, status), parts in self._parts.items()
            if known == series and status in statuses and provider in (None, by)
            for part in parts
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
