"""`lakehouse diff`: what changed in a table."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import examples, json_option, reading_options


@click.command(
    epilog=examples(
        "lakehouse diff raw_market_data_1h 3 7",
        "lakehouse diff raw_market_data_1h before-backtest 2025-12-13T12:00:00Z --limit 0",
    )
)
@click.argument("table")
@click.argument("old")
@click.argument("new")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    metavar="N",
    help="At most N rows of each kind; 0 for all.",
)
@reading_options
@json_option
def diff(
    *,
    table: str,
    old: str,
    new: str,
    limit: int,
    lake: str | None,
    sample: bool,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Show which rows of TABLE were added, restated or removed from OLD to NEW.

    OLD and NEW are each a version, an instant or a snapshot's name. Of a row with several versions, the newest counts.
    """
    from pipelines.cli.differences import show_diff

    show_diff(table, old, new, limit or None, lake, sample=sample, config_file=config_file, as_json=as_json)
