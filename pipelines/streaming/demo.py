"""Streaming on this machine alone: a broker, a replay of made-up ticks, and the job that lands them, while it lasts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Self

import polars as pl

from pipelines.config import load_settings
from pipelines.errors import TableNotFoundError
from pipelines.instruments import load_registry
from pipelines.intervals import Interval
from pipelines.session import stop_spark
from pipelines.storage import DeltaLakeManager
from pipelines.streaming.broker import LocalBroker
from pipelines.streaming.checking import PROVIDER
from pipelines.streaming.clients import offsets
from pipelines.streaming.creation import create_topics
from pipelines.streaming.producers.confluent import FastSender
from pipelines.streaming.producers.origins import Chunk, sample_chunks
from pipelines.streaming.producers.pace import Pace
from pipelines.streaming.producers.replay import Replay
from pipelines.streaming.streaming_ingestion import StreamIngester
from pipelines.streaming.topics import TICKS, topic_named
from pipelines.timeframes import utc_now

if TYPE_CHECKING:
    from pathlib import Path

    from pipelines.config import Settings
    from pipelines.streaming.producers.sender import Deliveries
    from pipelines.streaming.status import BatchStatus
    from pipelines.streaming.streaming_ingestion import StreamResult

TOPIC = "crypto_ticks"
ASSETS = ("BTCUSD", "ETHUSD", "SOLUSD")
_SPEED = 10.0
_TICKS_PER_BAR = 240
_TRIGGER_SECONDS = 2.0
# So that there are whole minutes, and their bars, before the first minute of the demonstration is over.
_BEFORE = timedelta(minutes=3)
_READ_OUT_SECONDS = 15.0
_LOOK_SECONDS = 0.2
_BAR = ("asset_pair", "timestamp", "open", "high", "low", "close", "volume", "ingested_at")


class Demo:
    """Runs everything for as long as the context lasts; the lake is left in its folder.

    Attributes:
        settings: those of the demonstration: its broker, its folder, a short trigger.
        manager: the lake, `lake` in the folder.
        result: what became of the stream, once it has ended.
    """

    def __init__(self, folder: Path) -> None:
        """Prepare it; nothing is started yet.

        Raises:
            JarsError: the broker's jars have not been retrieved.
        """
        self._folder = folder
        self._broker = LocalBroker()
        self._stack = ExitStack()
        self._stop = threading.Event()
        self._begun = threading.Event()
        self._failure: Exception | None = None
        self._position = 0
        self.result: StreamResult | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._broker)
            self.settings = _settings(self._folder, self._broker.bootstrap)
            self.manager = DeltaLakeManager(str(self._folder / "lake"), self.settings)
            self._topic = topic_named(self.settings, TOPIC)
            create_topics(self.settings, [TOPIC])
            self._sender = FastSender(self.settings, TOPIC)
            stack.callback(stop_spark)
            stack.callback(self._end)
            self._player, self._job = (self._thread(work) for work in (self._play, self._stream))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def begun(self) -> bool:
        """Whether the first batch has landed."""
        return self._begun.is_set()

    @property
    def failure(self) -> str | None:
        """Why it cannot go on; None while it can."""
        if self._failure is not None:
            return str(self._failure)
        return self.result.error if self.result else None

    @property
    def deliveries(self) -> Deliveries:
        """What has been sent."""
        return self._sender.deliveries()

    def newest_bars(self, count: int) -> pl.DataFrame:
        """Return the newest live 1m bars that the lake has: asset_pair, timestamp (aware UTC), prices, ingested_at."""
        now = utc_now()
        try:
            found = self.manager.read_arrow(
                "raw_market_data_1m", now - timedelta(hours=1), now, None, [*_BAR, "provider"]
            )
        except TableNotFoundError:
            return pl.DataFrame(schema=dict.fromkeys(_BAR, pl.String()))
        bars = pl.DataFrame(found).filter(pl.col("provider") == PROVIDER).select(_BAR)
        versions = bars.sort("ingested_at").unique(["asset_pair", "timestamp"], keep="last")
        return versions.sort("timestamp", "asset_pair", descending=[True, False]).head(count)

    def _thread(self, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - it is told, and the demonstration ends
                self._failure = self._failure or error

        thread = threading.Thread(target=guarded, name="stream-demo")
        thread.start()
        return thread

    def _play(self) -> None:
        """Send what the last minutes were, at once, and then what happens now."""
        now = utc_now()
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
        past = list(self._chunks(midnight, midnight + _BEFORE * _SPEED))
        instants = _spread(now - _BEFORE, now, sum(chunk.rows.height for chunk in past))
        live = self._chunks(midnight + _BEFORE * _SPEED, midnight + timedelta(days=1))
        with self._sender as sender:
            Replay(self._topic, past, Pace(), to_now=True, clock=instants.__next__).run(sender)
            Replay(self._topic, live, Pace(speed=_SPEED), to_now=True).run(sender)

    def _chunks(self, start: datetime, end: datetime) -> Iterator[Chunk]:
        instruments = [load_registry().resolve(name) for name in ASSETS]
        return sample_chunks(self.settings, self._topic, instruments, Interval(start, end), _TICKS_PER_BAR)

    def _stream(self) -> None:
        ingester = StreamIngester(self.manager, self.settings, [self._topic], synthetic=True)
        (self.result,) = ingester.run(stop=self._stop, on_status=self._note)

    def _note(self, status: BatchStatus) -> None:
        self._position = sum(status.positions.values())
        self._begun.set()

    def _end(self) -> None:
        """Stop sending, let the job read what has been sent, and stop it."""
        self._sender.stop()
        self._player.join()
        if self.begun and self.failure is None:
            end = sum(offsets(self.settings, TOPIC).end.values())
            deadline = time.monotonic() + _READ_OUT_SECONDS
            while self._position < end and self._job.is_alive() and time.monotonic() < deadline:
                time.sleep(_LOOK_SECONDS)
        self._stop.set()
        self._job.join()


def _settings(folder: Path, bootstrap: str) -> Settings:
    streaming = {
        "bootstrap_servers": bootstrap,
        "security_protocol": "plaintext",
        "trigger_seconds": _TRIGGER_SECONDS,
        "starting_offsets": "earliest",
        # What the sample provider has of these minutes is not what is played.
        "heal_hours": 0,
        "topics": {TOPIC: {"dataset": TICKS, "format": "json"}},
    }
    return load_settings(overrides={"streaming": streaming, "dlq": {"path": str(folder / "dlq")}})


def _spread(start: datetime, end: datetime, count: int) -> Iterator[datetime]:
    """Yield `count` instants and one more, at equal distances."""
    return (start + (end - start) * (number / max(count, 1)) for number in range(count + 1))
