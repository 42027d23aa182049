"""Running the exporter: once to the terminal, or until it is stopped."""

from __future__ import annotations

import threading
from pathlib import Path

import click
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from pipelines.cli.failures import DONE, FAILED
from pipelines.cli.interrupt import on_signals
from pipelines.cli.lakes import ChosenLake, NoLakeError, lake_for_reading, lake_for_writing
from pipelines.cli.render import say
from pipelines.config import Settings, load_settings
from pipelines.monitoring.exporter import Exporter
from pipelines.monitoring.serving import served


def print_once(lake: str | None, *, sample: bool, config_file: Path | None) -> int:
    """Print the metrics of one look in Prometheus' text format; returns the exit code."""
    chosen = lake_for_reading(load_settings(config_file), lake, sample=sample)
    looking = Exporter(chosen.manager)
    well = looking.look()
    registry = CollectorRegistry()
    registry.register(looking)
    click.echo(generate_latest(registry).decode(), nl=False)
    return DONE if well else FAILED


def serve(lake: str | None, host: str | None, port: int | None, *, sample: bool, config_file: Path | None) -> None:
    """Serve metrics until SIGINT or SIGTERM.

    Raises:
        ConfigError: it cannot be listened there, or --lake and --sample are both given.
    """
    settings = load_settings(config_file)
    chosen = _lake(settings, lake, sample=sample)
    monitoring, stop = settings.monitoring, threading.Event()
    registry = CollectorRegistry()
    looking = Exporter(chosen.manager)
    registry.register(looking)
    # Of the process itself: memory, CPU, open files.
    ProcessCollector(registry=registry)
    listen, on = host or monitoring.host, monitoring.exporter_port if port is None else port
    with served(registry, listen, on, "monitoring.exporter_port") as address, on_signals(stop.set):
        chosen.show()
        say(f"metrics at {address}, looked at every {monitoring.refresh_seconds:g} s")
        looking.run(stop, monitoring.refresh_seconds)


def _lake(settings: Settings, lake: str | None, *, sample: bool) -> ChosenLake:
    """Return the lake to look at, which need not be there yet."""
    try:
        return lake_for_reading(settings, lake, sample=sample)
    except NoLakeError as error:
        chosen = lake_for_writing(settings, lake, synthetic=sample)
        return ChosenLake(chosen.manager, chosen.synthetic, remark=f"({error})")
