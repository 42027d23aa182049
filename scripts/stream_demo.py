"""Shows streaming at work, offline: a broker, a replay of made-up ticks, the job, and its lag and bars as they land."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

# So that it also runs where the package itself is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import polars as pl
from rich import box
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipelines.cli.failures import DONE, FAILED
from pipelines.cli.lakes import ChosenLake
from pipelines.cli.render import console, count, counted, duration, say
from pipelines.cli.stream_states import TopicState, streams_of
from pipelines.cli.streaming import stoppable
from pipelines.errors import LakehouseError
from pipelines.streaming.demo import ASSETS, TOPIC, Demo
from pipelines.timeframes import utc_now

if TYPE_CHECKING:
    import threading

_LOOK_SECONDS = 1.0
_BARS = 9
_TEXT = ("topic", "watermark", "1m bar", "asset", "landed at")


class Display:
    """What is shown of it: tables that are drawn anew on a terminal, elsewhere a line for each batch and bar."""

    def __init__(self, demo: Demo) -> None:
        self._demo = demo
        self._lake = ChosenLake(demo.manager, synthetic=True)
        self._live = Live(console=console(), auto_refresh=False) if console().is_terminal else None
        self._seen: set[tuple[object, ...]] = set()

    def watch(self, seconds: float, stop: threading.Event) -> None:
        """Show it for so many seconds from the first batch on, until stopped, or until it fails."""
        began: float | None = None
        if self._live:
            self._live.start()
        try:
            while not stop.wait(_LOOK_SECONDS) and self._demo.failure is None:
                if self._demo.begun:
                    began = began or time.monotonic()
                    if time.monotonic() - began >= seconds:
                        break
                self._show(seconds if began is None else seconds - (time.monotonic() - began))
        finally:
            if self._live:
                self._live.stop()

    def _show(self, left: float) -> None:
        states = streams_of(self._lake, self._demo.settings, [TOPIC], utc_now()).states
        bars = self._demo.newest_bars(_BARS) if states else pl.DataFrame()
        if self._live:
            self._live.update(self._drawn(states, bars, left), refresh=True)
        else:
            self._print(states, bars)

    def _drawn(self, states: tuple[TopicState, ...], bars: pl.DataFrame, left: float) -> Group:
        if not states:
            sent = count(self._demo.deliveries.delivered)
            return Group(Text(f"Spark is starting; {sent} ticks wait at the broker …"))
        streams = _table("topic", "lag", "rows/s", "batch", "watermark", "behind", "landed", "dead letters")
        for state in states:
            streams.add_row(*_cells(state))
        newest = _table("1m bar", "asset", "open", "high", "low", "close", "volume", "landed at")
        for bar in bars.iter_rows(named=True):
            newest.add_row(*_bar(bar))
        return Group(
            streams, Text(), newest, Text(f"{duration(max(left, 0.0))} left, times in UTC; Ctrl-C ends it", style="dim")
        )

    def _print(self, states: tuple[TopicState, ...], bars: pl.DataFrame) -> None:
        for state in states:
            if self._new(state.name, state.record.status.batch_id):
                names = ("lag", "rows/s", "batch", "watermark", "behind", "landed", "dead letters")
                cells = _cells(state)
                say(" · ".join([cells[0], *(f"{name} {cell}" for name, cell in zip(names, cells[1:], strict=True))]))
        for bar in bars.reverse().iter_rows(named=True):
            cells = _bar(bar)
            if self._new("bar", *cells):
                say(f"  bar {' '.join(cells[:2])} open {' high '.join(cells[2:4])} low {' close '.join(cells[4:6])} "
                    f"volume {cells[6]}")  # fmt: skip

    def _new(self, *what: object) -> bool:
        new = what not in self._seen
        self._seen.add(what)
        return new


def _table(*names: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for name in names:
        left = name in _TEXT
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    return table


def _cells(state: TopicState) -> list[str]:
    record = state.record
    return [
        state.name,
        count(sum(state.lag.values())),
        count(round(state.rows_per_second)),
        duration(record.status.seconds),
        f"{watermark:%H:%M:%S}" if (watermark := record.status.watermark) else "-",
        "-" if state.behind is None else duration(state.behind.total_seconds()),
        count(record.rows - record.refused),
        count(record.refused),
    ]


def _bar(bar: dict[str, object]) -> list[str]:
    prices = [f"{bar[name]:,.2f}" for name in ("open", "high", "low", "close", "volume")]
    opens, landed = bar["timestamp"], bar["ingested_at"]
    return [f"{opens:%H:%M}", str(bar["asset_pair"]), *prices, f"{landed:%H:%M:%S}"]


@click.command()
@click.option("--seconds", type=click.FloatRange(min=1), default=60.0, show_default=True, help="How long it streams.")
@click.option("--keep", is_flag=True, help="Leave the lake where it is, to be looked at.")
def main(*, seconds: float, keep: bool) -> None:
    """Stream made-up ticks through Kafka into a lake, and show lag and bars. It needs no network and leaves nothing."""
    folder = Path(tempfile.mkdtemp(prefix="lakehouse-stream-demo-"))
    try:
        with stoppable() as stop:
            code = _run(folder, seconds, stop)
    except LakehouseError as error:
        raise click.ClickException(str(error)) from error
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    if keep:
        say(f"look at the lake with: lakehouse status --lake {folder / 'lake'}")
        say(f"when done with it: rm -r {folder}")
    else:
        say("The lake is removed; --keep leaves it there to be looked at.")
    sys.exit(code)


def _run(folder: Path, seconds: float, stop: threading.Event) -> int:
    say("Starting a broker on this machine …")
    with Demo(folder) as demo:
        broker = demo.settings.streaming.bootstrap_servers
        say(f"Broker {broker}: made-up ticks of {', '.join(ASSETS)} go to {TOPIC}, ten times as fast as they happened")
        say(f"Lake {demo.manager.storage_path}: the job lands them every {demo.settings.streaming.trigger_seconds:g} s")
        say("Starting Spark …")
        Display(demo).watch(seconds, stop)
        say("Stopping: what has been sent is still read …")
    sent, result = demo.deliveries, demo.result
    if demo.failure is not None or result is None:
        say(f"The stream failed: {demo.failure}", "bold red")
        return FAILED
    landed = f"{count(result.landed)} landed in {counted(result.batches, 'commits')}"
    built = f"{count(result.refused)} refused; {counted(result.bars, 'live bars')} built of them"
    say(f"{counted(sent.delivered, 'ticks')} sent; {landed}, {built}", "bold")
    return DONE


if __name__ == "__main__":
    main()
