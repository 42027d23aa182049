"""Repairing gaps: only what is missing is fetched, down the chain of providers, by the same backfill as everything."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines.batch.coverage import CoverageMap
from pipelines.batch.engine import Backfill
from pipelines.batch.results import BackfillResult, FailedWindow
from pipelines.data_quality.gap_records import repair_result
from pipelines.data_quality.gaps import SeriesGaps, find_gaps, gaps_of
from pipelines.data_quality.presence import BarSeries
from pipelines.data_quality.repair_plan import Ask, Planner, RepairPlan, is_open
from pipelines.intervals import Interval, IntervalSet
from pipelines.sources.base import MARKET_DATA
from pipelines.timeframes import Timeframe, utc_now

if TYPE_CHECKING:
    from pipelines.batch.progress import Progress
    from pipelines.config import Settings
    from pipelines.storage import DeltaLakeManager

# A share of refused rows says something about a provider only where there are more rows than this.
_FEW_ROWS = 100


@dataclass(frozen=True, slots=True)
class Scope:
    """Which gaps: asset pairs, lengths, a span (aware UTC), one provider's rows; None for all."""

    assets: Sequence[str] | None = None
    timeframes: Sequence[Timeframe | str] | None = None
    interval: Interval | None = None
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class RepairedSeries:
    """A series before and after; `errors` are of what is still missing."""

    before: SeriesGaps
    after: SeriesGaps
    errors: tuple[FailedWindow, ...] = ()

    @property
    def filled(self) -> int:
        """How many missing bars are there now."""
        return self.before.missing - self.after.missing

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        return {
            "asset_pair": self.before.asset_pair,
            "timeframe": self.before.timeframe.value,
            "missing_before": self.before.missing,
            "filled": self.filled,
            "missing": self.after.missing,
            "by_kind": {kind.value: bars for kind, bars in self.after.by_kind.items()},
            "errors": [
                {
                    "start": window.interval.start.isoformat(),
                    "end": window.interval.end.isoformat(),
                    "provider": window.provider,
                    "error": window.error,
                }
                for window in self.errors
            ],
        }


@dataclass(frozen=True, slots=True)
class RepairResult:
    """What a repair did.

    Attributes:
        run_id: under which it is in `quality_results`, if anybody was asked.
        series: every series that had gaps.
        found: every series, as it is now.
        rounds: what each run of the backfill did; where a provider has none, another one asks the next.
        seconds: wall time.
        left: what could still be asked for, after errors or an interruption.
        interrupted: whether a stop was asked for.
    """

    run_id: str
    series: Sequence[RepairedSeries]
    found: Sequence[SeriesGaps]
    rounds: Sequence[BackfillResult]
    seconds: float
    left: RepairPlan
    interrupted: bool = False

    @property
    def requests(self) -> int:
        """How many windows were asked for."""
        return sum(each.requests for each in self.rounds)

    @property
    def filled(self) -> int:
        """How many bars were missing and are there now."""
        return sum(each.filled for each in self.series)

    @property
    def open(self) -> bool:
        """Whether something can still be done about what is missing, as `is_open` has it."""
        return is_open(self.found, self.left)

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        return {
            "run_id": self.run_id,
            "interrupted": self.interrupted,
            "seconds": round(self.seconds, 3),
            "requests": self.requests,
            "filled": self.filled,
            "missing": sum(each.after.missing for each in self.series),
            "series": [each.as_dict() for each in self.series],
        }


