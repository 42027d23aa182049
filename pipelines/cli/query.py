"""`lakehouse query`: SQL over the lake."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import examples, reading_options


@click.command(
    epilog=examples(
        'lakehouse query "select asset_pair, count(*) as bars from raw_market_data_1h group by 1"',
        'lakehouse query "select * from gold.mart_daily_portfolio_summary order by day desc" --limit 7',
        'lakehouse query "select * from raw_market_data_1d" --as-of 2025-12-13 --format csv > daily.csv',
    )
)
@click.argument("sql")
@click.option("--as-of", metavar="TIME", help="See the tables as they were then, as 2025-12-13T12:00:00Z.")
@click.option("--version", type=click.IntRange(min=0), metavar="N", help="See that version of the table.")
@click.option("--snapshot", metavar="NAME", help="See the tables as that snapshot of the lake pins them.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="How rows are printed.",
)
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="At most N rows; 0 for all. A table shows 50.")
@reading_options
def query(
    *,
    sql: str,
    as_of: str | None,
    version: int | None,
    snapshot: str | None,
    form: str,
    limit: int | None,
    lake: str | None,
    sample: bool,
    config_file: Path | None,
) -> None:
    """Run one SELECT over the lake's tables.

    `lakehouse status` names the tables; those of silver and gold go by their layer, as gold.mart_trading_performance.
    Answers need no Spark; only the rows go to stdout. Give at most one of --as-of, --version and --snapshot.
    """
    from pipelines.cli.answers import show_answer

    when = {"as_of_timestamp": as_of, "version": version, "snapshot": snapshot}
    show_answer(sql, when, form, limit, lake, sample=sample, config_file=config_file)
