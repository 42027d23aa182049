"""Tables, numbers and times for people; JSON for programs. Colour only where rich finds a terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.wording import SYNTHETIC, count, counted

__all__ = [
    "SYNTHETIC",
    "Heading",
    "cell",
    "cells",
    "console",
    "count",
    "counted",
    "duration",
    "instant",
    "listing",
    "percent",
    "plain",
    "say",
    "show_json",
    "show_table",
    "size",
]

# A pipe has no width: nothing may be cut or wrapped on its way to grep.
_UNBOUNDED = 10_000
_KILO = 1024.0


@dataclass(frozen=True, slots=True)
class Heading:
    """A table column; numbers align to the right."""

    name: str
    number: bool = False
    fold: bool = False


def console(*, stderr: bool = False) -> Console:
    """Return a console on the present stdout or stderr."""
    found = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not found.is_terminal:
        found.width = _UNBOUNDED
    return found


def say(text: str = "", style: str | None = None, *, stderr: bool = False) -> None:
    """Print a line; a terminal wraps it at words."""
    console(stderr=stderr).print(Text(text, style=style or ""), soft_wrap=False)


def show_table(headings: Sequence[Heading], rows: Sequence[Sequence[str]], total: Sequence[str] | None = None) -> None:
    """Print rows under headings, and a last line of totals if there is one."""
    out = console()
    table = Table(box=box.SIMPLE_HEAD if out.is_terminal else None, show_edge=False, pad_edge=False)
    for heading in headings:
        table.add_column(
            heading.name,
            justify="right" if heading.number else "left",
            no_wrap=not heading.fold,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    if total is not None:
        if out.is_terminal:
            table.add_section()
        table.add_row(*(Text(cell, style="bold") for cell in total))
    _print_trimmed(out, table)


def _print_trimmed(out: Console, table: Table) -> None:
    """Print without the blanks that pad the last column of a line, where no terminal needs them."""
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as captured:
        out.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def show_json(value: object) -> None:
    """Print one JSON document on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=plain))


def plain(value: object) -> object:
    """Return a value as JSON can hold it: times as ISO 8601, bytes as hexadecimal."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def size(number: int) -> str:
    """Return bytes as 1.2 MiB."""
    value, units = float(number), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= _KILO and len(units) > 1:
        value /= _KILO
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:,.1f} {units[0]}"


def percent(share: float) -> str:
    """Return 0.99999 as 99.9 %: only what is whole is shown as whole."""
    return f"{math.floor(share * 1000 + 1e-9) / 10:.1f} %"


def instant(moment: datetime | None) -> str:
    """Return a time in UTC to the minute, or seconds where it has them."""
    if moment is None:
        return "-"
    return moment.strftime("%Y-%m-%d %H:%M:%S" if moment.second else "%Y-%m-%d %H:%M")


def duration(seconds: float) -> str:
    """Return seconds as 0.6 s, 14 s, 3 min 20 s or 2 h 5 min."""
    if seconds < 10:  # noqa: PLR2004 - tenths matter below
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004
        return f"{whole} s"
    minutes, left = divmod(whole, 60)
    if minutes < 60:  # noqa: PLR2004
        return f"{minutes} min {left} s" if left else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def listing(names: Sequence[str], most: int = 4) -> str:
    """Return names joined, with the rest only counted."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def cells(row: Mapping[str, object]) -> list[str]:
    """Return a row's values as text."""
    return [cell(value) for value in row.values()]


def cell(value: object) -> str:
    """Return one value as text: times in ISO 8601 UTC, nested values as JSON, null as nothing."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ").replace("+00:00", "Z")
    if isinstance(value, dict | list):
        return json.dumps(value, default=plain, ensure_ascii=False)
    return str(value)
