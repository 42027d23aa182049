"""`lakehouse stream run`: topics to bronze in micro-batches."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import config_option, examples, json_option, listed, verbose_option


@click.command(
    epilog=examples(
        "lakehouse stream run --topics crypto_ticks",
        "lakehouse stream run --topics crypto_ticks,news.sentiment --available-now",
        "lakehouse stream run --topics crypto_ticks --sample   (what `stream produce --source sample` makes up)",
    )
)
@listed(
    "--topics", "LIST", "Topics, as crypto_ticks,news.sentiment; by default all of the settings that the broker has."
)
@click.option("--available-now", is_flag=True, help="Read what is there, and end.")
@click.option("--once", is_flag=True, help="Read one micro-batch of each topic, and end.")
@click.option("--lake", metavar="PATH", help="The lake: a folder or an s3:// address.")
@click.option("--sample", is_flag=True, help="Take synthetic ticks, into the lake of synthetic sample data.")
@config_option
@verbose_option
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    *,
    topics: tuple[str, ...],
    available_now: bool,
    once: bool,
    lake: str | None,
    sample: bool,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Land Kafka's messages in bronze, each exactly once, and build live bars of ticks, until it is stopped.

    It goes on where the lake's tables stand, whatever became of the run before. Ctrl-C or SIGTERM finishes the batch
    under way and ends it. What is refused goes to the dead letter queue; `lakehouse stream status` says how it does.
    """
    from pipelines.cli.streaming import Wanted, run_streams

    run_streams(ctx, Wanted(topics, available_now, once), lake, sample=sample, config_file=config_file, as_json=as_json)
