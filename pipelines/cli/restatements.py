"""`lakehouse restatements`: bars that providers changed."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import examples, json_option, listed, reading_options


@click.command(
    epilog=examples(
        "lakehouse restatements",
        "lakehouse restatements --assets BTCUSD --timeframe 1d --start 2025-12-01 --limit 0 --json",
    )
)
@listed("--assets", "LIST", "Asset pairs, as BTCUSD,ETHUSD; by default all of the lake.")
@listed("--timeframe", "LIST", "Lengths of bar, as 1m,1d; by default all of the lake.")
@click.option("--days", type=click.IntRange(min=1), help="Bars of the last so many days, up to now.")
@click.option("--start", metavar="DATE", help="Bars that open from here on, UTC.")
@click.option("--end", metavar="DATE", help="Bars that open before this, UTC; by default now.")
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
    assets: tuple[str, ...],
    timeframe: tuple[str, ...],
    days: int | None,
    start: str | None,
    end: str | None,
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

    choice = SeriesChoice(assets, timeframe, days, start, end)
    show_restatements(choice, limit or None, lake, sample=sample, config_file=config_file, as_json=as_json)
