"""Maintaining a lake, and showing tables before and after."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.cli.lakes import lake_for_reading
from pipelines.cli.options import engine_override
from pipelines.cli.render import Heading, console, count, counted, duration, say, show_json, show_table, size
from pipelines.config import load_settings

if TYPE_CHECKING:
    from pipelines.storage.upkeep.maintain import Maintained


def show_maintenance(
    tables: Sequence[str],
    lake: str | None,
    *,
    sample: bool,
    config_file: Path | None,
    engine: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Maintain tables, all of the lake's if none is named, and print what was done."""
    settings = load_settings(config_file, engine_override(engine))
    chosen = lake_for_reading(settings, lake, sample=sample)
    started = time.monotonic()
    with console(stderr=True).status("…") as status:
        done = chosen.manager.maintain(
            tables or None, dry_run=dry_run, on_table=lambda name: status.update(f"{name} …")
        )
    spent = time.monotonic() - started
    if as_json:
        show_json({**chosen.as_dict(), "dry_run": dry_run, "seconds": round(spent, 2),
                   "tables": [each.as_dict() for each in done]})  # fmt: skip
        return
    chosen.show()
    if dry_run:
        say("Dry run: nothing is changed")
    say()
    _show_tables(done)
    say(f"\n{_summary(done, dry_run=dry_run)} ({duration(spent)}).")


def _show_tables(done: Sequence[Maintained]) -> None:
    headings = [
        Heading("table"),
        Heading("files", number=True),
        Heading("most in a partition", number=True),
        Heading("size", number=True),
        Heading("compacted", number=True),
        Heading("vacuumed", number=True),
        Heading("log files", number=True),
    ]
    show_table(headings, [_row(each) for each in done])


def _row(each: Maintained) -> list[str]:
    before, after = each.before, each.after
    return [
        each.table,
        _change(count(before.files), count(after.files)),
        _change(count(before.most_in_partition), count(after.most_in_partition)),
        _change(size(before.bytes), size(after.bytes)),
        count(each.in_need),
        count(each.vacuumed_files),
        count(each.log_files),
    ]


def _change(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"


def _summary(done: Sequence[Maintained], *, dry_run: bool) -> str:
    if all(each.idle for each in done):
        return f"Nothing to do in {counted(len(done), 'tables')}"
    partitions = sum(each.in_need for each in done)
    files, freed = sum(each.vacuumed_files for each in done), sum(each.vacuumed_bytes for each in done)
    entries = sum(each.log_files for each in done)
    if dry_run:
        return (
            f"To do: compact {counted(partitions, 'partitions')}, vacuum {counted(files, 'files')} ({size(freed)}), "
            f"remove {counted(entries, 'log files')}"
        )
    return (
        f"Done: {counted(partitions, 'partitions')} compacted, {counted(files, 'files')} ({size(freed)}) vacuumed, "
        f"{counted(entries, 'log files')} removed"
    )
