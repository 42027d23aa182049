"""The streaming benchmarks: a backlog drained beside a bare stream, and how soon live ticks can be queried."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
from deltalake import DeltaTable

from benchmarks.measure import PYTHON, BenchmarkError, Run, run, say
from benchmarks.streaming_feed import backlog
from benchmarks.streaming_latency import Floats, Watcher
from benchmarks.streaming_run import settings_of
from pipelines.config import load_settings
from pipelines.streaming.broker import LocalBroker
from pipelines.streaming.creation import create_topics
from pipelines.streaming.topics import TICKS

TOPIC = "crypto_ticks"
BASE = "Structured Streaming"
RATE = 2_000
_MINUTE, _HOUR = 60, 3600
_BATCHES = 4
_SPARE_SECONDS = 120
_BOTH_COMPILERS = {"LAKEHOUSE__SPARK__JAVA_OPTIONS": ""}
_PERCENTILES = (50, 95, 99, 100)


@dataclass(frozen=True, slots=True)
class Drained:
    """A backlog read by one contestant: seconds from the first batch on, and of the first batch, and what it left."""

    who: str
    messages: int
    seconds: float
    first_messages: int
    first_seconds: float
    files: int
    run: Run

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds

    @property
    def later_rate(self) -> float:
        """Messages a second without the first batch, in which a JVM is slow."""
        return (self.messages - self.first_messages) / (self.seconds - self.first_seconds)


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a live stream: quantiles of seconds until a row can be queried, of a batch's; bytes resident."""

    name: str
    messages: int
    latencies: tuple[float, ...]
    batch_seconds: float
    python: int
    jvm: int


@dataclass(frozen=True, slots=True)
class Live:
    """A live stream of so many seconds: its parts; most files a partition had, and how many compaction left it."""

    seconds: float
    spans: list[Span]
    most_files: int
    files_left: int

    @property
    def files_an_hour(self) -> float:
        """Files that an hour would leave in a partition, if none of them were compacted again."""
        return self.files_left * _HOUR / self.seconds


def measure(messages: int, seconds: int) -> tuple[list[Drained], Live]:
    """Drain a backlog of so many messages by each contestant, then stream live ticks for so many seconds.

    Raises:
        BenchmarkError: a contestant failed, or did not land each message once.
    """
    return _drains(messages), _live(seconds)


@contextmanager
def _broker() -> Iterator[str]:
    """Run a broker with the topics of the settings and yield its address."""
    with LocalBroker() as broker:
        create_topics(settings_of(Path(), broker.bootstrap), [TOPIC])
        yield broker.bootstrap


def _drains(messages: int) -> list[Drained]:
    with _broker() as bootstrap:
        backlog(bootstrap, TOPIC, messages)
        say(f"  {messages:,} messages wait")
        # As many as by default, unless it is a small backlog.
        batch = min(load_settings().streaming.max_messages_per_batch, messages // _BATCHES)
        told = ["--bootstrap", bootstrap, "--topic", TOPIC, "--batch", str(batch)]
        ours = ["-m", "benchmarks.streaming_run", "drain", *told, "--messages", str(messages)]
        bare = ["-m", "benchmarks.references.bare_stream", *told]
        return [
            _drained(BASE, bare, messages, {}),
            _drained("ours", ours, messages, {}),
            _drained("ours, C2", ours, messages, _BOTH_COMPILERS),
        ]


def _drained(who: str, told: list[str], messages: int, env: dict[str, str]) -> Drained:
    with tempfile.TemporaryDirectory(prefix="bench-") as lake:
        done = run([PYTHON, *told, "--lake", lake], env)
        files = _checked(who, Path(lake) / TICKS, messages)
    first_done, first_seconds, first_messages = done.answer["batches"][0]
    seconds = done.answer["ended"] - (first_done - first_seconds)
    drained = Drained(who, messages, seconds, int(first_messages), first_seconds, files, done)
    say(f"  {who}: {drained.rate:,.0f} messages/s, {drained.later_rate:,.0f} without the first batch")
    return drained


def _checked(who: str, table: Path, messages: int) -> int:
    """Make sure that each message landed once, and return the number of files."""
    files = DeltaTable(str(table)).file_uris()
    found = duckdb.execute(
        """SELECT count(*), count(DISTINCT (kafka_partition, kafka_offset)), count(DISTINCT tick_id)
           FROM read_parquet($1, hive_partitioning = false)""",
        [files],
    ).fetchall()[0]
    if found != (messages, messages, messages):
        raise BenchmarkError(f"{who}: rows, offsets and ticks {found}, not {messages:,} of each")
    return len(files)


def _live(seconds: int) -> Live:
    messages = RATE * seconds
    with _broker() as bootstrap, tempfile.TemporaryDirectory(prefix="bench-") as lake, ThreadPoolExecutor(1) as beside:
        told, table = ["--bootstrap", bootstrap, "--topic", TOPIC], Path(lake) / TICKS
        wanted = ["--messages", str(messages), "--within", str(seconds + _SPARE_SECONDS)]
        ours = ["-m", "benchmarks.streaming_run", "live", *told, *wanted, "--lake", lake]
        feed = ["-m", "benchmarks.streaming_feed", *told, "--rate", str(RATE), "--seconds", str(seconds)]
        with Watcher(table, TOPIC) as watcher:
            streamed = beside.submit(run, [PYTHON, *ours])
            if watcher.there(_SPARE_SECONDS):
                fed = run([PYTHON, *feed]).answer
            done = streamed.result()
        _checked("live", table, messages)
        began, ended = float(fed["began"]), float(fed["ended"])
        minute = min(_MINUTE, seconds / 2)
        parts = {
            f"first {minute:.0f} s": (began, began + minute),
            f"last {minute:.0f} s": (ended - minute, ended),
            "all": (began, ended),
        }
        rows = watcher.latencies()
        spans = [_span(name, borders, rows, done) for name, borders in parts.items()]
        live = Live(ended - began, spans, *watcher.files)
    for span in live.spans:
        listed = ", ".join(f"{value:.1f}" for value in span.latencies)
        say(f"  live, {span.name}: seconds to be queryable {listed}; {span.batch_seconds:.2f} s a batch")
    return live


def _span(name: str, borders: tuple[float, float], rows: tuple[Floats, Floats], done: Run) -> Span:
    start, end = borders
    events, latencies = rows
    inside = latencies[(events >= start) & (events <= end)]
    batches = [seconds for at, seconds, _ in done.answer["batches"] if start <= at <= end]
    memory = [(python, jvm) for at, python, jvm in done.answer["memory"] if start <= at <= end]
    python, jvm = (int(np.median(column)) for column in zip(*memory, strict=True))
    quantiles = tuple(float(value) for value in np.percentile(inside, _PERCENTILES))
    return Span(name, len(inside), quantiles, float(np.median(batches)), python, jvm)
