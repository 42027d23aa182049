"""`lakehouse gaps`: bars that are missing, why, and fetching them."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import (
    SeriesOptions,
    engine_option,
    engine_override,
    examples,
    json_option,
    reading_options,
    series_options,
)


@click.command(
    epilog=examples(
        "lakehouse gaps",
        "lakehouse gaps --assets EURUSD --timeframe 1m --start 2025-12-01 --end 2026-01-01 --closed",
        "lakehouse gaps --days 30 --repair --dry-run",
        "lakehouse gaps --repair",
    )
)
@series_options
@click.option("--provider", metavar="NAME", help="Count the bars of this one only; with --repair, ask it only.")
@click.option("--closed", is_flag=True, help="Also list when the market was closed.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=20, show_default=True, metavar="N", help="List the N longest runs."
)
@click.option("--repair", is_flag=True, help="Fetch what is missing, down the chain of providers.")
@click.option("--dry-run", is_flag=True, help="With --repair: only show what would be asked of whom.")
@click.option("--again", is_flag=True, help="With --repair: also ask those that have answered before.")
@reading_options
@engine_option
@json_option
@click.option("-q", "--quiet", is_flag=True, help="No progress display.")
@click.pass_context
def gaps(
    ctx: click.Context,
    *,
    series: SeriesOptions,
    provider: str | None,
    closed: bool,
    limit: int,
    repair: bool,
    dry_run: bool,
    again: bool,
    lake: str | None,
    sample: bool,
    engine: str | None,
    config_file: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Show which bars the lake lacks of those its trading calendars expect.

    A bar is missing because it was not fetched, because every provider asked has none, or because it was rejected;
    time when the market is closed is none of these. --repair fetches only what is missing, each bar from the first
    provider that has not answered for it yet.

    Exit codes: 0 nothing is missing, or only what all providers have answered they have not; 1 bars are missing that
    can be fetched, were never asked for, or were rejected; 2 wrong arguments, 130 interrupted.
    """
    from pipelines.cli.failures import WrongArguments
    from pipelines.cli.gap_lines import scope_of, show_gaps
    from pipelines.cli.gap_repair import run_repair, show_repair_plan
    from pipelines.cli.lakes import lake_for_reading
    from pipelines.cli.series_choice import SeriesChoice
    from pipelines.config import load_settings

    if (dry_run or again) and not repair:
        raise WrongArguments(f"{'--dry-run' if dry_run else '--again'} goes with --repair")
    settings = load_settings(config_file, engine_override(engine))
    scope = scope_of(SeriesChoice(*series), provider)
    chosen = lake_for_reading(settings, lake, sample=sample)
    if dry_run:
        code = show_repair_plan(chosen, settings, scope, again=again, as_json=as_json)
    elif repair:
        code = run_repair(ctx, chosen, settings, scope, again=again, as_json=as_json, quiet=quiet)
    else:
        code = show_gaps(chosen, settings, scope, limit, closed=closed, as_json=as_json)
    ctx.exit(code)
