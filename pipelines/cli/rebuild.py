"""`lakehouse rebuild`: make a broken table anew."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import examples, json_option, reading_options


@click.command(
    epilog=examples(
        "lakehouse rebuild raw_market_data_4h --dry-run",
        "lakehouse rebuild raw_market_data_4h --yes",
    )
)
@click.argument("table")
@click.option("--dry-run", is_flag=True, help="Only show what would be fetched again.")
@click.option("--yes", is_flag=True, help="Do not ask before the table is set aside.")
@reading_options
@json_option
@click.option("-q", "--quiet", is_flag=True, help="No progress display.")
@click.pass_context
def rebuild(
    ctx: click.Context,
    *,
    table: str,
    dry_run: bool,
    yes: bool,
    lake: str | None,
    sample: bool,
    config_file: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make TABLE anew: what coverage had promised of it is fetched or built again.

    What is left of the table is not deleted but moved into the lake's folder _set_aside. Run it again to go on
    after an interruption. Older versions of restated bars, and the table's history, are lost.

    Exit codes: 0 all of it is back, 1 some is not, 130 interrupted.
    """
    from pipelines.cli.rebuild_run import run_rebuild, show_rebuild_plan
    from pipelines.config import load_settings

    settings = load_settings(config_file)
    if dry_run:
        show_rebuild_plan(table, settings, lake, sample=sample, as_json=as_json)
    else:
        ctx.exit(run_rebuild(ctx, table, settings, lake, sample=sample, yes=yes, as_json=as_json, quiet=quiet))
