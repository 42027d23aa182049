"""`lakehouse agreement`: how far providers agree."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import SeriesOptions, examples, json_option, reading_options, series_options


@click.command(
    epilog=examples(
        "lakehouse agreement",
        "lakehouse agreement --assets BTCUSD --timeframe 1h --tolerance-bp 10",
        "lakehouse agreement --days 7 --json",
    )
)
@series_options
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
    series: SeriesOptions,
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

    choice = SeriesChoice(*series)
    show_agreement(choice, tolerance_bp, limit, lake, sample=sample, config_file=config_file, as_json=as_json)
