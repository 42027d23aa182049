"""`lakehouse stream`: messages into Kafka, and out of it into bronze."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import click

from pipelines.cli.lazy import LazyGroup
from pipelines.cli.options import examples


class StreamCommands(LazyGroup):
    """The commands, in the order of `lakehouse stream --help`."""

    commands_at: ClassVar[Mapping[str, str]] = {
        "produce": "pipelines.cli.stream_produce:produce",
        "run": "pipelines.cli.stream_run:run",
        "status": "pipelines.cli.stream_status:status",
    }


@click.group(
    cls=StreamCommands,
    epilog=examples(
        "lakehouse topics create",
        "lakehouse stream produce --topic crypto_ticks --source sample --assets BTCUSD,ETHUSD --shift-to-now",
        "lakehouse stream run --topics crypto_ticks",
        "lakehouse stream status",
    ),
)
def stream() -> None:
    """Write to the Kafka topics of the settings, and land what they hold in bronze.

    Where the brokers are, and how to log in, is in the section `streaming` of the settings.
    """
