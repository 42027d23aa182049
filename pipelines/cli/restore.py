"""`lakehouse restore`: bring a table back to an earlier version."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import examples, json_option, reading_options


@click.command(
    epilog=examples(
        "lakehouse restore raw_market_data_1h --version 12 --dry-run",
        "lakehouse restore raw_market_data_1h --version 12",
        "lakehouse restore raw_market_data_1h --as-of 2025-12-13T06:00Z",
        "lakehouse restore raw_market_data_1h --snapshot month-end",
    )
)
@click.argument("table")
@click.option("--version", type=click.IntRange(min=0), metavar="N", help="A version that `lakehouse history` shows.")
@click.option("--as-of", metavar="TIME", help="The newest version committed at or before then.")
@click.option("--snapshot", metavar="NAME", help="The version that a snapshot of the lake holds.")
@click.option("--force", is_flag=True, help="Even without the files of that version that a vacuum has removed.")
@click.option("--dry-run", is_flag=True, help="Only show what would be removed and brought back.")
@reading_options
@json_option
def restore(
    *,
    table: str,
    version: int | None,
    as_of: str | None,
    snapshot: str | None,
    force: bool,
    dry_run: bool,
    lake: str | None,
    sample: bool,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Bring TABLE back to an earlier version.

    That is a new commit, so it can be undone in the same way. What was covered since is forgotten, so that
    the next backfill fetches what is missing now.
    """
    from pipelines.cli.restored import show_restore

    show_restore(
        table, (version, as_of, snapshot), lake, sample=sample, config_file=config_file,
        force=force, dry_run=dry_run, as_json=as_json,
    )  # fmt: skip
