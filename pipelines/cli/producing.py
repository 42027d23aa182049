"""Producing messages, or only saying what would be sent."""

from __future__ import annotations

import asyncio
import difflib
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.cli.failures import DONE, FAILED, INTERRUPTED
from pipelines.cli.interrupt import run_stoppable
from pipelines.cli.lakes import lake_for_reading
from pipelines.cli.produced import Outcome, Sending, show_outcome, show_polling, show_preview
from pipelines.cli.spans import asked_span
from pipelines.errors import ConfigError
from pipelines.instruments import Instrument, load_registry
from pipelines.intervals import Interval
from pipelines.monitoring.serving import own_metrics_served
from pipelines.sources.registry import SOURCES
from pipelines.streaming.producers.confluent import FastSender
from pipelines.streaming.producers.market_data import MarketDataProducer
from pipelines.streaming.producers.origins import Chunk, file_chunks, lake_chunks, sample_chunks, tick_chunks
from pipelines.streaming.producers.pace import Pace, pace_of
from pipelines.streaming.producers.plain import PlainSender
from pipelines.streaming.producers.replay import Replay
from pipelines.streaming.topics import TICKS, Topic, topic_named
from pipelines.timeframes import Timeframe, utc_now

if TYPE_CHECKING:
    from pipelines.config import Settings
    from pipelines.streaming.producers.sender import Sender

