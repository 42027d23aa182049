"""The streams of a lake as their files and the broker tell of them, for people and for programs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import click

from pipelines.cli.failures import DONE, FAILED
from pipelines.cli.lakes import ChosenLake, NoLakeError, lake_for_reading
from pipelines.cli.render import Heading, console, count, counted, duration, instant, say, show_json, show_table
from pipelines.config import Settings, load_settings
from pipelines.streaming.clients import BrokerError, Offsets, TopicNotFoundError, consumer, offsets
from pipelines.streaming.status import RATE_OVER, LostRange, StatusBoard, StreamRecord, lag
from pipelines.streaming.topics import topic_named
from pipelines.timeframes import utc_now

# A batch may take longer than the trigger; a stream that has been quiet for so many triggers is not at work.
_TRIGGERS_MISSED = 6
_LEAST_STALE = timedelta(seconds=30)
_SLOWEST_LOOK, _FASTEST_LOOK = 10.0, 1.0


@dataclass(frozen=True, slots=True)
class TopicState:
    """One stream at an instant (aware UTC); `held` is what the broker has now, None if it cannot be asked."""

    record: StreamRecord
    held: Offsets | None
    now: datetime
    stale_after: timedelta

    @property
    def name(self) -> str:
        """The topic."""
        return self.record.status.topic

    @property
    def ends(self) -> Mapping[int, int]:
        """The broker's end offsets by partition: now, or when the last batch ended."""
        return self.held.end if self.held else self.record.status.ends

    @property
    def lag(self) -> dict[int, int]:
        """Messages at the broker that are not in the lake, by partition."""
        begin, positions = self.held.beginning if self.held else {}, self.record.status.positions
        known = positions.keys() | begin.keys()
        # What has expired cannot be read any more.
        return lag({each: max(begin.get(each, 0), positions.get(each, 0)) for each in known}, self.ends)

    @property
    def lost(self) -> tuple[LostRange, ...]:
        """Offsets that expired before they were read, those included that the stream has not come to yet."""
        told = tuple(LostRange(*each) for each in self.record.status.lost)
        begin, positions = self.held.beginning if self.held else {}, self.record.status.positions
        gone = (LostRange(at, positions[at], begin[at]) for at in positions if begin.get(at, 0) > positions[at])
        return (*told, *gone)

    @property
    def state(self) -> Literal["running", "stopped", "failed", "stale"]:
        """What the stream says of itself, unless it should have gone on and has not."""
        state = self.record.status.state
        if state == "running" and self.since > self.stale_after and any(self.lag.values()):
            return "stale"
        return state

    @property
    def since(self) -> timedelta:
        """How long ago the last batch ended."""
        return self.now - self.record.status.finished_at

    @property
    def behind(self) -> timedelta | None:
        """From the watermark to now."""
        watermark = self.record.status.watermark
        return None if watermark is None else self.now - watermark

    @property
    def rows_per_second(self) -> float:
        """Messages read a second over the last minute; 0 if no batch has ended in it."""
        return self.record.rows_per_second if self.since < RATE_OVER else 0.0

    @property
    def is_bad(self) -> bool:
        """Whether it has failed, or lost messages."""
        return self.state == "failed" or bool(self.lost)

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        status = self.record.status.as_dict()
        return {
            **status,
            "state": self.state,
            "ends": {str(partition): offset for partition, offset in sorted(self.ends.items())},
            "lag": {str(partition): messages for partition, messages in self.lag.items()},
            "lost": [list(each) for each in self.lost],
            "rows_per_second": self.rows_per_second,
            "batch_seconds": list(self.record.batch_seconds),
            "watermark_seconds_behind": None if self.behind is None else round(self.behind.total_seconds(), 3),
            "since_start": {"rows": self.record.rows, "dead_letters": self.record.refused},
        }


@dataclass(frozen=True, slots=True)
class Streams:
    """The streams of a lake; `silent` are topics without one, `unreachable` says why the broker cannot be asked."""

    states: tuple[TopicState, ...]
    silent: tuple[str, ...] = ()
    unreachable: str | None = None

    @property
    def code(self) -> int:
        """The exit code."""
        return FAILED if any(each.is_bad for each in self.states) else DONE

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        never = [{"topic": name, "state": "never run"} for name in self.silent]
        broker = {"reachable": self.unreachable is None, "error": self.unreachable}
        return {"broker": broker, "topics": [*(each.as_dict() for each in self.states), *never]}


