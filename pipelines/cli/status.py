"""`lakehouse status`: what is in the lake."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import examples, json_option, reading_options


@click.command(
    epilog=examples(
        "lakehouse status",
        "lakehouse status --sample --json",
    )
)
@reading_options
@json_option
def status(*, lake: str | None, sample: bool, config_file: Path | None, as_json: bool) -> None:
    """Show the lake's tables, their size, and what is covered.

    Without --lake or --sample it is the configured lake, or the sample lake while that one is empty.
    """
    from pipelines.cli.inventory import show_status

    show_status(lake, sample=sample, config_file=config_file, as_json=as_json)
