"""`lakehouse topics`: the Kafka topics that the lake reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import click

from pipelines.cli.lazy import LazyGroup
from pipelines.cli.options import config_option, examples, json_option, verbose_option

_F = TypeVar("_F", bound=Callable[..., Any])


class TopicsCommands(LazyGroup):
    """The commands, in the order of `lakehouse topics --help`."""

    commands_at: ClassVar[Mapping[str, str]] = {
        "create": "pipelines.cli.topics:create",
        "list": "pipelines.cli.topics:list_all",
    }


@click.group(
    cls=TopicsCommands,
    epilog=examples("lakehouse topics create --dry-run", "lakehouse topics create", "lakehouse topics list"),
)
def topics() -> None:
    """Make the Kafka topics of the settings, and look at them.

    Which topics there are, of which dataset and how written, is in `streaming.topics` of the settings; where the
    brokers are, in `streaming.bootstrap_servers`.
    """


def _broker_options(command: _F) -> _F:
    """Add --config, -v and --json: the brokers are where the settings say."""
    for option in (json_option, verbose_option, config_option):
        command = option(command)
    return command


@click.command(epilog=examples("lakehouse topics create --dry-run", "lakehouse topics create crypto_ticks"))
@click.argument("topics", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Say what would be created; change nothing.")
@_broker_options
def create(*, topics: tuple[str, ...], dry_run: bool, config_file: Path | None, as_json: bool) -> None:
    """Create TOPICS of the settings on the broker, by default all, and the one for dead letters.

    It is safe to run again: a topic that is there keeps what it holds. One with fewer partitions than the settings ask
    for gets more; what else differs is told and left as it is.
    """
    from pipelines.cli.topics_on_broker import create_and_show

    create_and_show(topics, dry_run=dry_run, config_file=config_file, as_json=as_json)


@click.command("list", epilog=examples("lakehouse topics list", "lakehouse topics list --json"))
@_broker_options
def list_all(*, config_file: Path | None, as_json: bool) -> None:
    """Show the topics of the settings: what they hold, and whether the broker has them as the settings say."""
    from pipelines.cli.topics_on_broker import show_topics

    show_topics(config_file, as_json=as_json)
