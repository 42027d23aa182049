"""`lakehouse lifecycle`: cheaper storage classes in S3 for data files as they age."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import examples, json_option, reading_options


@click.command(
    epilog=examples(
        "lakehouse lifecycle --lake s3://bucket/lake",
        "lakehouse lifecycle --lake s3://bucket/lake --apply",
    )
)
@click.option("--apply", is_flag=True, help="Set the rules; without it they are only shown.")
@reading_options
@json_option
def lifecycle(*, apply: bool, lake: str | None, sample: bool, config_file: Path | None, as_json: bool) -> None:
    """Show or set the lifecycle rules of a lake in S3.

    Data files become warm and then cold by their age, as `storage.lifecycle` says: by default STANDARD_IA after 30
    days and GLACIER_IR, which is read at once, after 90. A table's log is never touched, nor is a rule of others.
    """
    from pipelines.cli.lifecycle_rules import show_lifecycle

    show_lifecycle(lake, apply=apply, sample=sample, config_file=config_file, as_json=as_json)
