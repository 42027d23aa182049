"""How a run goes: a live bar on a terminal, a line now and then elsewhere. All of it on stderr."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import click
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task
from rich.text import Text

from pipelines.batch.progress import Progress as Listener
from pipelines.cli.render import console, count, duration

_SECONDS_BETWEEN_LINES = 10.0


class Tally(Listener):
    """Counts; called from the event loop and from landing threads."""

    def __init__(self, counting: str = "requests") -> None:
        self._lock = threading.Lock()
        self.counting = counting
        self._started = time.monotonic()
        self.windows = self.answered = self.failures = 0
        self.rows = self.committed = 0

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def planned(self, windows: int) -> None:
        """More windows will be asked for."""
        self._count("windows", windows)

    def fetched(self, rows: int) -> None:
        """A window was answered with so many rows."""
        with self._lock:
            self.answered += 1
            self.rows += rows
            self._show()

    def failed(self) -> None:
        """A window was given up."""
        self._count("failures", 1)

    def landed(self, rows: int) -> None:
        """So many rows were committed."""
        self._count("committed", rows)

    def note(self, text: str) -> None:
        """Say something above the display."""
        click.echo(text, err=True)

    def close(self) -> None:
        """Take the display away."""

    def _count(self, name: str, by: int) -> None:
        with self._lock:
            setattr(self, name, getattr(self, name) + by)
            self._show()

    def _show(self) -> None:
        """Show the counts; called with the lock held."""

    @property
    def done(self) -> int:
        """Windows that need no more waiting for."""
        return self.answered + self.failures

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def summary(self) -> str:
        """Return rows, rows a second, and what remains."""
        rate = self.rows / self.seconds if self.seconds else 0.0
        parts = [f"{count(self.rows)} rows", f"{count(round(rate))} rows/s", f"{count(self.committed)} written"]
        if self.failures:
            parts.append(f"{count(self.failures)} failed")
        return " · ".join([*parts, self._remaining()])

    def _remaining(self) -> str:
        if not self.done:
            return "waiting for the first answer"
        if self.done >= self.windows:
            return "writing" if self.committed < self.rows else "finishing"
        return f"ETA {duration(self.seconds / self.done * (self.windows - self.done))}"


class Counts(ProgressColumn):
    """The tally's words, anew at each refresh: rich's own clock stops when all requests are answered."""

    def __init__(self, text: Callable[[], str]) -> None:
        super().__init__()
        self._text = text

    def render(self, task: Task) -> Text:
        """Return the words; the task itself is of no interest."""
        del task
        return Text(self._text())


class LiveBar(Tally):
    """A bar that is redrawn in place."""

    def __init__(self, counting: str = "requests") -> None:
        super().__init__(counting)
        self._bar = Progress(
            SpinnerColumn(),
            Counts(lambda: f"{count(self.done)}/{count(self.windows)} {self.counting}"),
            BarColumn(bar_width=20),
            Counts(lambda: f"{self.summary()} · {duration(self.seconds)}"),
            console=console(stderr=True),
            transient=True,
            refresh_per_second=5,
        )
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return super().__enter__()

    def note(self, text: str) -> None:
        """Say something above the display."""
        self._bar.console.print(text)

    def close(self) -> None:
        """Take the display away and give the cursor back."""
        self._bar.stop()

    def _show(self) -> None:
        # One more than there are: the writing is still to come when the last answer is here.
        self._bar.update(self._task, completed=self.done, total=self.windows + 1)


class Lines(Tally):
    """A line every ten seconds, for logs."""

    def __init__(self, counting: str = "requests", seconds_between: float = _SECONDS_BETWEEN_LINES) -> None:
        super().__init__(counting)
        self._between = seconds_between
        self._last = time.monotonic()

    def _show(self) -> None:
        if time.monotonic() - self._last >= self._between:
            self._last = time.monotonic()
            click.echo(f"{count(self.done)}/{count(self.windows)} {self.counting} · {self.summary()}", err=True)


def progress_display(*, quiet: bool, counting: str = "requests") -> Tally:
    """Return the display that fits: none when quiet, a bar on a terminal, lines elsewhere."""
    if quiet:
        return Tally(counting)
    return LiveBar(counting) if console(stderr=True).is_terminal else Lines(counting)