_SAMPLE, _BRONZE, _PROVIDERS = "sample", "bronze", "providers"
_DAY = timedelta(days=1)
_STOPPING = "stopping: what has been taken is still delivered; press Ctrl-C again to abort"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProduceRequest:
    """The arguments of `lakehouse stream produce`, as given."""

    topic: str
    source: str
    assets: tuple[str, ...]
    days: int | None
    start: str | None
    end: str | None
    speed: str | None
    rate: float | None
    ticks_per_bar: int
    to_now: bool
    limit: int | None
    every: float
    lake: str | None
    sample: bool

    @property
    def polls(self) -> bool:
        """Whether providers are asked again and again, and nothing is replayed."""
        return self.source == _PROVIDERS or (self.source in SOURCES and self.source not in (_SAMPLE, "files"))

    @property
    def provider(self) -> str | None:
        """The one provider to ask; None for the chain."""
        return None if self.source == _PROVIDERS else self.source

    def instruments(self) -> list[Instrument]:
        """Return the assets, each once.

        Raises:
            UnknownAssetError: one is unknown.
        """
        found = [load_registry().resolve(name) for name in self.assets]
        return list({each.pair: each for each in found}.values())

    def replay(self, settings: Settings) -> Replay:
        """Return the replay that is asked for; it has read nothing yet.

        Raises:
            ConfigError: options that do not go together, or no such topic or source.
            InvalidRangeError: the span cannot be read, or is empty.
            UnknownAssetError: an asset is unknown.
            NoLakeError: there is no lake.
            SourceError: the file cannot be read.
        """
        topic, pace = topic_named(settings, self.topic), self.pace()
        return Replay(topic, self._chunks(settings, topic), pace, limit=self.limit, to_now=self.to_now)

    def pace(self) -> Pace:
        """Return the rhythm that is asked for.

        Raises:
            ConfigError: there is none such.
        """
        return pace_of(self.speed, self.rate)

    def producer(self, settings: Settings) -> MarketDataProducer:
        """Return the producer that polls.

        Raises:
            ConfigError: no assets, or the topic is not one of bars.
            UnknownAssetError: an asset is unknown.
        """
        topic = topic_named(settings, self.topic)
        for given, option in ((self.days, "--days"), (self.start, "--start"), (self.speed, "--speed"),
                              (self.rate, "--rate"), (self.to_now or None, "--shift-to-now")):  # fmt: skip
            if given is not None:
                raise ConfigError(f"{option} is for replays; providers are asked for their newest bars")
        self._need_assets()
        return MarketDataProducer(
            settings, topic, self.instruments(), provider=self.provider, every=self.every, limit=self.limit
        )

    def _chunks(self, settings: Settings, topic: Topic) -> Iterable[Chunk]:
        instruments, now = self.instruments(), utc_now()
        pairs = [each.pair for each in instruments] or None
        span = asked_span(self.days, self.start, self.end, now)
        recent = _whole_minutes(span or Interval(now - _DAY, now))
        if self.source == _SAMPLE:
            self._need_assets()
            return sample_chunks(settings, topic, instruments, recent, self.ticks_per_bar)
        if self.source in (_BRONZE, TICKS):
            manager = lake_for_reading(settings, self.lake, sample=self.sample).manager
            if self.source == _BRONZE:
                return lake_chunks(manager, topic, pairs, recent, self.ticks_per_bar)
            return tick_chunks(manager, topic, pairs, recent)
        return file_chunks(self._path(), topic, pairs, span)

    def _path(self) -> str:
        known = [_SAMPLE, _BRONZE, TICKS, _PROVIDERS, *(name for name in SOURCES if name not in ("files", _SAMPLE))]
        if not any(mark in self.source for mark in "./*\\") and not Path(self.source).exists():
            close = difflib.get_close_matches(self.source, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
            raise ConfigError(f"no source or file {self.source!r}; {hint}")
        return self.source

    def _need_assets(self) -> None:
        if not self.assets:
            raise ConfigError(f"--source {self.source} needs --assets, as --assets BTCUSD,ETHUSD")


def run_producer(request: ProduceRequest, settings: Settings, *, as_json: bool, quiet: bool) -> int:
    """Send what is asked for and print what came of it; returns the exit code."""
    started = time.monotonic()
    with own_metrics_served(settings.monitoring):
        if request.polls:
            outcome = _poll(request, settings, quiet=quiet or as_json)
        else:
            outcome = _play(request, settings, quiet=quiet or as_json)
    show_outcome(outcome, time.monotonic() - started, as_json=as_json)
    # A poll has no other end than being stopped.
    if outcome.stopped and not request.polls:
        return INTERRUPTED
    return FAILED if outcome.lost else DONE


def show_producer(request: ProduceRequest, settings: Settings, *, as_json: bool) -> int:
    """Print what would be sent; asks neither broker nor provider. Returns the exit code."""
    if request.polls:
        show_polling(request.topic, request.producer(settings).plan(), request.every, as_json=as_json)
        return DONE
    played = request.replay(settings).preview()
    show_preview(request.topic, request.source, played, request.pace(), as_json=as_json)
    return FAILED if played.refused else DONE


def _play(request: ProduceRequest, settings: Settings, *, quiet: bool) -> Outcome:
    replay = request.replay(settings)
    sender = FastSender(settings, request.topic)
    played = replay.played
    with Sending(sender, lambda: played.last, quiet=quiet) as display:

        async def work() -> None:
            async with _opened(sender):
                await asyncio.to_thread(replay.run, sender)

        run_stoppable(lambda: display.beside(work()), sender.stop, display, _STOPPING)
    return Outcome(
        request.topic, request.source, sender.deliveries(), played.first, played.last, played.refused, not played.whole
    )


def _poll(request: ProduceRequest, settings: Settings, *, quiet: bool) -> Outcome:
    producer = request.producer(settings)
    sender = PlainSender(settings, request.topic)
    polled = producer.polled

    def stop() -> None:
        producer.stop()
        sender.stop()

    with Sending(sender, lambda: polled.last, quiet=quiet) as display:

        async def work() -> None:
            async with _opened(sender):
                await producer.run(sender)

        run_stoppable(lambda: display.beside(work()), stop, display, _STOPPING)
    return Outcome(
        request.topic, request.source, sender.deliveries(), polled.first, polled.last, polled.refused, sender.stopped,
        polls=polled.polls, failures=polled.failures, unserved=polled.unserved,
    )  # fmt: skip


@asynccontextmanager
async def _opened(sender: Sender) -> AsyncIterator[None]:
    """Open a sender and close it, in threads, so that signals are heard meanwhile."""
    await asyncio.to_thread(sender.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(sender.__exit__, None, None, None)


def _whole_minutes(span: Interval) -> Interval:
    """Return a span that cuts no bar in two."""
    return Interval(Timeframe.M1.floor(span.start), Timeframe.M1.floor(span.end))
