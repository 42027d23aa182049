"""Validating tables of a lake, and saying what was found."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.cli.failures import FailedWork
from pipelines.cli.lakes import ChosenLake, lake_for_reading
from pipelines.cli.recording import keep_results
from pipelines.cli.render import Heading, console, count, counted, duration, say, show_json, show_table
from pipelines.config import load_settings
from pipelines.errors import InvalidRangeError
from pipelines.instruments import load_registry
from pipelines.storage.scan import Selection, selection
from pipelines.timeframes import utc_now

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.data_quality.lake_validation import TableValidation


@dataclass(frozen=True, slots=True)
class Wanted:
    """The arguments, as given."""

    tables: tuple[str, ...]
    assets: tuple[str, ...]
    start: str | None
    end: str | None
    days: int | None
    live: bool
    docs: bool

    def selection(self) -> Selection:
        """Return assets and range.

        Raises:
            InvalidRangeError: options that do not go together, or a wrong range.
            UnknownAssetError: an asset is unknown.
        """
        if self.days is not None and (self.start or self.end):
            raise InvalidRangeError("--days counts back from now; give either --days N or --start and --end")
        if self.live and self.end:
            raise InvalidRangeError("--live asks for the newest rows, which --end may leave out; give one of them")
        start = utc_now() - timedelta(days=self.days) if self.days is not None else self.start
        registry = load_registry()
        pairs = [registry.resolve(name).pair for name in self.assets]
        return selection(start, self.end, list(dict.fromkeys(pairs)) or None, None)


def show_validation(wanted: Wanted, lake: str | None, *, sample: bool, config_file: Path | None, as_json: bool) -> None:
    """Validate tables, record and print what was found.

    Raises:
        FailedWork: an error check failed; all else is done and shown.
    """
    settings, chosen_rows = load_settings(config_file), wanted.selection()
    chosen = lake_for_reading(settings, lake, sample=sample)
    started = time.monotonic()
    with console(stderr=True).status("loading Great Expectations …") as status:
        from pipelines.data_quality.validating import validate_lake

        done = validate_lake(
            chosen.manager, wanted.tables, chosen_rows,
            synthetic=chosen.synthetic, live=wanted.live, docs=wanted.docs, on_step=status.update,
        )  # fmt: skip
        keep_results(chosen, done.results, done.run_id)
    found, failed = done.tables, [each.table for each in done.failed]
    seconds = time.monotonic() - started
    if as_json:
        about = {"run_id": done.run_id, "ok": not failed, "seconds": round(seconds, 2), "data_docs": done.data_docs}
        show_json({**chosen.as_dict(), **about, "tables": [each.as_dict() for each in found]})
    else:
        _show(chosen, found, done.data_docs, seconds)
    if failed:
        raise FailedWork(f"error checks failed in {', '.join(failed)}")


def _show(chosen: ChosenLake, found: Sequence[TableValidation], index: Path | None, seconds: float) -> None:
    chosen.show()
    say()
    if not found:
        say("No table to validate.")
        return
    headings = [
        Heading("table"),
        Heading("suite"),
        Heading("rows", number=True),
        Heading("checks", number=True),
        Heading("passed", number=True),
        Heading("warnings", number=True),
        Heading("failed", number=True),
        Heading("failed rows", number=True),
    ]
    show_table(headings, [_row(each) for each in found])
    _show_failures(found)
    rows = sum(each.rows for each in found)
    say(f"\n{counted(rows, 'rows')} of {counted(len(found), 'tables')} checked ({duration(seconds)}).")
    if index is not None:
        say(f"Data Docs: {index}")


def _row(found: TableValidation) -> list[str]:
    passed = sum(check.success for check in found.checks)
    failed = sum(not check.success and check.severity == "critical" for check in found.checks)
    warned = len(found.checks) - passed - failed
    numbers = (found.rows, len(found.checks), passed, warned, failed, found.failed_rows)
    return [found.table, found.suite, *map(count, numbers)]


def _show_failures(found: Sequence[TableValidation]) -> None:
    rows = [
        [
            each.table,
            check.reason,
            "error" if check.severity == "critical" else check.severity,
            count(check.failed_rows),
        ]
        for each in found
        for check in each.checks
        if not check.success
    ]
    if rows:
        say()
        show_table(
            [Heading("table"), Heading("check", fold=True), Heading("severity"), Heading("rows", number=True)], rows
        )
    files = [str(path) for each in found for path in each.dlq_files]
    if files:
        say("\nFailed rows, with reasons:")
        for path in files:
            say(f"  {path}")