class Repair:
    """Repairs the gaps of one lake; safe to kill at any instant and to run again, which asks only for what is missing.

    Args:
        manager: the lake; a synthetic one is repaired by the sample provider, and no other one ever is.
        settings: for the chain, limits and the dead letter queue.
        scope: which gaps.
        again: also ask providers that have answered before.
        progress: hears of every step.
        clock: the present, aware UTC.
    """

    def __init__(
        self,
        manager: DeltaLakeManager,
        settings: Settings,
        scope: Scope | None = None,
        *,
        again: bool = False,
        progress: Progress | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._manager = manager
        self._settings = settings
        self._scope = scope or Scope()
        self._again = again
        self._progress = progress
        self._clock = clock
        self._synthetic = bool(manager.coverage.synthetic)
        self._running: Backfill | None = None
        self._stopping = False

    def stop(self) -> None:
        """Ask the run to end; what has been fetched is landed."""
        self._stopping = True
        if self._running is not None:
            self._running.stop()

    def gaps(self) -> list[SeriesGaps]:
        """Return the gaps as they are; errors are those of `find_gaps`."""
        scope = self._scope
        return find_gaps(
            self._manager,
            assets=scope.assets,
            timeframes=scope.timeframes,
            interval=scope.interval,
            provider=scope.provider,
            now=self._clock(),
        )

    async def plan(self, found: Sequence[SeriesGaps]) -> RepairPlan:
        """Say what would be asked of whom first; asks nobody.

        Raises:
            ConfigError: there is no such provider.
        """
        planner = self._planner(again=self._again)
        try:
            return planner.plan(found, self._coverage())
        finally:
            await planner.aclose()

    async def run(self) -> RepairResult:
        """Fetch what is missing, provider by provider, and record what came of it.

        Raises:
            ConfigError: there is no such provider.
            MixedOriginError: the provider does not fit the lake.
            StorageError: the lake cannot be written.
        """
        started, run_id = time.monotonic(), uuid.uuid4().hex
        before = await asyncio.to_thread(self.gaps)
        now = {_series(gaps): gaps for gaps in before}
        rounds: list[BackfillResult] = []
        planner, last = self._planner(again=self._again), self._planner(again=False)
        try:
            while not self._stopping:
                planned = planner.plan(list(now.values()), self._coverage())
                if not planned.asks:
                    break
                rounds += await self._fetch(planned.asks)
                planner.note(planned.asks)
                now |= await asyncio.to_thread(self._look_again, now, {ask.series for ask in planned.asks})
            left = last.plan(list(now.values()), self._coverage())
        finally:
            await planner.aclose()
            await last.aclose()
        repaired = [
            RepairedSeries(gaps, now[_series(gaps)], _errors(now[_series(gaps)], rounds))
            for gaps in before
            if gaps.missing
        ]
        results = [repair_result(each.before, each.after) for each in repaired] if rounds else []
        self._manager.quality.record(results, run_id, synthetic=self._synthetic)
        return RepairResult(
            run_id, repaired, list(now.values()), rounds, time.monotonic() - started, left, self._stopping
        )

    async def _fetch(self, asks: Sequence[Ask]) -> list[BackfillResult]:
        """Run the backfill over some spans; a few bars are landed even where most of them are refused."""
        tolerant = self._settings.ingest.model_copy(update={"max_rejected_ratio": 1.0})
        few = [ask for ask in asks if ask.bars <= _FEW_ROWS]
        many = [ask for ask in asks if ask.bars > _FEW_ROWS]
        done = []
        # Longer spans first: hours come before the four hours that are built from them.
        for part, settings in (
            (many, self._settings),
            (few, self._settings.model_copy(update={"ingest": tolerant})),
        ):
            if part and not self._stopping:
                self._running = Backfill(self._manager, settings, self._progress, self._clock)
                done.append(await self._running.run([ask.job for ask in sorted(part, key=_finer_first)]))
        return done

    def _look_again(self, known: dict[BarSeries, SeriesGaps], changed: set[BarSeries]) -> dict[BarSeries, SeriesGaps]:
        """Return the gaps of some series as they are now, over the span that was looked at first."""
        coverage, now = self._coverage(), self._clock()
        return {
            series: gaps_of(
                self._manager,
                series,
                coverage,
                interval=known[series].interval,
                provider=self._scope.provider,
                now=now,
            )
            for series in changed
        }

    def _planner(self, *, again: bool) -> Planner:
        return Planner(self._settings, synthetic=self._synthetic, provider=self._scope.provider, again=again)

    def _coverage(self) -> CoverageMap:
        return CoverageMap.from_table(self._manager.coverage.read(dataset=MARKET_DATA))


def _series(gaps: SeriesGaps) -> BarSeries:
    return BarSeries(gaps.asset_pair, gaps.timeframe)


def _finer_first(ask: Ask) -> int:
    return ask.series.timeframe.seconds


def _errors(after: SeriesGaps, rounds: Sequence[BackfillResult]) -> tuple[FailedWindow, ...]:
    """Return the errors that are about what is still missing of a series."""
    holes = IntervalSet(run.interval for run in after.runs)
    return tuple(
        window
        for done in rounds
        for result in done.series
        if (result.subject, result.timeframe) == (after.asset_pair, after.timeframe)
        for window in result.failed
        if IntervalSet([window.interval]) & holes
    )
