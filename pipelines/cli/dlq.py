"""`lakehouse dlq`: refused rows, why they were refused, and their way back into the lake."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import click

from pipelines.cli.lazy import LazyGroup
from pipelines.cli.options import config_option, engine_option, examples, json_option, reading_options, verbose_option

if TYPE_CHECKING:
    from pipelines.cli.dlq_files import Filters

_F = TypeVar("_F", bound=Callable[..., Any])


class DlqCommands(LazyGroup):
    """The commands, in the order of `lakehouse dlq --help`."""

    commands_at: ClassVar[Mapping[str, str]] = {
        "list": "pipelines.cli.dlq:list_all",
        "show": "pipelines.cli.dlq:show",
        "stats": "pipelines.cli.dlq:stats",
        "replay": "pipelines.cli.dlq:replay",
    }


@click.group(
    cls=DlqCommands,
    epilog=examples(
        "lakehouse dlq stats",
        "lakehouse dlq list --asset BTCUSD",
        "lakehouse dlq show 3fa9c21b --limit 5",
        "lakehouse dlq replay --all --dry-run",
    ),
)
def dlq() -> None:
    """Look at the dead letter queue, and replay what is sound by now.

    The queue holds the rows that broke their contract, as JSON files with the reason of each row.
    """


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    """Add --dataset, --asset, --provider and --reason; the command takes them together, as `wanted`."""

    @wraps(command)
    def together(
        *args: object,
        dataset: str | None,
        asset: str | None,
        provider: str | None,
        reason: str | None,
        **others: object,
    ) -> None:
        command(*args, wanted=(dataset, asset, provider, reason), **others)

    for option in (
        click.option("--reason", metavar="TEXT", help="Rows whose reason has this in it, as 'high < low'."),
        click.option("--provider", metavar="NAME", help="Rows of that provider."),
        click.option("--asset", metavar="PAIR", help="Rows of that asset pair."),
        click.option("--dataset", metavar="ID", help="Rows of that dataset: a data contract's id."),
    ):
        together = option(together)
    return together


def _queue_options(command: _F) -> _F:
    """Add --config, -v and --json: the queue is where the settings say, whichever the lake."""
    for option in (json_option, verbose_option, config_option):
        command = option(command)
    return command


@click.command("list", epilog=examples("lakehouse dlq list", "lakehouse dlq list --provider coinbase --json"))
@_filters
@_queue_options
@click.pass_context
def list_all(
    ctx: click.Context,
    *,
    wanted: Filters,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Show the queue's files, oldest first: when, of what, how many rows, and the first reason.

    With a filter, only the rows that meet it are counted, and files without any are left out. Exit code 1 if a file
    cannot be read.
    """
    from pipelines.cli.dlq_files import list_files

    ctx.exit(list_files(wanted, config_file, as_json=as_json))


@click.command(
    epilog=examples("lakehouse dlq show 3fa9c21b --limit 5", "lakehouse dlq show FILE.json --limit 0 --json")
)
@click.argument("file")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    metavar="N",
    help="At most N rows; 0 for all.",
)
@_filters
@_queue_options
def show(
    *,
    file: str,
    limit: int,
    wanted: Filters,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Show the rows of FILE, each with its reason.

    FILE is a path, a file's name in the queue, or the beginning of an id that `lakehouse dlq list` shows.
    """
    from pipelines.cli.dlq_files import show_file

    show_file(file, limit or None, wanted, config_file, as_json=as_json)


@click.command(epilog=examples("lakehouse dlq stats", "lakehouse dlq stats --asset BTCUSD --json"))
@_filters
@_queue_options
@click.pass_context
def stats(
    ctx: click.Context,
    *,
    wanted: Filters,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Count the queue's rows by reason, and by dataset and asset.

    A row with several reasons counts for each. Exit code 1 if a file cannot be read.
    """
    from pipelines.cli.dlq_files import show_statistics

    ctx.exit(show_statistics(wanted, config_file, as_json=as_json))


@click.command(
    epilog=examples(
        "lakehouse dlq replay --all --dry-run",
        "lakehouse dlq replay 3fa9c21b",
        "lakehouse dlq replay --all --asset BTCUSD --engine embedded",
    )
)
@click.argument("files", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every file of the queue.")
@_filters
@click.option("--dry-run", is_flag=True, help="Check the rows and compare them with the lake; write and move nothing.")
@engine_option
@reading_options
@json_option
@click.option("-q", "--quiet", is_flag=True, help="No progress display.")
@click.pass_context
def replay(
    ctx: click.Context,
    *,
    files: tuple[str, ...],
    everything: bool,
    wanted: Filters,
    dry_run: bool,
    engine: str | None,
    lake: str | None,
    sample: bool,
    config_file: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run the rows of FILES through their contract as it is now.

    Rows that are good land once, however often this is killed and repeated; a row that the lake has a newer version of
    does not. What is refused still goes to a new file, and the old one then to the queue's folder archive. A filter
    chooses files: those with at least one such row, which are replayed whole.

    Without --lake and --sample, rows of the sample provider go to the sample lake and all others to the configured one.

    Exit codes: 0 all files replayed, 1 some could not be.
    """
    from pipelines.cli.dlq_replay import ReplayRequest, run_replay

    request = ReplayRequest(files, everything, wanted, dry_run)
    ctx.exit(run_replay(request, engine, lake, sample=sample, config_file=config_file, as_json=as_json, quiet=quiet))
