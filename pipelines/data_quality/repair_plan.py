"""Whom to ask for missing bars: for each the first provider that serves it and has not answered for that time yet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipelines.batch.chain import ProviderChain
from pipelines.batch.jobs import Job
from pipelines.data_quality.gaps import GapKind, SeriesGaps
from pipelines.data_quality.presence import BarSeries
from pipelines.intervals import Interval, IntervalSet
from pipelines.sources.base import MARKET_DATA, Window
from pipelines.sources.registry import Skipped
from pipelines.timeframes import EPOCH, Timeframe

if TYPE_CHECKING:
    from pipelines.batch.coverage import CoverageMap
    from pipelines.config import Settings
    from pipelines.sources.base import Source

_SAMPLE = "sample"
_FILES = "files"
# Which providers serve a series does not hang on the time.
_ANY = Interval(EPOCH, EPOCH)


@dataclass(frozen=True, slots=True)
class Ask:
    """One span to ask one provider for.

    Attributes:
        series: which bars.
        provider: who is asked.
        holes: the missing bars of it, whole; what lies between them is asked for because that spares a request.
        requests: how many windows the provider cuts it into.
    """

    series: BarSeries
    provider: str
    holes: IntervalSet
    requests: int

    @property
    def interval(self) -> Interval:
        """The span, from the first missing bar to the last."""
        parts = list(self.holes)
        return Interval(parts[0].start, parts[-1].end)

    @property
    def bars(self) -> int:
        """How many missing bars are asked for."""
        return sum(self.series.timeframe.bars_between(part.start, part.end) for part in self.holes)

    @property
    def job(self) -> Job:
        """The job of the backfill that asks for just this span."""
        return Job(
            MARKET_DATA,
            self.series.asset_pair,
            self.interval,
            self.series.instrument,
            self.series.timeframe,
            self.provider,
            holes=self.holes,
        )

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        return {
            "asset_pair": self.series.asset_pair,
            "timeframe": self.series.timeframe.value,
            "provider": self.provider,
            "start": self.interval.start.isoformat(),
            "end": self.interval.end.isoformat(),
            "bars": self.bars,
            "requests": self.requests,
        }


@dataclass(slots=True)
class RepairPlan:
    """What to ask of whom; `skipped` says by series why a provider is not asked, by its name."""

    asks: list[Ask] = field(default_factory=list)
    skipped: dict[BarSeries, dict[str, str]] = field(default_factory=dict)

    @property
    def bars(self) -> int:
        """How many missing bars are asked for."""
        return sum(ask.bars for ask in self.asks)

    @property
    def requests(self) -> int:
        """How many windows that takes."""
        return sum(ask.requests for ask in self.asks)


def is_open(found: Sequence[SeriesGaps], left: RepairPlan) -> bool:
    """Say whether bars are missing that something can be done about.

    That is so where somebody is left to ask, where nobody has answered (a key may be missing, or a file to be loaded),
    and where a row was refused (it lies in the dead letter queue). What every provider that serves the series has
    answered for without having it is settled.

    Args:
        found: the gaps as they are now.
        left: what could be asked, of those that have not answered.
    """
    return bool(left.asks) or any(gaps.by_kind[GapKind.NOT_FETCHED] or gaps.by_kind[GapKind.REJECTED] for gaps in found)


class Planner:
    """Assigns missing bars to providers, again and again until nobody is left to ask.

    Args:
        settings: for the chain of providers.
        synthetic: whether the lake's data is made up: then the sample provider alone is asked, else never.
        provider: ask only this one.
        again: also ask those that have answered before, once.
    """

    def __init__(
        self, settings: Settings, *, synthetic: bool, provider: str | None = None, again: bool = False
    ) -> None:
        self._chain = ProviderChain(settings)
        self._synthetic = synthetic
        self._pinned = provider or (_SAMPLE if synthetic else None)
        self._again = again
        self._asked: dict[tuple[BarSeries, str], IntervalSet] = defaultdict(IntervalSet)

    async def aclose(self) -> None:
        """Close the sources."""
        await self._chain.aclose()

    def plan(self, found: Sequence[SeriesGaps], coverage: CoverageMap) -> RepairPlan:
        """Say what to ask of whom next.

        Args:
            found: the gaps as they are now.
            coverage: the lake's coverage as it is now.

        Raises:
            ConfigError: there is no such provider.
        """
        planned = RepairPlan()
        for gaps in found:
            holes = IntervalSet(run.interval for run in gaps.runs if run.kind is not GapKind.CLOSED)
            if holes:
                self._plan(BarSeries(gaps.asset_pair, gaps.timeframe), holes, coverage, planned)
        return planned

    def note(self, asks: Iterable[Ask]) -> None:
        """Remember what has been asked for, so that it is not asked of the same provider once more."""
        holes: dict[tuple[BarSeries, str], list[Interval]] = defaultdict(list)
        for ask in asks:
            holes[ask.series, ask.provider] += ask.holes
        for key, parts in holes.items():
            self._asked[key] = self._asked[key] | IntervalSet(parts)

    def _plan(self, series: BarSeries, holes: IntervalSet, coverage: CoverageMap, planned: RepairPlan) -> None:
        for candidate in self._candidates(series):
            if isinstance(candidate, Skipped):
                planned.skipped.setdefault(series, {})[candidate.name] = candidate.reason
                continue
            over = self._asked[series, candidate.name] | _before(_oldest(series, candidate))
            if not self._again:
                over = over | coverage.done(series.key, candidate.name)
            mine = aligned(holes - over, series.timeframe)
            holes = holes - mine
            planned.asks += shared(series, candidate, mine)

    def _candidates(self, series: BarSeries) -> Iterator[Source | Skipped]:
        job = Job(MARKET_DATA, series.asset_pair, _ANY, series.instrument, series.timeframe, self._pinned)
        for candidate in self._chain.candidates(job):
            if candidate.name == _FILES:
                yield Skipped(_FILES, "files are loaded with `lakehouse load`")
            elif isinstance(candidate, Skipped) or candidate.capabilities.synthetic is self._synthetic:
                yield candidate
            else:
                kind = "made-up" if self._synthetic else "real"
                yield Skipped(candidate.name, f"the lake holds {kind} data")


def aligned(parts: IntervalSet, timeframe: Timeframe) -> IntervalSet:
    """Return the bars that open in `parts`, whole."""
    return IntervalSet(Interval(timeframe.ceil(part.start), timeframe.ceil(part.end)) for part in parts)


def shared(series: BarSeries, source: Source, holes: IntervalSet) -> Iterator[Ask]:
    """Yield what to ask for: neighbours go into one span where the provider then needs fewer requests.

    Bars that are built from finer ones stay apart: they cost a request only where the lake lacks the finer ones.
    """
    together: list[Interval] = []
    requests = 0
    for hole in holes:
        alone = _requests(series, source, hole)
        if together and series.timeframe not in source.capabilities.derived:
            both = _requests(series, source, Interval(together[0].start, hole.end))
            if both < requests + alone:
                together, requests = [*together, hole], both
                continue
        if together:
            yield Ask(series, source.name, IntervalSet(together), requests)
        together, requests = [hole], alone
    if together:
        yield Ask(series, source.name, IntervalSet(together), requests)


def _requests(series: BarSeries, source: Source, span: Interval) -> int:
    return sum(1 for _ in source.windows(_window(series, source, span)))


def _oldest(series: BarSeries, source: Source) -> datetime | None:
    return source.oldest(_window(series, source, _ANY))


def _before(instant: datetime | None) -> IntervalSet:
    """Return the time that a provider keeps nothing of."""
    return IntervalSet() if instant is None else IntervalSet([Interval(datetime.min.replace(tzinfo=UTC), instant)])


def _window(series: BarSeries, source: Source, span: Interval) -> Window:
    """Return a span as what the provider is asked for: of bars that are built from finer ones, these."""
    length = source.capabilities.derived.get(series.timeframe, series.timeframe)
    return Window(MARKET_DATA, series.asset_pair, span.start, span.end, series.instrument, length)
