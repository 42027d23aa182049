"""`lakehouse validate`: tables against the suites of their contracts."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import examples, json_option, listed, reading_options
from pipelines.cli.pushing import pushing


@click.command(
    epilog=examples(
        "lakehouse validate",
        "lakehouse validate raw_market_data_1m --assets BTCUSD --days 7",
        "lakehouse validate --live --no-docs --json",
    )
)
@click.argument("tables", nargs=-1, metavar="[TABLE]...")
@listed("--assets", "PAIRS", "Only these assets, as BTCUSD,EURUSD.")
@click.option("--start", metavar="TIME", help="From this event time on, as 2025-12-07.")
@click.option("--end", metavar="TIME", help="Up to this event time, which is left out.")
@click.option("--days", type=click.IntRange(min=1), metavar="N", help="The last N x 24 hours.")
@click.option(
    "--live", is_flag=True, help="Check as well that the newest rows are there, as soon as the contract says."
)
@click.option("--docs/--no-docs", default=True, show_default=True, help="Build Data Docs, pages to read and share.")
@reading_options
@json_option
@pushing("validate")
def validate(
    *,
    tables: tuple[str, ...],
    assets: tuple[str, ...],
    start: str | None,
    end: str | None,
    days: int | None,
    live: bool,
    docs: bool,
    lake: str | None,
    sample: bool,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Check tables against their contracts: all of the lake's, or each TABLE.

    Each table is one checkpoint of Great Expectations in the folder quality.path. Rows that break an error check go to
    the dead letter queue as copies; the lake stays as it is. Each check's result is recorded in quality_results. A
    warning does not fail a table; exit code 1 says that an error check did.
    """
    from pipelines.cli.validation import Wanted, show_validation

    wanted = Wanted(tables, assets, start, end, days, live=live, docs=docs)
    show_validation(wanted, lake, sample=sample, config_file=config_file, as_json=as_json)
