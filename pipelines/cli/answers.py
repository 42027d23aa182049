"""Rows of a query as a table, CSV or JSON on stdout; remarks go to stderr."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

from pipelines.cli.lakes import lake_for_reading
from pipelines.cli.render import SYNTHETIC, Heading, cell, count, plain, say, show_table
from pipelines.config import load_settings
from pipelines.errors import InvalidRangeError

_ROWS_IN_A_TABLE = 50
_BATCH = 10_000


def show_answer(
    sql: str,
    when: Mapping[str, Any],
    form: str,
    limit: int | None,
    lake: str | None,
    *,
    sample: bool,
    config_file: Path | None,
) -> None:
    """Run a query and print its rows; `when` are the arguments of `DeltaLakeManager.query` that say so."""
    if sum(value is not None for value in when.values()) > 1:
        raise InvalidRangeError("give one of --as-of, --version and --snapshot, not several")
    chosen = lake_for_reading(load_settings(config_file), lake, sample=sample)
    answer = chosen.manager.query(sql, **when)
    if chosen.synthetic:
        say(f"Lake {chosen.address} · {SYNTHETIC}", "yellow", stderr=True)
    most = _ROWS_IN_A_TABLE if limit is None and form == "table" else limit
    shown = answer.slice(0, most) if most else answer
    {"table": _as_table, "csv": _as_csv, "json": _as_json}[form](shown)
    if answer.num_rows > shown.num_rows:
        say(f"{count(answer.num_rows - shown.num_rows)} more rows; --limit 0 shows all", stderr=True)


def _as_table(answer: pa.Table) -> None:
    kinds = [field.type for field in answer.schema]
    numbers = [pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds]
    headings = [Heading(name, number) for name, number in zip(answer.column_names, numbers, strict=True)]
    show_table(headings, [[cell(value) for value in row.values()] for row in _rows(answer)])


def _as_csv(answer: pa.Table) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(answer.column_names)
    writer.writerows([cell(value) for value in row.values()] for row in _rows(answer))


def _as_json(answer: pa.Table) -> None:
    """Write a JSON array, one row a line."""
    separator = "[\n"
    for row in _rows(answer):
        click.echo(separator + json.dumps(row, default=plain, ensure_ascii=False), nl=False)
        separator = ",\n"
    click.echo("[]" if separator == "[\n" else "\n]")


def _rows(answer: pa.Table) -> Iterator[Mapping[str, Any]]:
    for batch in answer.to_batches(max_chunksize=_BATCH):
        yield from batch.to_pylist()
