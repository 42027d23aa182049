"""`lakehouse cost`: what a month costs on AWS."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import examples, json_option, reading_options


@click.command(
    epilog=examples(
        "lakehouse cost --sample",
        "lakehouse cost --lake s3://bucket/lake --json",
    )
)
@reading_options
@json_option
def cost(*, lake: str | None, sample: bool, config_file: Path | None, as_json: bool) -> None:
    """Show what the lake and the platform around it cost a month on AWS.

    Storage is measured: data files by age, logs, old versions. All else is what `costs.usage` of the settings says; the
    prices are in `costs.prices`. Below it, what a year of ten assets would take in each layer, at the bytes per row and
    over the time span that the lake has now.
    """
    from pipelines.cli.cost_lines import show_costs

    show_costs(lake, sample=sample, config_file=config_file, as_json=as_json)
