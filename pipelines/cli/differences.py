"""The difference between two versions of a table, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cli.lakes import lake_for_reading
from pipelines.cli.render import Heading, cell, count, say, show_json, show_table
from pipelines.config import load_settings
from pipelines.storage.travel.diff import AFTER, BEFORE, CHANGED

if TYPE_CHECKING:
    from pipelines.storage.travel.diff import Counts, Diff


def show_diff(
    table: str,
    old: str,
    new: str,
    limit: int | None,
    lake: str | None,
    *,
    sample: bool,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Print what differs, counted by asset, and some of it row by row."""
    chosen = lake_for_reading(load_settings(config_file), lake, sample=sample)
    found = chosen.manager.diff(table, old, new, limit)
    if as_json:
        show_json({**chosen.as_dict(), **_json(found)})
        return
    chosen.show()
    say(f"{table}: version {found.old} to version {found.new}")
    say()
    if not found:
        say("No difference.")
        return
    _show_counts(found)
    say()
    _show_rows(found)
    hidden = sum(_numbers(found.total)) - found.added.num_rows - found.restated.num_rows - found.removed.num_rows
    if hidden:
        say(f"\n{count(hidden)} more; --limit 0 shows all")


def _show_counts(found: Diff) -> None:
    headings = [Heading("asset"), *(Heading(name, number=True) for name in ("added", "restated", "removed"))]
    rows = [[asset, *map(count, _numbers(counts))] for asset, counts in found.counts.items()]
    show_table(headings, rows, ["total", *map(count, _numbers(found.total))])


def _show_rows(found: Diff) -> None:
    """Print a line per added or removed row, and one per changed value of a restated row."""
    names = found.keys or tuple(found.added.column_names)
    changes = [Heading("column"), Heading("before"), Heading("after")] if found.restated.num_rows else []
    blank = [""] * len(changes)
    lines = [
        *(["added", *_texts(row, names), *blank] for row in found.added.to_pylist()),
        *(["restated", *_texts(change["key"], names), *_change(change)] for change in _value_changes(found)),
        *(["removed", *_texts(row, names), *blank] for row in found.removed.to_pylist()),
    ]
    show_table([Heading(""), *(Heading(name) for name in names), *changes], lines)


def _value_changes(found: Diff) -> Iterator[dict[str, Any]]:
    for row in found.restated.to_pylist():
        for name in row[CHANGED]:
            yield {
                "key": {key: row[key] for key in found.keys},
                "column": name,
                "before": row[BEFORE][name],
                "after": row[AFTER][name],
            }


def _change(change: dict[str, Any]) -> list[str]:
    return [change["column"], cell(change["before"]), cell(change["after"])]


def _texts(row: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    return [cell(row[name]) for name in names]


def _numbers(counts: Counts) -> tuple[int, int, int]:
    return counts.added, counts.restated, counts.removed


def _json(found: Diff) -> dict[str, object]:
    restated = [
        {
            "key": {key: row[key] for key in found.keys},
            "changed": {name: {"before": row[BEFORE][name], "after": row[AFTER][name]} for name in row[CHANGED]},
        }
        for row in found.restated.to_pylist()
    ]
    return {
        "table": found.table,
        "old_version": found.old,
        "new_version": found.new,
        "counts": {asset: asdict(counts) for asset, counts in found.counts.items()},
        "total": asdict(found.total),
        "added": found.added.to_pylist(),
        "restated": restated,
        "removed": found.removed.to_pylist(),
    }
