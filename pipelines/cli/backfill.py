"""`lakehouse backfill`: fetch what a range lacks and land it."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import (
    config_option,
    engine_option,
    engine_override,
    examples,
    json_option,
    listed,
    verbose_option,
)
from pipelines.cli.pushing import pushing


@click.command(
    epilog=examples(
        "lakehouse backfill --provider sample --assets BTCUSD,ETHUSD --days 7",
        "lakehouse backfill --assets BTCUSD --start 2025-12-07 --end 2025-12-14 --timeframes 1h,1d",
        "lakehouse backfill --assets EURUSD --days 30 --dry-run",
        "lakehouse backfill --dataset macro_indicators --assets DGS10 --start 2020-01-01",
    )
)
@listed("--assets", "A,B,…", "Asset pairs, as BTCUSD,ETHUSD; for other datasets their subjects.", required=True)
@click.option(
    "--days",
    type=click.IntRange(1, 36_500),
    metavar="N",
    help="The last N x 24 hours, both ends cut to whole bars.",
)
@click.option(
    "--start", metavar="TIME", help="First bar open, as 2025-12-07 or 2025-12-07T14:30Z; a bare date is 00:00 UTC."
)
@click.option("--end", metavar="TIME", help="End of the range, exclusive; now by default.")
@listed("--timeframes", "T,…", "Of 1m,5m,15m,1h,4h,1d; all six by default.")
@click.option(
    "--provider",
    metavar="NAME",
    help="Ask only this one: alpha_vantage, coinbase, oanda, yfinance, fred, or sample (offline, made up). "
    "By default the chain of the settings is asked in order.",
)
@click.option("--dataset", default="raw_market_data", show_default=True, metavar="ID", help="A data contract's id.")
@click.option("--force", is_flag=True, help="Fetch the whole range again; changed bars land as restatements.")
@click.option(
    "--dry-run", is_flag=True, help="Only show the plan: what is missing, requests, minutes at the rate limit."
)
@click.option("--lake", metavar="PATH", help="Another lake: a folder or an s3:// address.")
@engine_option
@config_option
@json_option
@click.option("-q", "--quiet", is_flag=True, help="No progress display.")
@verbose_option
@click.pass_context
@pushing("backfill")
def backfill(
    ctx: click.Context,
    *,
    assets: tuple[str, ...],
    days: int | None,
    start: str | None,
    end: str | None,
    timeframes: tuple[str, ...],
    provider: str | None,
    dataset: str,
    force: bool,
    dry_run: bool,
    lake: str | None,
    engine: str | None,
    config_file: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Fetch the bars a range lacks and land them in the lake.

    Only what is not covered yet is fetched, so the same command may be run again at any time, also after it was
    killed. Bars of the sample provider are SYNTHETIC and land in a lake of their own.

    Exit codes: 0 all done, 1 some windows failed, 2 wrong arguments, 130 interrupted.
    """
    from pipelines.cli.request import Request
    from pipelines.cli.running import run_backfill, show_plan
    from pipelines.config import load_settings

    settings = load_settings(config_file, engine_override(engine))
    request = Request(assets, timeframes, days, start, end, provider, dataset, force)
    if dry_run:
        show_plan(request, settings, lake, as_json=as_json)
    else:
        ctx.exit(run_backfill(ctx, request, settings, lake, as_json=as_json, quiet=quiet))