def show_streams(
    lake: str | None, topics: Sequence[str], *, sample: bool, config_file: Path | None, as_json: bool
) -> int:
    """Print the streams of a lake; returns the exit code. One that is not there yet has none, unless it was named."""
    settings = load_settings(config_file)
    try:
        chosen = lake_for_reading(settings, lake, sample=sample)
    except NoLakeError:
        if lake or sample:
            raise
        _show(None, Streams((), tuple(_known(settings, topics))), as_json=as_json)
        return DONE
    found = streams_of(chosen, settings, topics, utc_now())
    _show(chosen, found, as_json=as_json)
    return found.code


def watch_streams(
    lake: str | None, topics: Sequence[str], *, sample: bool, config_file: Path | None, as_json: bool
) -> int:
    """Print the streams again and again, on a terminal in one place; returns the last exit code after Ctrl-C."""
    trigger = load_settings(config_file).streaming.trigger_seconds
    code = DONE
    try:
        while True:
            if console().is_terminal:
                click.clear()
            code = show_streams(lake, topics, sample=sample, config_file=config_file, as_json=as_json)
            time.sleep(min(max(trigger, _FASTEST_LOOK), _SLOWEST_LOOK))
    except KeyboardInterrupt:
        return code


def streams_of(chosen: ChosenLake, settings: Settings, topics: Sequence[str], now: datetime) -> Streams:
    """Return the streams of some topics, or of all that have one.

    Raises:
        ConfigError: there is no such topic; names the nearest.
        StorageError: a status cannot be read.
    """
    records = {record.status.topic: record for record in StatusBoard(chosen.manager).read_all()}
    silent = tuple(_known(settings, (name for name in topics if name not in records)))
    wanted = {name: record for name, record in records.items() if not topics or name in topics}
    held, unreachable = _held(settings, wanted) if wanted else ({}, None)
    stale_after = max(_LEAST_STALE, _TRIGGERS_MISSED * timedelta(seconds=settings.streaming.trigger_seconds))
    states = (TopicState(record, held.get(name), now, stale_after) for name, record in wanted.items())
    return Streams(tuple(states), silent, unreachable)


def _known(settings: Settings, names: Iterable[str]) -> Iterable[str]:
    return (topic_named(settings, name).name for name in names)


def _held(settings: Settings, names: Iterable[str]) -> tuple[dict[str, Offsets], str | None]:
    """Return what the broker holds of each topic, and why it cannot be asked if so."""
    held: dict[str, Offsets] = {}
    try:
        with consumer(settings) as client:
            for name in names:
                try:
                    held[name] = offsets(settings, name, client)
                except TopicNotFoundError:
                    # It was deleted since; what is known of it still is.
                    continue
    except BrokerError as error:
        return held, str(error)
    return held, None


def _show(chosen: ChosenLake | None, found: Streams, *, as_json: bool) -> None:
    if as_json:
        about: dict[str, object] = chosen.as_dict() if chosen else {"lake": None, "synthetic": None}
        show_json(about | found.as_dict())
        return
    if chosen:
        chosen.show()
        say()
    if found.states:
        _show_table(found.states)
    elif not found.silent:
        say("No stream has written to this lake yet; `lakehouse stream run` starts one.")
    for name in found.silent:
        say(f"{name}: no stream of it has written to this lake yet")
    for state in found.states:
        _show_problems(state)
    if found.unreachable:
        say(f"Lag is as of each stream's last batch: {found.unreachable}", "yellow")


def _show_table(states: Sequence[TopicState]) -> None:
    numbers = ("lag", "rows/s", "batch", "behind", "dead letters")
    headings = [
        Heading("topic"),
        Heading("state"),
        *(Heading(name, number=True) for name in numbers),
        Heading("watermark (UTC)"),
        Heading("last batch"),
        Heading("lag by partition", fold=True),
    ]
    show_table(headings, [_row(state) for state in states])


def _row(state: TopicState) -> list[str]:
    seconds = state.record.batch_seconds
    return [
        state.name,
        state.state,
        count(sum(state.lag.values())),
        count(round(state.rows_per_second)),
        duration(seconds[-1]) if seconds else "-",
        "-" if state.behind is None else duration(state.behind.total_seconds()),
        count(state.record.refused),
        instant(state.record.status.watermark),
        f"{duration(max(0.0, state.since.total_seconds()))} ago",
        " ".join(f"{partition}:{messages}" for partition, messages in state.lag.items()),
    ]


def _show_problems(state: TopicState) -> None:
    if state.state == "failed":
        say(f"{state.name} failed: {state.record.status.error or 'it did not say why'}", "bold red")
    for lost in state.lost:
        what = f"{counted(lost.messages, 'messages')} of partition {lost.partition}"
        say(
            f"{state.name}: {what} (offsets {lost.start} to {lost.until - 1}) expired before they were read; "
            "`lakehouse gaps` tells which bars are missing for it",
            "bold red",
        )
    for line in state.record.status.unhealed:
        say(f"{state.name}: not had from the providers: {line}", "yellow")
