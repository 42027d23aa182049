"""`lakehouse snapshot`: names for the state of the whole lake."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import click

from pipelines.cli.lazy import LazyGroup
from pipelines.cli.options import examples, json_option, reading_options


class SnapshotCommands(LazyGroup):
    """The commands, in the order of `lakehouse snapshot --help`."""

    commands_at: ClassVar[Mapping[str, str]] = {
        "create": "pipelines.cli.snapshot:create",
        "list": "pipelines.cli.snapshot:list_all",
        "show": "pipelines.cli.snapshot:show",
        "delete": "pipelines.cli.snapshot:delete",
    }


@click.group(
    cls=SnapshotCommands,
    epilog=examples(
        'lakehouse snapshot create before-backtest --note "training set of run 12"',
        'lakehouse query "select count(*) from raw_market_data_1h" --snapshot before-backtest',
        "lakehouse snapshot list",
        "lakehouse snapshot delete before-backtest --yes",
    ),
)
def snapshot() -> None:
    """Pin the version of every table under a name, to be read again later.

    No vacuum or log clean-up of the lakehouse removes what a snapshot needs; deleting the snapshot gives it free.
    """


@click.command(epilog=examples('lakehouse snapshot create before-backtest --note "training set of run 12"'))
@click.argument("name")
@click.option("--note", metavar="TEXT", help="What it is for; kept with it.")
@reading_options
@json_option
def create(
    *, name: str, note: str | None, lake: str | None, sample: bool, config_file: Path | None, as_json: bool
) -> None:
    """Make a snapshot NAME of the lake as it is now.

    It copies nothing. A name is of lower-case letters, digits, _, . and -.
    """
    from pipelines.cli.snapshots import create_snapshot

    create_snapshot(name, note, lake, sample=sample, config_file=config_file, as_json=as_json)


@click.command("list", epilog=examples("lakehouse snapshot list --json"))
@reading_options
@json_option
def list_all(*, lake: str | None, sample: bool, config_file: Path | None, as_json: bool) -> None:
    """Show the lake's snapshots, oldest first."""
    from pipelines.cli.snapshots import show_snapshots

    show_snapshots(lake, sample=sample, config_file=config_file, as_json=as_json)


@click.command(epilog=examples("lakehouse snapshot show before-backtest"))
@click.argument("name")
@reading_options
@json_option
def show(*, name: str, lake: str | None, sample: bool, config_file: Path | None, as_json: bool) -> None:
    """Show the versions that the snapshot NAME pins."""
    from pipelines.cli.snapshots import show_snapshot

    show_snapshot(name, lake, sample=sample, config_file=config_file, as_json=as_json)


@click.command(epilog=examples("lakehouse snapshot delete before-backtest --yes"))
@click.argument("name")
@click.option("--yes", is_flag=True, help="Delete it; without this, it is only shown what would go.")
@reading_options
@json_option
def delete(*, name: str, yes: bool, lake: str | None, sample: bool, config_file: Path | None, as_json: bool) -> None:
    """Delete the snapshot NAME; the next vacuum and log clean-up may remove what only it needed."""
    from pipelines.cli.snapshots import delete_snapshot

    delete_snapshot(name, lake, yes=yes, sample=sample, config_file=config_file, as_json=as_json)
