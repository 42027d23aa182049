"""What a producer does and has done, for people and for programs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

import click
from rich.progress import Progress, SpinnerColumn
from typing_extensions import override

from pipelines.cli.progress import Counts, Tally
from pipelines.cli.render import Heading, console, count, counted, duration, instant, say, show_json, show_table, size
from pipelines.sources.registry import Skipped

if TYPE_CHECKING:
    from pipelines.sources.base import Source
    from pipelines.streaming.producers.pace import Pace
    from pipelines.streaming.producers.replay import Played
    from pipelines.streaming.producers.sender import Deliveries, Sender

_SECONDS_BETWEEN_LINES = 10.0
_MOST_REASONS = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a producer has come to. `first` and `last` are event times, aware UTC; `refused` rows were no messages."""

    topic: str
    source: str
    deliveries: Deliveries
    first: datetime | None
    last: datetime | None
    refused: Mapping[str, int]
    stopped: bool
    polls: int | None = None
    failures: Mapping[str, int] = field(default_factory=dict)
    unserved: Mapping[str, int] = field(default_factory=dict)

    @property
    def lost(self) -> bool:
        """Whether something that should have been sent was not delivered."""
        return bool(self.deliveries.failed) or (self.polls is None and bool(self.refused))


class Sending(Tally):
    """Shows how sending goes: a line that is redrawn on a terminal, one now and then elsewhere; nothing when quiet."""

    def __init__(self, sender: Sender, event_time: Callable[[], datetime | None], *, quiet: bool) -> None:
        super().__init__("messages")
        self._sender = sender
        self._event_time = event_time
        self._live: Progress | None = None
        self._lines = not quiet
        if not quiet and console(stderr=True).is_terminal:
            self._lines = False
            self._live = Progress(
                SpinnerColumn(),
                Counts(self.summary),
                console=console(stderr=True),
                transient=True,
                refresh_per_second=5,
            )
            self._live.add_task("", total=None)

    @override
    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return super().__enter__()

    async def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Await the work, and print a line every ten seconds where there is no terminal."""
        task = asyncio.create_task(work)
        while not (await asyncio.wait({task}, timeout=_SECONDS_BETWEEN_LINES))[0]:
            if self._lines:
                click.echo(self.summary(), err=True)
        task.result()

    @override
    def note(self, text: str) -> None:
        """Say something above the display."""
        if self._live is not None:
            self._live.console.print(text)
        else:
            super().note(text)

    @override
    def close(self) -> None:
        """Take the display away and give the cursor back."""
        if self._live is not None:
            self._live.stop()

    @override
    def summary(self) -> str:
        """Return messages, messages a second, the event time reached and what is wrong."""
        now = self._sender.deliveries()
        rate = now.taken / self.seconds if self.seconds else 0.0
        parts = [f"{count(now.taken)} sent", f"{count(round(rate))}/s", f"{count(now.waiting)} waiting"]
        if now.lost:
            parts.append(f"{count(now.lost)} failed")
        return " · ".join([*parts, f"at {instant(self._event_time())}", duration(self.seconds)])


def show_outcome(outcome: Outcome, seconds: float, *, as_json: bool) -> None:
    """Print what came of it."""
    done = outcome.deliveries
    rate = done.delivered / seconds if seconds else 0.0
    if as_json:
        polling = {"polls": outcome.polls, "provider_failures": outcome.failures, "unserved": outcome.unserved}
        show_json(
            {
                "topic": outcome.topic,
                "source": outcome.source,
                "messages": done.taken,
                "delivered": done.delivered,
                "failed": done.failed,
                "refused": outcome.refused,
                "first": outcome.first,
                "last": outcome.last,
                "seconds": round(seconds, 3),
                "messages_per_second": round(rate, 1),
                "interrupted": outcome.stopped,
                **(polling if outcome.polls is not None else {}),
            }
        )
        return
    span = f", events of {instant(outcome.first)} → {instant(outcome.last)}" if outcome.first else ""
    say(
        f"{outcome.topic}: {counted(done.delivered, 'messages')} delivered in {duration(seconds)} "
        f"({count(round(rate))} messages/s){span}"
    )
    if outcome.polls is not None:
        say(counted(outcome.polls, "polls"))
    for label, reasons in (
        ("not delivered", done.failed),
        ("refused, and not sent", outcome.refused),
        ("providers failed", outcome.failures),
        ("polls in which nobody answered", outcome.unserved),
    ):
        _show_reasons(label, reasons)
    if outcome.stopped:
        say("Stopped; everything that had been taken was seen through.", "yellow")


def show_preview(topic: str, source: str, played: Played, pace: Pace, *, as_json: bool) -> None:
    """Print what a replay would send."""
    seconds = pace.length(played.messages, played.first, played.last)
    if as_json:
        show_json(
            {
                "dry_run": True,
                "topic": topic,
                "source": source,
                "messages": played.messages,
                "bytes": played.bytes,
                "subjects": played.subjects,
                "refused": played.refused,
                "first": played.first,
                "last": played.last,
                "seconds": None if seconds is None else round(seconds, 3),
            }
        )
        return
    say(f"Dry run: nothing is sent to {topic}\n")
    rows = [[subject, count(number)] for subject, number in played.subjects.items()]
    total = ["total", count(played.messages)]
    show_table([Heading("subject"), Heading("messages", number=True)], rows, total if len(rows) > 1 else None)
    say()
    span = f"events of {instant(played.first)} → {instant(played.last)}, " if played.first else ""
    takes = "" if seconds is None else f", which takes {duration(seconds)}"
    say(f"{span}{size(played.bytes)}, {pace}{takes}")
    _show_reasons("would be refused", played.refused)


def show_polling(topic: str, plan: Mapping[str, Sequence[Source | Skipped]], every: float, *, as_json: bool) -> None:
    """Print whom a poll would ask for which asset."""
    asked = {pair: [each.name for each in found if not isinstance(each, Skipped)] for pair, found in plan.items()}
    skipped = {
        pair: {each.name: each.reason for each in found if isinstance(each, Skipped)} for pair, found in plan.items()
    }
    if as_json:
        assets = {pair: {"asked": asked[pair], "skipped": skipped[pair]} for pair in plan}
        show_json({"dry_run": True, "topic": topic, "every_seconds": every, "assets": assets})
        return
    say(f"Dry run: nobody is asked, nothing is sent to {topic}\n")
    rows = [
        [pair, ", ".join(asked[pair]) or "nobody", "; ".join(f"{name}: {why}" for name, why in skipped[pair].items())]
        for pair in plan
    ]
    show_table([Heading("asset"), Heading("asked in this order"), Heading("passed over", fold=True)], rows)
    say(f"\nEvery {duration(every)}, for the 1m bars that have closed in the last minutes.")


def _show_reasons(label: str, reasons: Mapping[str, int]) -> None:
    if not reasons:
        return
    often = sorted(reasons.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{reason} ({count(number)})" for reason, number in often[:_MOST_REASONS])
    more = f" and {len(often) - _MOST_REASONS} other reasons" if len(often) > _MOST_REASONS else ""
    say(f"{label}: {count(sum(reasons.values()))}: {shown}{more}", "red")
