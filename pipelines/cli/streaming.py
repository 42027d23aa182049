"""Running streams, and saying what they do while they do it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import click

from pipelines.cli.failures import DONE, FAILED, INTERRUPTED
from pipelines.cli.interrupt import on_signals
from pipelines.cli.lakes import ChosenLake, lake_for_writing, option_of
from pipelines.cli.render import Heading, console, count, counted, duration, instant, say, show_json, show_table
from pipelines.config import Settings, load_settings
from pipelines.errors import ConfigError
from pipelines.monitoring.serving import own_metrics_served
from pipelines.streaming.clients import admin, explained
from pipelines.streaming.status import BatchStatus
from pipelines.streaming.streaming_ingestion import Mode, StreamIngester, StreamResult
from pipelines.streaming.topics import Topic, topic_named, topics


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to read and for how long, as given."""

    topics: tuple[str, ...]
    available_now: bool
    once: bool

    @property
    def mode(self) -> Mode:
        """How long.

        Raises:
            ConfigError: both options are given.
        """
        if self.available_now and self.once:
            raise ConfigError("give either --available-now or --once, not both")
        if self.once:
            return Mode.ONCE
        return Mode.AVAILABLE_NOW if self.available_now else Mode.CONTINUOUS


def run_streams(
    ctx: click.Context, wanted: Wanted, lake: str | None, *, sample: bool, config_file: Path | None, as_json: bool
) -> None:
    """Stream until stopped, and print a line a batch and what became of it all.

    Raises:
        ConfigError: an unknown topic, or options that do not go together.
        BrokerError: no broker answers.
        MixedOriginError: the lake holds data of the other origin.
    """
    settings, mode, started = load_settings(config_file), wanted.mode, time.monotonic()
    chosen = replace(lake_for_writing(settings, lake, synthetic=sample), option=option_of(lake, sample=sample))
    chosen_topics = _topics(settings, wanted.topics)
    if not as_json:
        chosen.show()
        say(f"reading {', '.join(topic.name for topic in chosen_topics)} from {settings.streaming.bootstrap_servers}")
    ingester = StreamIngester(chosen.manager, settings, chosen_topics, synthetic=sample)
    with own_metrics_served(settings.monitoring), stoppable() as stop:
        results = ingester.run(mode, stop, _quiet if as_json else _line)
    seconds = time.monotonic() - started
    failed = [result for result in results if result.error is not None]
    if as_json:
        body = {"seconds": round(seconds, 2), "topics": [result.as_dict() for result in results]}
        show_json({**chosen.as_dict(), "ok": not failed, **body})
    else:
        _show(results, seconds, chosen)
    ctx.exit(FAILED if failed else DONE)


def _topics(settings: Settings, names: Sequence[str]) -> list[Topic]:
    """Return the topics that are named, else those that the broker has."""
    if names:
        return [topic_named(settings, name) for name in names]
    with explained(settings.streaming), admin(settings) as client:
        present = set(client.list_topics())
    found = [topic for topic in topics(settings).values() if topic.name in present]
    if not found:
        raise ConfigError("the broker has no topic of streaming.topics; create them with `lakehouse topics create`")
    return found


@contextmanager
def stoppable() -> Iterator[threading.Event]:
    """Yield what SIGINT and SIGTERM set; the second one ends the process, and every commit is whole or not there."""
    stop = threading.Event()

    def asked() -> None:
        if stop.is_set():
            os._exit(INTERRUPTED)
        stop.set()
        say("stopping: the batch under way is finished; press Ctrl-C again to abort", stderr=True)

    with on_signals(asked):
        yield stop


def _quiet(_status: BatchStatus) -> None:
    """Say nothing."""


def _line(status: BatchStatus) -> None:
    parts = [
        f"{instant(status.finished_at)} {status.topic}",
        f"{counted(status.rows, 'messages')} in {duration(status.seconds)}",
        *([f"{count(status.refused)} refused"] if status.refused else []),
        *([f"{count(status.late)} late"] if status.late else []),
        *([counted(status.bars, "bars")] if status.bars else []),
        f"lag {count(sum(status.lag.values()))}",
    ]
    console(stderr=True).print(" · ".join(parts), markup=False, highlight=False)


def _show(results: Sequence[StreamResult], seconds: float, chosen: ChosenLake) -> None:
    headings = [
        Heading("topic"),
        *(Heading(name, number=True) for name in ("batches", "messages", "landed", "refused", "late", "bars", "lost")),
        Heading("ended"),
    ]
    rows = [
        [
            each.topic,
            *map(count, (each.batches, each.rows, each.landed, each.refused, each.late, each.bars, each.lost)),
            each.error or "well",
        ]
        for each in results
    ]
    say()
    show_table(headings, rows)
    say(f"{duration(seconds)}; look with: {chosen.command('lakehouse status')}")
