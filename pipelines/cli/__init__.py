"""The `lakehouse` command: every job of the house from a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import click

from pipelines.cli.lazy import LazyGroup
from pipelines.cli.options import examples


class Lakehouse(LazyGroup):
    """The commands, in the order of `lakehouse --help`."""

    commands_at: ClassVar[Mapping[str, str]] = {
        "backfill": "pipelines.cli.backfill:backfill",
        "load": "pipelines.cli.load:load",
        "topics": "pipelines.cli.topics:topics",
        "stream": "pipelines.cli.stream:stream",
        "status": "pipelines.cli.status:status",
        "gaps": "pipelines.cli.gaps:gaps",
        "history": "pipelines.cli.history:history",
        "query": "pipelines.cli.query:query",
        "diff": "pipelines.cli.diff:diff",
        "dlq": "pipelines.cli.dlq:dlq",
        "agreement": "pipelines.cli.agreement:agreement",
        "restatements": "pipelines.cli.restatements:restatements",
        "snapshot": "pipelines.cli.snapshot:snapshot",
        "validate": "pipelines.cli.validate:validate",
        "quality": "pipelines.cli.quality:quality",
        "transform": "pipelines.cli.transform:transform",
        "dbt": "pipelines.cli.transform:dbt",
        "maintain": "pipelines.cli.maintain:maintain",
        "restore": "pipelines.cli.restore:restore",
        "fsck": "pipelines.cli.fsck:fsck",
        "rebuild": "pipelines.cli.rebuild:rebuild",
        "exporter": "pipelines.cli.exporter:exporter",
        "lifecycle": "pipelines.cli.lifecycle:lifecycle",
        "cost": "pipelines.cli.cost:cost",
        "doctor": "pipelines.cli.doctor:doctor",
        "config": "pipelines.cli.config:config",
    }


@click.group(
    cls=Lakehouse,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=examples(
        "lakehouse backfill --provider sample --assets BTCUSD,ETHUSD --days 7   (offline, synthetic)",
        "lakehouse backfill --assets BTCUSD,ETHUSD --days 7",
        "lakehouse status",
        "lakehouse transform",
    ),
)
@click.version_option(package_name="finance-lakehouse", prog_name="lakehouse")
def main() -> None:
    """Market data into a Delta Lake, and answers out of it.

    Exit codes: 0 all done, 1 some of it failed, 2 wrong arguments or settings, 130 interrupted.
    """
