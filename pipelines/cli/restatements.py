"""`lakehouse restatements`: bars that providers changed."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import SeriesOptions, examples, json_option, reading_options, series_options


@click.command(
    epilog=examples(
        "lakehouse restatements",
        "lakehouse restatements --assets BTCUSD --timeframe 1d --start 2025-12-01 --limit 0 --json",
    )
)
@series_options
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    metavar="N",
    help="At most N changes; 0 for all.",
)
@reading_options
@json_option
def restatements(
    *,
    series: SeriesOptions,
    limit: int,
    lake: str | None,
    sample: bool,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Show bars that have more than one version, before and after, the latest change first.

    Nothing is overwritten in the lake: both versions are there, each with the instant it became known. Totals by series
    count all changes, listed or not.
    """
    from pipelines.cli.comparing import show_restatements
    from pipelines.cli.series_choice import SeriesChoice

    choice = SeriesChoice(*series)
    show_restatements(choice, limit or None, lake, sample=sample, config_file=config_file, as_json=as_json)
