"""`lakehouse config`: the settings in force."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import config_option, examples, json_option, verbose_option


@click.command(
    epilog=examples(
        "lakehouse config",
        "LAKEHOUSE__INGEST__CHUNK_ROWS=50000 lakehouse config --json",
    )
)
@config_option
@json_option
@verbose_option
def config(*, config_file: Path | None, as_json: bool) -> None:
    """Show the settings in force.

    Those that differ from the defaults say where they come from. Keys and tokens are never shown, only whether
    they are set.
    """
    from pipelines.cli.settings import show_settings

    show_settings(config_file, as_json=as_json)
