"""Fills from the providers what a stream missed, in the background; whatever goes wrong, the stream goes on."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from pipelines.batch.coverage import CoverageMap
from pipelines.batch.engine import Backfill
from pipelines.batch.jobs import Job, bar_job, horizon
from pipelines.errors import LakehouseError
from pipelines.instruments import Instrument, load_registry
from pipelines.intervals import Interval, IntervalSet
from pipelines.monitoring import metrics
from pipelines.sources.base import MARKET_DATA
from pipelines.storage import DeltaLakeManager
from pipelines.streaming.checking import SAMPLE
from pipelines.timeframes import EPOCH, Timeframe, utc_now
from pipelines.wording import counted

if TYPE_CHECKING:
    from pipelines.batch.results import BackfillResult
    from pipelines.config import Settings

logger = logging.getLogger(__name__)

# After a failure the providers are asked again after these; then it is left to `lakehouse gaps --repair`.
_PAUSES = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 60))
# The machine may have slept, or its clock been set.
_LOOK_SECONDS = 1.0

Key = tuple[str, Timeframe]


@dataclass(slots=True)
class _Wanted:
    """What is still to be had of one series, not before `due` (aware UTC), and what was asked for last."""

    instrument: Instrument
    timeframe: Timeframe
    due: datetime
    spans: IntervalSet = field(default_factory=IntervalSet)
    asked: Interval | None = None
    failures: int = 0
    problem: str | None = None

    def closing(self, settling: timedelta) -> datetime:
        """Return when the first of the spans has closed and settled."""
        first = next(iter(self.spans)).end
        late = self.timeframe.step if horizon(self.instrument, self.timeframe, first) < first else timedelta()
        return first + late + settling


class Healer:
    """Asks the providers for bars that no stream has seen whole. Methods may be called from several threads.

    Args:
        manager: the lake; it is written by the embedded engine whatever the settings say, for a stream's process has
            one session already, and its own use for it.
        settings: the providers, and how far back they are asked.
        synthetic: whether the lake's data is made up, so that the sample provider is the one to ask.
        clock: the present, aware UTC; for tests.
    """

    def __init__(
        self, manager: DeltaLakeManager, settings: Settings, synthetic: bool, clock: Callable[[], datetime] = utc_now
    ) -> None:
        storage = settings.storage.model_copy(update={"engine": "embedded"})
        self._settings = settings.model_copy(update={"storage": storage})
        self._manager = DeltaLakeManager(manager.storage_path, self._settings)
        self._provider = SAMPLE if synthetic else None
        self._clock = clock
        self._settling = timedelta(seconds=settings.ingest.settling_delay_seconds)
        self._wanted: dict[Key, _Wanted] = {}
        self._unknown: dict[str, str] = {}
        self._changed = threading.Condition()
        self._busy = self._stopping = False
        self._stop_run: Callable[[], object] | None = None
        self._thread = threading.Thread(target=self._work, name="stream-heal", daemon=True)

    def start(self) -> None:
        """Begin to work off what is asked for; returns at once."""
        self._thread.start()

    def heal(self, assets: Iterable[str], until: datetime) -> None:
        """Ask for the bars of all lengths that overlap the `streaming.heal_hours` before an instant; returns at once.

        What is covered by anyone is left out. A bar that contains `until` is asked for too, once it has closed, for a
        stream that begins in its middle builds none of it. A span that was just asked for is not asked for again.

        Args:
            assets: asset pairs; one that is not known is counted and told of in `unhealed`.
            until: from when on the stream sees everything, aware UTC.
        """
        hours = timedelta(hours=self._settings.streaming.heal_hours)
        if not hours:
            return
        with self._changed:
            for instrument in self._known(assets):
                for frame in Timeframe:
                    span = Interval(frame.floor(until - hours), frame.ceil(until))
                    self._want(instrument, frame, span)
            self._changed.notify_all()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until all that can be asked for now has been; says whether it came to that in time.

        Open bars, and what is to be tried again later, are not waited for.
        """
        with self._changed:
            return self._changed.wait_for(lambda: self._stopping or not (self._busy or self._due()), seconds)

    def stop(self, seconds: float = 30.0) -> None:
        """End the work: no answer is waited for any longer, what has come is landed."""
        with self._changed:
            self._stopping = True
            if self._stop_run is not None:
                self._stop_run()
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(seconds)

    @property
    def unhealed(self) -> tuple[str, ...]:
        """What could not be had when it was last asked for, and why."""
        with self._changed:
            named = {f"{asset} {frame}": wanted.problem for (asset, frame), wanted in self._wanted.items()}
            return _by_reason({name: why for name, why in (*named.items(), *self._unknown.items()) if why})

    def _known(self, assets: Iterable[str]) -> Iterator[Instrument]:
        for asset in dict.fromkeys(assets):
            try:
                yield load_registry().resolve(asset)
            except LakehouseError as error:
                if asset not in self._unknown:
                    _failed({asset: str(error)}, type(error).__name__)
                    self._unknown[asset] = str(error)

    def _want(self, instrument: Instrument, frame: Timeframe, span: Interval) -> None:
        now = self._clock()
        wanted = self._wanted.setdefault((instrument.pair, frame), _Wanted(instrument, frame, now))
        if span != wanted.asked:
            wanted.asked = span
            wanted.spans = wanted.spans | IntervalSet([span])
            wanted.due, wanted.failures = now, 0

    def _due(self) -> dict[Key, IntervalSet]:
        now = self._clock()
        return {key: wanted.spans for key, wanted in self._wanted.items() if wanted.spans and wanted.due <= now}

    def _work(self) -> None:
        while due := self._next():
            now = self._clock()
            try:
                problems = self._ask(due, now)
                _failed(problems, "heal_failed")
            except Exception as error:  # noqa: BLE001 - whatever it is, the stream goes on, and so does healing
                problems = {f"{asset} {frame}": str(error) for asset, frame in due}
                _failed(problems, type(error).__name__)
            with self._changed:
                for key, spans in due.items():
                    self._settle(self._wanted[key], spans, now, problems.get(f"{key[0]} {key[1]}"))
                self._busy = False
                self._changed.notify_all()

    def _next(self) -> dict[Key, IntervalSet]:
        """Wait until something is due and return it; nothing when asked to end."""
        with self._changed:
            while not self._stopping:
                if due := self._due():
                    self._busy = True
                    return due
                self._changed.wait(_LOOK_SECONDS)
            return {}

    def _ask(self, due: Mapping[Key, IntervalSet], now: datetime) -> dict[str, str]:
        """Ask the providers for what is not covered; returns what failed, by series."""
        jobs = list(self._jobs(due, now))
        if not jobs:
            return {}
        result = asyncio.run(self._run(jobs))
        landed = sum(each.new + each.restated for each in result.series)
        logger.info("of what the stream missed, %s came from the providers", counted(landed, "bars"))
        return {f"{each.subject} {each.timeframe}": each.failed[-1].error for each in result.series if each.failed}

    def _jobs(self, due: Mapping[Key, IntervalSet], now: datetime) -> Iterator[Job]:
        """Yield a job for each closed part that nobody vouches for, whoever is to be asked for it."""
        coverage = CoverageMap.from_table(self._manager.coverage.read(dataset=MARKET_DATA))
        for (asset, frame), spans in due.items():
            closed = IntervalSet([Interval(EPOCH, horizon(self._wanted[asset, frame].instrument, frame, now))])
            for part in spans & closed:
                job = bar_job(asset, frame, part.start, part.end, now=now, provider=self._provider)
                for missing in IntervalSet([job.interval]) - coverage.done(job.series):
                    yield replace(job, interval=missing)

    async def _run(self, jobs: Sequence[Job]) -> BackfillResult:
        run = Backfill(self._manager, self._settings, clock=self._clock)
        with self._changed:
            self._stop_run = partial(asyncio.get_running_loop().call_soon_threadsafe, run.stop)
            if self._stopping:
                run.stop()
        try:
            return await run.run(jobs)
        finally:
            with self._changed:
                self._stop_run = None

    def _settle(self, wanted: _Wanted, spans: IntervalSet, now: datetime, problem: str | None) -> None:
        """Strike out what has been asked for, but for the youngest bars, which a provider may not have had yet."""
        grown = bool(wanted.spans - spans)
        wanted.problem = problem
        if problem is not None and wanted.failures < len(_PAUSES):
            due = now + _PAUSES[wanted.failures]
            wanted.failures += 1
        else:
            settled = Interval(EPOCH, horizon(wanted.instrument, wanted.timeframe, now - self._settling))
            wanted.spans = wanted.spans - (spans & IntervalSet([settled]))
            wanted.failures = 0
            due = wanted.closing(self._settling) if wanted.spans else now
        # What has been asked for meanwhile is due already.
        if not grown:
            wanted.due = due


def _failed(problems: Mapping[str, str], kind: str) -> None:
    """Count and log what could not be had, by what it is of."""
    if problems:
        metrics.ingestion_errors_total.labels(error_type=kind).inc(len(problems))
    for line in _by_reason(problems):
        logger.warning("not healed: %s", line)


def _by_reason(problems: Mapping[str, str]) -> tuple[str, ...]:
    """Return a line for each reason, with all that it is the reason of."""
    names: dict[str, list[str]] = defaultdict(list)
    for name, reason in problems.items():
        names[reason].append(name)
    return tuple(f"{', '.join(named)}: {reason}" for reason, named in names.items())
