"""`lakehouse quality`: the quality report."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import SeriesOptions, examples, json_option, reading_options, series_options


@click.command(
    epilog=examples(
        "lakehouse quality",
        "lakehouse quality --assets BTCUSD --days 7 --output btc.html",
        "lakehouse quality --sample --json",
    )
)
@series_options
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write the page; by default quality_report.html in the folder quality.path.",
)
@json_option
@reading_options
def quality(
    *,
    series: SeriesOptions,
    output: Path | None,
    lake: str | None,
    sample: bool,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Write the quality report: one HTML page that needs nothing else.

    It tells completeness by asset and day, gaps, freshness, refused rows, restated bars, how far providers agree, and
    which checks failed last. Without --days or --start it looks at the newest 30 days that the lake knows of.

    How fresh each series is is kept in quality_results; nothing else of the lake is changed. With --json the same goes
    to stdout, and no page is written unless --output says where.
    """
    from pipelines.cli.reporting import show_quality
    from pipelines.cli.series_choice import SeriesChoice

    choice = SeriesChoice(*series)
    show_quality(choice, output, lake, sample=sample, config_file=config_file, as_json=as_json)
