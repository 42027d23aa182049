"""`lakehouse transform` and `lakehouse dbt`: silver and gold out of bronze."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import examples, json_option, reading_options
from pipelines.cli.pushing import pushing


@click.command(
    epilog=examples(
        "lakehouse transform",
        "lakehouse transform --dry-run",
        "lakehouse transform --select market_data_enriched",
        "lakehouse transform --as-of 2025-12-13",
        "lakehouse transform --snapshot before-backtest --json",
    )
)
@click.option(
    "--select", multiple=True, metavar="MODELS", help="Only these models, in dbt's words, and what they are made from."
)
@click.option("--full-refresh", is_flag=True, help="Make whole tables anew, not only what has changed.")
@click.option("--as-of", metavar="TIME", help="From bronze as it was then, into schemas of its own.")
@click.option("--snapshot", metavar="NAME", help="From bronze as a snapshot pins it, into schemas of its own.")
@click.option("--vars", "variables", metavar="YAML", help="dbt variables, as '{risk_free_rate: 0.04}'.")
@click.option("--dry-run", is_flag=True, help="Say what would be made anew, and why; starts no Spark.")
@reading_options
@json_option
@pushing("transform")
def transform(
    *,
    select: tuple[str, ...],
    full_refresh: bool,
    as_of: str | None,
    snapshot: str | None,
    variables: str | None,
    dry_run: bool,
    lake: str | None,
    sample: bool,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Bring silver and gold up to date with bronze, and test them.

    Only what has changed in bronze since the last run is made anew: bars from the first changed one of each series on.
    A second run without changes starts no Spark. A run that was killed is made good by the next.
    """
    from pipelines.cli.transforming import Wanted, run_transform

    wanted = Wanted(select, full_refresh, as_of, snapshot, variables, dry_run)
    run_transform(wanted, lake, sample=sample, config_file=config_file, as_json=as_json)


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog=examples(
        "lakehouse dbt build --select silver",
        "lakehouse dbt test --select market_data_enriched",
        "lakehouse dbt docs generate --static",
        "lakehouse dbt --lake data/sample_lake show --select mart_daily_portfolio_summary",
    ),
)
@reading_options
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="ARGS...")
def dbt(*, arguments: tuple[str, ...], lake: str | None, sample: bool, config_file: Path | None) -> None:
    """Run any dbt command on the lake, in the lakehouse's own Spark session.

    ARGS are dbt's own command and options; `lakehouse dbt build --help` shows dbt's help, `lakehouse dbt` all commands.
    The options below come before them. The settings of the section transform are dbt's variables; --vars wins.
    """
    from pipelines.cli.transforming import run_dbt_command

    run_dbt_command(arguments, lake, sample=sample, config_file=config_file)
