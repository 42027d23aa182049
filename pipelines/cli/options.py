"""Options that several commands share. Imports nothing but click, for the sake of `--help`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from pipelines.cli.failures import VERBOSE

_F = TypeVar("_F", bound=Callable[..., Any])
_DEBUG = 2


def _listed(_ctx: click.Context, parameter: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    """Split comma-separated values of a repeatable option; order is kept, repeats are dropped."""
    parts = [part.strip() for value in values for part in value.split(",")]
    if any(not part for part in parts):
        raise click.BadParameter("there is an empty name between commas", param=parameter)
    return tuple(dict.fromkeys(parts))


def listed(name: str, metavar: str, text: str, *, required: bool = False) -> Callable[[_F], _F]:
    """Return an option that takes names separated by commas, and may be repeated."""
    return click.option(name, multiple=True, callback=_listed, metavar=metavar, help=text, required=required)


def examples(*lines: str) -> str:
    """Return the end of a help text; the control character keeps click from filling the lines."""
    return "\n".join(["\b", "Examples:" if len(lines) > 1 else "Example:", *(f"  {line}" for line in lines)])


class SeriesOptions(NamedTuple):
    """What says which bars a command looks at, as it was given; what is left out means all."""

    assets: tuple[str, ...]
    timeframes: tuple[str, ...]
    days: int | None
    start: str | None
    end: str | None


def series_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add --assets, --timeframe, --days, --start and --end; the command takes them together, as `series`."""

    @wraps(command)
    def together(
        *args: object,
        assets: tuple[str, ...],
        timeframe: tuple[str, ...],
        days: int | None,
        start: str | None,
        end: str | None,
        **others: object,
    ) -> None:
        command(*args, series=SeriesOptions(assets, timeframe, days, start, end), **others)

    for option in (
        click.option("--end", metavar="TIME", help="Bars that open before this, UTC; by default now."),
        click.option("--start", metavar="TIME", help="Bars that open from here on, UTC."),
        click.option("--days", type=click.IntRange(1, 36_500), metavar="N", help="Bars of the last N x 24 hours."),
        listed("--timeframe", "LIST", "Lengths of bar, as 1m,1d; by default all of the lake."),
        listed("--assets", "LIST", "Asset pairs, as BTCUSD,ETHUSD; by default all of the lake."),
    ):
        together = option(together)
    return together


def _verbose(ctx: click.Context, _parameter: click.Parameter, count: int) -> None:
    """Log to stderr. httpx logs a line per request, redacted; httpcore logs bytes, so it is never let loose."""
    if not count:
        return
    ctx.meta[VERBOSE] = True
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.DEBUG if count >= _DEBUG else logging.INFO, format=form, force=True)
    logging.getLogger("httpx").setLevel(logging.INFO if count >= _DEBUG else logging.WARNING)
    for chatty in ("httpcore", "py4j", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


verbose_option = click.option(
    "-v",
    "--verbose",
    count=True,
    expose_value=False,
    callback=_verbose,
    help="Log what happens, and show tracebacks; -vv logs each request.",
)

config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Another settings file than config/config.yaml; its .local.yaml is looked for beside it.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")

engine_option = click.option(
    "--engine",
    type=click.Choice(["spark", "embedded"]),
    help="What writes: spark, or embedded, which needs no JVM. By default storage.engine of the settings.",
)


def engine_override(engine: str | None) -> dict[str, Any]:
    """Return what --engine sets, as settings."""
    return {} if engine is None else {"storage": {"engine": engine}}


_lake_option = click.option("--lake", metavar="PATH", help="The lake: a folder or an s3:// address.")
_sample_option = click.option("--sample", is_flag=True, help="The lake of synthetic sample data.")


def reading_options(command: _F) -> _F:
    """Add what every reading command takes: --lake, --sample, --config and -v."""
    for option in (verbose_option, config_option, _sample_option, _lake_option):
        command = option(command)
    return command
