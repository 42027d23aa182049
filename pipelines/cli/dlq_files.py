"""The dead letter queue's files, rows and numbers, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.cli.failures import DONE, FAILED
from pipelines.cli.render import Heading, cell, count, counted, instant, listing, say, show_json, show_table
from pipelines.config import Settings, load_settings
from pipelines.data_quality.dlq import DeadLetterQueue
from pipelines.data_quality.dlq_reading import (
    DlqFile,
    RowFilter,
    Unreadable,
    find_file,
    read_files,
    read_head,
    statistics,
)
from pipelines.data_quality.dlq_stream import rows_of

if TYPE_CHECKING:
    from pipelines.data_quality.dlq_stream import Row

# Dataset, asset pair, provider and reason, as given.
Filters = tuple[str | None, str | None, str | None, str | None]
_MOST_COLUMNS = 12
_MOST_SUBJECTS = 2


def queue_of(settings: Settings) -> DeadLetterQueue:
    """Return the queue of the settings."""
    return DeadLetterQueue(settings.resolve(settings.dlq.path))


def list_files(filters: Filters, config_file: Path | None, *, as_json: bool) -> int:
    """Print what each file of the queue holds; returns the exit code."""
    queue = queue_of(load_settings(config_file))
    found = list(read_files(queue.files(), RowFilter(*filters)))
    good = [each for each in found if isinstance(each, DlqFile)]
    bad = [each for each in found if isinstance(each, Unreadable)]
    if as_json:
        files = [each.as_dict() for each in good]
        show_json({"dlq": str(queue.path), "files": files, "unreadable": [each.as_dict() for each in bad]})
        return FAILED if bad else DONE
    say(f"Dead letters {queue.path}", "bold")
    if good:
        say()
        headings = ["id", "refused (UTC)", "dataset", "asset", "timeframe", "provider"]
        columns = [*map(Heading, headings), Heading("rows", number=True), Heading("error"), Heading("first reason")]
        total = ["total", *[""] * 5, count(sum(each.rows for each in good)), "", ""]
        show_table(columns, [_listed(each) for each in good], total if len(good) > 1 else None)
        say("\n`lakehouse dlq show ID` shows the rows of one, `lakehouse dlq replay ID` tries them again")
    elif not bad:
        say("no rows" if any(filters) else "empty")
    show_unreadable(bad)
    return FAILED if bad else DONE


def show_file(file: str, limit: int | None, filters: Filters, config_file: Path | None, *, as_json: bool) -> None:
    """Print the first rows of a file that meet the filters."""
    path, wanted = find_file(queue_of(load_settings(config_file)), file), RowFilter(*filters)
    head = read_head(path)
    admitted = ((row, reason) for row, reason in rows_of(path) if wanted.admits(head, row, reason))
    rows = list(islice(admitted, limit))
    left = sum(1 for _ in admitted)
    if as_json:
        about = {"path": str(path), "timestamp": head.timestamp, "error": head.error, "context": dict(head.context)}
        show_json({**about, "rows": len(rows) + left, "records": [{**row, "reason": reason} for row, reason in rows]})
        return
    say(f"{path}", "bold")
    context = ", ".join(f"{name}: {cell(value)}" for name, value in head.context.items())
    say(f"{head.error} at {instant(head.timestamp)} UTC" + (f" · {context}" if context else "") + "\n")
    if rows:
        _show_rows(rows)
    say(f"\n{count(left)} more; --limit 0 shows all" if left else f"\n{counted(len(rows), 'rows')}")


def show_statistics(filters: Filters, config_file: Path | None, *, as_json: bool) -> int:
    """Print how many rows there are by reason and by dataset and asset; returns the exit code."""
    queue = queue_of(load_settings(config_file))
    found = statistics(queue, RowFilter(*filters))
    if as_json:
        show_json({"dlq": str(queue.path), **found.as_dict()})
        return FAILED if found.unreadable else DONE
    say(f"Dead letters {queue.path}: {counted(found.rows, 'rows')} in {counted(found.files, 'files')}", "bold")
    rows = Heading("rows", number=True)
    if found.rows:
        say()
        show_table([rows, Heading("reason")], [[count(number), reason] for reason, number in found.by_reason.items()])
        say()
        parts = [[count(number), dataset, subject] for (dataset, subject), number in found.by_dataset.items()]
        show_table([rows, Heading("dataset"), Heading("asset")], parts)
    show_unreadable(found.unreadable)
    return FAILED if found.unreadable else DONE


def show_unreadable(files: Sequence[Unreadable]) -> None:
    """Print which files could not be read, and why."""
    if files:
        say(f"\n{counted(len(files), 'files')} cannot be read and {'is' if len(files) == 1 else 'are'} left:", "red")
        for each in files:
            say(f"  {each.error}", "red")


def _listed(file: DlqFile) -> list[str]:
    subjects = listing(list(file.subjects), most=_MOST_SUBJECTS)
    values = [cell(file.context.get(name)) for name in ("timeframe", "provider")]
    when = instant(file.timestamp)
    return [
        file.identity,
        when,
        file.dataset or "-",
        subjects,
        *values,
        count(file.rows),
        file.error,
        file.first_reason,
    ]


def _show_rows(rows: Iterable[tuple[Row, str]]) -> None:
    """Print rows as a table; where they have many columns, only those that hold something."""
    shown = list(rows)
    names = list(dict.fromkeys(name for row, _ in shown for name in row))
    if len(names) > _MOST_COLUMNS:
        names = [name for name in names if any(row.get(name) is not None for row, _ in shown)]
    headings = [*map(Heading, names), Heading("reason")]
    show_table(headings, [[*(cell(row.get(name)) for name in names), reason] for row, reason in shown])
