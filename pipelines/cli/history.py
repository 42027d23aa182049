"""`lakehouse history`: the commits of a table."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import examples, json_option, reading_options


@click.command(
    epilog=examples(
        "lakehouse history raw_market_data_1h --limit 5",
    )
)
@click.argument("table")
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="The newest N commits."
)
@reading_options
@json_option
def history(*, table: str, limit: int, lake: str | None, sample: bool, config_file: Path | None, as_json: bool) -> None:
    """Show the commits of TABLE, newest first.

    A version or time from here can be read again with `lakehouse query --version` or `--as-of`.
    """
    from pipelines.cli.commits import show_history

    show_history(table, limit, lake, sample=sample, config_file=config_file, as_json=as_json)
