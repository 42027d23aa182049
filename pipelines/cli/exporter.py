"""`lakehouse exporter`: the lake as Prometheus metrics."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import examples, reading_options


@click.command(
    epilog=examples(
        "lakehouse exporter",
        "lakehouse exporter --sample --once",
        "lakehouse exporter --host 0.0.0.0 --port 9500",
    )
)
@click.option("--once", is_flag=True, help="Look once, print the metrics and end.")
@click.option("--host", metavar="ADDRESS", help="Where to listen; monitoring.host of the settings by default.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    help="On which port; monitoring.exporter_port by default, 0 for a free one.",
)
@reading_options
@click.pass_context
def exporter(
    ctx: click.Context,
    *,
    once: bool,
    host: str | None,
    port: int | None,
    lake: str | None,
    sample: bool,
    config_file: Path | None,
) -> None:
    """Serve what the lake, its dead letters and Airflow tell, as metrics for Prometheus.

    The lake is looked at every monitoring.refresh_seconds, without a JVM; a scrape shows the last look. A lake that is
    not there yet is waited for. Ctrl-C or SIGTERM ends it.

    Exit codes: 0 all is well, 1 with --once something could not be looked at, 2 wrong arguments or settings.
    """
    from pipelines.cli.exporting import print_once, serve

    if once:
        ctx.exit(print_once(lake, sample=sample, config_file=config_file))
    serve(lake, host, port, sample=sample, config_file=config_file)
