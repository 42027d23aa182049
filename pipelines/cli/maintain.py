"""`lakehouse maintain`: compact, vacuum and clean what needs it."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import engine_option, examples, json_option, reading_options
from pipelines.cli.pushing import pushing


@click.command(
    epilog=examples(
        "lakehouse maintain --dry-run",
        "lakehouse maintain",
        "lakehouse maintain raw_market_data_1m --engine embedded",
    )
)
@click.argument("tables", nargs=-1, metavar="[TABLE]...")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@engine_option
@reading_options
@json_option
@pushing("maintain")
def maintain(
    *,
    tables: tuple[str, ...],
    dry_run: bool,
    engine: str | None,
    lake: str | None,
    sample: bool,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Keep tables fast and small: all of them, or each TABLE.

    Partitions in which small files pile up are compacted, files and log entries that no kept version needs are removed.
    What snapshots of the lake pin is kept. Rows stay as they are, and a second run finds nothing to do.
    """
    from pipelines.cli.upkeep import show_maintenance

    show_maintenance(
        tables, lake, sample=sample, config_file=config_file, engine=engine, dry_run=dry_run, as_json=as_json
    )
