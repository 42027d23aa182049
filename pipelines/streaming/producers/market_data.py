"""Polls the providers for the newest closed 1m bars and sends each of them once per version."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from pipelines.batch.chain import ProviderChain
from pipelines.batch.jobs import Job, bar_job
from pipelines.edge import EdgeContext, validate
from pipelines.errors import ConfigError, SourceError
from pipelines.monitoring import metrics
from pipelines.sources.base import MARKET_DATA, Source
from pipelines.sources.registry import Skipped
from pipelines.streaming.encoding import encoder, message_key
from pipelines.streaming.schemas import message_columns
from pipelines.timeframes import Timeframe, utc_now

if TYPE_CHECKING:
    from pipelines.config import Settings
    from pipelines.instruments import Instrument
    from pipelines.sources.base import Page
    from pipelines.streaming.producers.sender import Sender
    from pipelines.streaming.topics import Topic

EVERY_SECONDS = 30.0
# How far back a poll looks: providers publish late, and change a bar soon after its close.
_LOOK_BACK = timedelta(minutes=15)
_MINUTE = Timeframe.M1

_log = logging.getLogger(__name__)
_Bar: TypeAlias = tuple[str, datetime]
# The provider, and the values or why they were refused.
_Version: TypeAlias = tuple[str, object]


@dataclass(slots=True)
class Polled:
    """What polling has come to so far.

    `failures` are answers that did not come, by provider; `unserved` counts for each asset the polls in which nobody
    answered. `refused` bars, by reason, broke the contract and were not sent. `first` and `last` are opens, aware UTC,
    of the oldest and newest bar that was sent.
    """

    polls: int = 0
    messages: int = 0
    first: datetime | None = None
    last: datetime | None = None
    failures: Counter[str] = field(default_factory=Counter)
    unserved: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


class MarketDataProducer:
    """Feeds a topic of bars from the provider chain.

    It remembers what it has sent of the last minutes, so that a bar is sent again only if the provider that served it
    changed it, or if it was not delivered. A provider that fails is asked again at the next poll.
    """

    def __init__(
        self,
        settings: Settings,
        topic: Topic,
        instruments: Sequence[Instrument],
        *,
        provider: str | None = None,
        every: float = EVERY_SECONDS,
        limit: int | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Prepare polling every so many seconds; `provider` is the only one to ask, by default it is the chain.

        Raises:
            ConfigError: the topic is not one of bars.
        """
        if topic.contract.id != MARKET_DATA:
            raise ConfigError(
                f"providers have bars, and {topic.name} is of {topic.contract.id}; name a topic of {MARKET_DATA}"
            )
        self._settings = settings
        self._instruments = instruments
        self._provider = provider
        self._every = every
        self._limit = limit
        self._clock = clock
        self._topic = topic
        self._encode, self._key = encoder(topic), message_key(topic.contract)
        self._names = [column.name for column in message_columns(topic.contract)]
        self._sent: dict[_Bar, _Version] = {}
        self._stop = asyncio.Event()
        self.polled = Polled()

    async def run(self, sender: Sender) -> Polled:
        """Poll until it is stopped, or until the limit of messages is reached.

        Raises:
            ConfigError: there is no such provider.
            BrokerError: nothing can be sent any more.
        """
        chain = ProviderChain(self._settings)
        try:
            while not self._stop.is_set():
                await self._poll(chain, sender)
                if self._full:
                    break
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), self._every)
        finally:
            await chain.aclose()
        return self.polled

    def plan(self) -> dict[str, list[Source | Skipped]]:
        """Return by asset who is asked, in order, or why not; asks nobody.

        Raises:
            ConfigError: there is no such provider.
        """
        now, chain = self._clock(), ProviderChain(self._settings)
        return {each.pair: chain.candidates(self._job(each, now)) for each in self._instruments}

    def stop(self) -> None:
        """End after the poll in hand; to be called on the event loop."""
        self._stop.set()

    @property
    def _full(self) -> bool:
        return self._limit is not None and self.polled.messages >= self._limit

    async def _poll(self, chain: ProviderChain, sender: Sender) -> None:
        now = self._clock()
        oldest = now - 2 * _LOOK_BACK
        self._sent = {bar: version for bar, version in list(self._sent.items()) if bar[1] >= oldest}
        jobs = [self._job(each, now) for each in self._instruments]
        answers = await asyncio.gather(*(self._bars(chain, job, now) for job in jobs))
        for provider, rows in answers:
            await asyncio.to_thread(self._send, provider, rows, sender)
        self.polled.polls += 1

    def _job(self, instrument: Instrument, now: datetime) -> Job:
        return bar_job(instrument.pair, _MINUTE, now - _LOOK_BACK, now, now=now, provider=self._provider)

    async def _bars(self, chain: ProviderChain, job: Job, now: datetime) -> tuple[str, list[dict[str, Any]]]:
        """Return the first provider that answers for an asset, and its bars."""
        if not job.interval:
            return "", []
        for source in chain.candidates(job):
            if isinstance(source, Skipped):
                continue
            try:
                pages = [await source.fetch(window) for window in source.windows(job.window(job.interval))]
            except SourceError as error:
                self.polled.failures[source.name] += 1
                metrics.ingestion_errors_total.labels(error_type=type(error).__name__).inc()
                _log.warning("%s: %s", job.label, error)
                continue
            if any(page.covered for page in pages):
                return source.name, [row for page in pages for row in self._checked(page, source, job, now)]
        self.polled.unserved[job.subject] += 1
        return "", []

    def _checked(self, page: Page, source: Source, job: Job, now: datetime) -> list[dict[str, Any]]:
        can = source.capabilities
        context = EdgeContext(
            self._topic.contract, source.name, now, job.instrument, _MINUTE, can.price_side, can.adjusted, page.derived
        )
        result = validate(page.table, context)
        for refused in result.refused:
            if self._is_new((job.subject, refused.event_time or now), (source.name, refused.reason)):
                self.polled.refused[refused.reason] += 1
        rows: list[dict[str, Any]] = result.good.select(self._names).to_pylist()
        return rows

    def _send(self, provider: str, rows: Sequence[dict[str, Any]], sender: Sender) -> None:
        for row in rows:
            bar, version = (row["asset_pair"], row["timestamp"]), (provider, tuple(row.values()))
            if self._full or sender.stopped:
                return
            if not self._is_new(bar, version):
                continue
            told = partial(self._told, bar, version)
            if not sender.send(self._key(row), self._encode(row), told):
                told("stopped")
                return
            self.polled.messages += 1
            self.polled.first = min(self.polled.first or row["timestamp"], row["timestamp"])
            self.polled.last = max(self.polled.last or row["timestamp"], row["timestamp"])

    def _is_new(self, bar: _Bar, version: _Version) -> bool:
        """Remember a version, and say whether it was not known; a bar stays with the provider that served it first."""
        known = self._sent.get(bar)
        if known is not None and (known == version or known[0] != version[0]):
            return False
        self._sent[bar] = version
        return True

    def _told(self, bar: _Bar, version: _Version, failure: str | None) -> None:
        """Forget what was not delivered, so that the next poll sends it again."""
        if failure is not None and self._sent.get(bar) == version:
            self._sent.pop(bar, None)
