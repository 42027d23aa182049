"""`lakehouse fsck`: check tables against what is on disk."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import examples, json_option, reading_options


@click.command(
    epilog=examples(
        "lakehouse fsck",
        "lakehouse fsck raw_market_data_1h --deep",
        "lakehouse fsck raw_market_data_1h --repair",
    )
)
@click.argument("tables", nargs=-1, metavar="[TABLE]...")
@click.option("--deep", is_flag=True, help="Open every data file, and compare its rows with the log's.")
@click.option("--repair", is_flag=True, help="Mend what can be mended safely, and say what was done.")
@reading_options
@json_option
@click.pass_context
def fsck(
    ctx: click.Context,
    *,
    tables: tuple[str, ...],
    deep: bool,
    repair: bool,
    lake: str | None,
    sample: bool,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Check each TABLE, by default all, for lost or damaged files, a cut-off log and missing checkpoints.

    Each finding comes with the command that mends it. Nothing is changed without --repair.

    Exit codes: 0 nothing found or all of it mended, 1 something is left to be done.
    """
    from pipelines.cli.fsck_lines import show_fsck

    found = show_fsck(
        tables, lake, sample=sample, config_file=config_file, deep=deep, repair=repair, as_json=as_json
    )  # fmt: skip
    ctx.exit(1 if found else 0)
