"""`lakehouse load`: bars and records from files."""

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
        "lakehouse load btc_1m.csv --asset BTCUSD --timeframe 1m --tz UTC",
        "lakehouse load 'bars/*.parquet' --timeframe 1h   (the asset is a column)",
        "lakehouse load eth.csv --asset ETHBTC --timeframe 5m --map timestamp=date,volume=vol_quote",
        "lakehouse load decisions.jsonl --dataset raw_ai_decisions --dry-run",
    )
)
@click.argument("path")
@click.option(
    "--asset", metavar="PAIR", help="Whose rows they are; else a column asset_pair, symbol or ticker says so."
)
@click.option("--timeframe", metavar="T", help="The bars' length: 1m, 5m, 15m, 1h, 4h or 1d.")
@listed("--map", "COLUMN=FILE_COLUMN,…", "Names that differ; date, time, o, h, l, c, v and the like are known.")
@click.option(
    "--tz", metavar="ZONE", help="Of times that carry none, as UTC or Europe/London; without it they are refused."
)
@click.option("--dataset", default="raw_market_data", show_default=True, metavar="ID", help="A data contract's id.")
@click.option(
    "--price-side",
    type=click.Choice(["trade", "bid", "ask", "mid"]),
    default="trade",
    show_default=True,
    help="What the bars' prices are.",
)
@click.option("--adjusted", is_flag=True, help="The prices are adjusted for splits and dividends.")
@click.option("--dry-run", is_flag=True, help="Read and check everything, write nothing.")
@click.option("--lake", metavar="PATH", help="Another lake: a folder or an s3:// address.")
@engine_option
@config_option
@json_option
@click.option("-q", "--quiet", is_flag=True, help="No progress display.")
@verbose_option
@click.pass_context
@pushing("load")
def load(
    ctx: click.Context,
    *,
    path: str,
    asset: str | None,
    timeframe: str | None,
    map: tuple[str, ...],  # noqa: A002 - the option's name
    tz: str | None,
    dataset: str,
    price_side: str,
    adjusted: bool,
    dry_run: bool,
    lake: str | None,
    engine: str | None,
    config_file: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Load bars or records from files.

    PATH is a file, a folder, or a quoted pattern.

    CSV, Parquet, JSON lines and JSON arrays, also packed with gzip. A row that breaks its contract goes to the dead
    letter queue with the reason; if more than 5 % of a batch does, the whole batch is refused. Rows that are there
    already are not repeated, so the same command may be run again.

    Exit codes: 0 all loaded, 1 a file could not be read or a batch was refused, 2 wrong arguments, 130 interrupted.
    """
    from pipelines.cli.loading import FileArguments, run_load, show_preview
    from pipelines.config import load_settings

    settings = load_settings(config_file, engine_override(engine))
    arguments = FileArguments(path, asset, timeframe, map, tz, dataset)
    if dry_run:
        ctx.exit(show_preview(arguments, settings, as_json=as_json))
    code = run_load(
        ctx, arguments, settings, lake, price_side=price_side, adjusted=adjusted, as_json=as_json, quiet=quiet
    )
    ctx.exit(code)
