"""`lakehouse agreement`: how far providers agree."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import examples, json_option, listed, reading_options


@click.command(
    epilog=examples(
        "lakehouse agreement",
        "lakehouse agreement --assets BTCUSD --timeframe 1h --tolerance-bp 10",
        "lakehouse agreement --days 7 --json",
    )
)
@listed("--assets", "LIST", "Asset pairs, as BTCUSD,ETHUSD; by default all of the lake.")
@listed("--timeframe", "LIST", "Lengths of bar, as 1m,1d; by default all of the lake.")
@click.option("--days", type=click.IntRange(min=1), help="Look at the last so many days, up to now.")
@click.option("--start", metavar="DATE", help="Look from here on, UTC.")
@click.option("--end", metavar="DATE", help="Look up to here, exclusive, UTC; by default now.")
@click.option(
    "--tolerance-bp",
    type=click.FloatRange(min=0),
    metavar="BP",
    help="By how many basis points two closes may differ; by default quality.tolerance_bp of the settings.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    metavar="N",
    help="At most N bars of each two providers.",
)
@reading_options
@json_option
def agreement(
    *,
    assets: tuple[str, ...],
    timeframe: tuple[str, ...],
    days: int | None,
    start: str | None,
    end: str | None,
    tolerance_bp: float | None,
    limit: int,
    lake: str | None,
    sample: bool,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Compare the bars that two providers have for the same instant.

    The newest versions count. Deviations are in basis points (1 bp = 0.01 %) of the larger price; bars whose closes
    differ by more than the tolerance are listed, worst first. Volume is not compared. Providers may well differ where
    one gives trades and the other quotes: the output says so.

    The result is also kept in the lake's table quality_results.
    """
    from pipelines.cli.comparing import show_agreement
    from pipelines.cli.series_choice import SeriesChoice

    choice = SeriesChoice(assets, timeframe, days, start, end)
    show_agreement(choice, tolerance_bp, limit, lake, sample=sample, config_file=config_file, as_json=as_json)
