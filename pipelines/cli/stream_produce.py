"""`lakehouse stream produce`: play what is known to a topic, or feed it from the providers."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.options import examples, json_option, listed, reading_options


@click.command(
    epilog=examples(
        "lakehouse stream produce --topic crypto_ticks --source sample --assets BTCUSD,ETHUSD --shift-to-now",
        "lakehouse stream produce --topic crypto_ticks --source bronze --days 1 --speed 60x",
        "lakehouse stream produce --topic crypto_ticks --source ticks.parquet --speed max --dry-run",
        "lakehouse stream produce --topic market.stocks --source providers --assets BTCUSD,AAPL --every 60",
    )
)
@click.option("--topic", required=True, metavar="NAME", help="A topic of the settings, as crypto_ticks.")
@click.option(
    "--source",
    required=True,
    metavar="WHAT",
    help="sample (made up), bronze (of the lake: bars, or what the topic is of), raw_market_ticks (the lake's ticks as "
    "they are), a CSV, Parquet or JSON file, providers (their chain, asked again and again) or one provider's name.",
)
@listed("--assets", "LIST", "Asset pairs, as BTCUSD,ETHUSD; of the lake and of files all by default.")
@click.option("--days", type=click.IntRange(1, 36_500), metavar="N", help="The last N x 24 hours; one by default.")
@click.option("--start", metavar="TIME", help="Events from here on, UTC; files are played whole by default.")
@click.option("--end", metavar="TIME", help="Events before this, UTC; now by default.")
@click.option("--speed", metavar="10x|max", help="How many times as fast as the events went; 1x by default.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), metavar="N", help="N messages a second instead.")
@click.option(
    "--ticks-per-bar",
    type=click.IntRange(4, 60_000),
    default=8,
    show_default=True,
    metavar="N",
    help="Ticks that a 1m bar is expanded into; they give exactly that bar again.",
)
@click.option(
    "--shift-to-now",
    "to_now",
    is_flag=True,
    help="Ticks happen when they are due: the first one now, none ahead of the clock at any speed.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Stop after N messages.")
@click.option(
    "--every",
    type=click.FloatRange(1.0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How often providers are asked.",
)
@click.option("--dry-run", is_flag=True, help="Only count what would be sent, or show who would be asked.")
@reading_options
@json_option
@click.option("-q", "--quiet", is_flag=True, help="No progress display.")
@click.pass_context
def produce(
    ctx: click.Context,
    *,
    topic: str,
    source: str,
    assets: tuple[str, ...],
    days: int | None,
    start: str | None,
    end: str | None,
    speed: str | None,
    rate: float | None,
    ticks_per_bar: int,
    to_now: bool,
    limit: int | None,
    every: float,
    dry_run: bool,
    lake: str | None,
    sample: bool,
    config_file: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write messages to a Kafka topic, each acknowledged by all replicas and none twice.

    Bars become ticks where the topic is of ticks: deterministic, so that playing them again sends the same ones. A
    provider's newest closed 1m bars are sent once, and again where the provider changes them. Ctrl-C delivers what has
    been taken and ends.

    Exit codes: 0 all sent, or polling was ended; 1 some messages were not delivered or not possible; 2 wrong
    arguments; 130 a replay was interrupted.
    """
    from pipelines.cli.producing import ProduceRequest, run_producer, show_producer
    from pipelines.config import load_settings

    settings = load_settings(config_file)
    request = ProduceRequest(
        topic=topic,
        source=source,
        assets=assets,
        days=days,
        start=start,
        end=end,
        speed=speed,
        rate=rate,
        ticks_per_bar=ticks_per_bar,
        to_now=to_now,
        limit=limit,
        every=every,
        lake=lake,
        sample=sample,
    )
    if dry_run:
        ctx.exit(show_producer(request, settings, as_json=as_json))
    ctx.exit(run_producer(request, settings, as_json=as_json, quiet=quiet))
