"""What a run would do: windows, requests and the time they take at the rate limit. Asks nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.batch.chain import ProviderChain
from pipelines.batch.coverage import COVERED, CoverageMap
from pipelines.intervals import Interval, IntervalSet
from pipelines.sources.base import Source, Window
from pipelines.sources.registry import Skipped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.batch.jobs import Job
    from pipelines.config import ProviderSettings, Settings
    from pipelines.storage import DeltaLakeManager


@dataclass(frozen=True, slots=True)
class PlannedSeries:
    """One job's plan: its first usable provider, what is missing, requests, and minutes at the rate limit."""

    job: Job
    provider: str | None
    skipped: dict[str, str]
    missing: IntervalSet
    bars: int
    requests: int
    minutes: float

    def as_dict(self) -> dict[str, object]:
        """Return the plan as plain JSON values."""
        return {
            "asset_pair": self.job.subject,
            "timeframe": self.job.timeframe.value if self.job.timeframe else None,
            "provider": self.provider,
            "skipped": self.skipped,
            "missing": [{"start": part.start.isoformat(), "end": part.end.isoformat()} for part in self.missing],
            "bars": self.bars,
            "requests": self.requests,
            "minutes": round(self.minutes, 2),
        }


async def plan(jobs: Sequence[Job], manager: DeltaLakeManager, settings: Settings) -> list[PlannedSeries]:
    """Plan the jobs against what the lake already covers.

    Raises:
        ConfigError: a job names an unknown provider.
    """
    coverage = CoverageMap.from_table(manager.coverage.read())
    chain = ProviderChain(settings)
    try:
        # Finer bars first: what this run will fetch of them is not asked for again to build longer ones.
        finer_first = sorted(range(len(jobs)), key=lambda place: _step(jobs[place]))
        planned = {at: _noted(_planned(jobs[at], coverage, chain, settings), coverage) for at in finer_first}
    finally:
        await chain.aclose()
    return [planned[at] for at in range(len(jobs))]


def _step(job: Job) -> int:
    return job.timeframe.seconds if job.timeframe else 0


def _noted(series: PlannedSeries, coverage: CoverageMap) -> PlannedSeries:
    """Take a planned series for covered."""
    for part in series.missing if series.provider else ():
        coverage.add(series.job.series, str(series.provider), COVERED, part)
    return series


def _planned(job: Job, coverage: CoverageMap, chain: ProviderChain, settings: Settings) -> PlannedSeries:
    missing = job.needed(coverage.done(job.series, job.provider), settings.ingest.lookback_bars)
    skipped: dict[str, str] = {}
    chosen: Source | None = None
    for candidate in chain.candidates(job):
        if isinstance(candidate, Skipped):
            skipped[candidate.name] = candidate.reason
        else:
            chosen = candidate
            break
    requests = sum(_requests(job, chosen, part, coverage) for part in missing) if chosen else 0
    section: ProviderSettings | None = getattr(settings.providers, chosen.name, None) if chosen else None
    minutes = requests / section.requests_per_minute if section and section.base_url else 0.0
    bars = sum(job.timeframe.bars_between(part.start, part.end) for part in missing) if job.timeframe else 0
    return PlannedSeries(job, chosen.name if chosen else None, skipped, missing, bars, requests, minutes)


def _requests(job: Job, source: Source, part: Interval, coverage: CoverageMap) -> int:
    """Count requests; a derived timeframe asks only for finer bars that the lake does not hold."""
    base = source.capabilities.derived.get(job.timeframe) if job.timeframe else None
    if base is None:
        return sum(1 for _ in source.windows(job.window(part)))
    held = coverage.done(job.series_of(base), source.name)
    return sum(
        1
        for lack in IntervalSet([part]) - held
        for _ in source.windows(Window(job.dataset, job.subject, lack.start, lack.end, job.instrument, base))
    )
