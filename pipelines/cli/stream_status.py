"""`lakehouse stream status`: how the streams are getting on."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import examples, json_option, listed, reading_options


@click.command(
    epilog=examples(
        "lakehouse stream status",
        "lakehouse stream status --topics crypto_ticks --watch",
        "lakehouse stream status --json",
    )
)
@listed("--topics", "LIST", "Topics, as crypto_ticks,bonds_data; by default all that have been streamed.")
@click.option("--watch", is_flag=True, help="Show it anew every few seconds, until Ctrl-C.")
@reading_options
@json_option
@click.pass_context
def status(
    ctx: click.Context,
    *,
    topics: tuple[str, ...],
    watch: bool,
    lake: str | None,
    sample: bool,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Show each stream's state, lag, speed and watermark.

    Lag is what the broker holds now and the lake does not. A stream is stale if its last batch is long ago though there
    is more to read. Dead letters are counted since the stream's start.

    Exit codes: 0 all is well, or merely stopped or stale; 1 a stream has failed, or messages expired before they were
    read; 2 wrong arguments.
    """
    from pipelines.cli.failures import WrongArguments
    from pipelines.cli.stream_states import show_streams, watch_streams

    if watch and as_json:
        raise WrongArguments("--json prints one document: give it without --watch")
    shown = watch_streams if watch else show_streams
    ctx.exit(shown(lake, topics, sample=sample, config_file=config_file, as_json=as_json))
