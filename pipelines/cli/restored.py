"""Restoring a table, and saying what it took out and brought back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.cli.lakes import lake_for_reading
from pipelines.cli.render import Heading, count, counted, instant, listing, say, show_json, show_table
from pipelines.config import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.storage.recovery.restore import RestoreResult
    from pipelines.storage.recovery.retraction import Retraction


def show_restore(
    table: str,
    target: tuple[int | None, str | None, str | None],
    lake: str | None,
    *,
    sample: bool,
    config_file: Path | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Restore a table to a version, an instant or a snapshot, or only say what that would do."""
    chosen = lake_for_reading(load_settings(config_file), lake, sample=sample)
    result = chosen.manager.restore_table(table, *target, dry_run=dry_run, force=force)
    if as_json:
        show_json({**chosen.as_dict(), **result.as_dict()})
        return
    chosen.show()
    if dry_run:
        say("Dry run: nothing is changed")
    say()
    for line in _lines(result):
        say(line)
    if not dry_run:
        say(f"To undo it: {chosen.command(f'lakehouse restore {result.table} --version {result.version - 1}')}")
    show_retractions(result.retracted)


def _lines(result: RestoreResult) -> list[str]:
    verb = "would be" if result.dry_run else "is"
    after = "" if result.dry_run else f", as version {result.version}"
    removed = f"{counted(result.rows_removed, 'rows')} in {counted(result.files_removed, 'files')}"
    added = f"{counted(result.rows_added, 'rows')} in {counted(result.files_added, 'files')}"
    lines = [
        f"{result.table} {verb} again what it was at version {result.restored}{after}.",
        f"Taken out: {removed}; brought back: {added}.",
    ]
    if result.missing:
        lines.append(f"Without {counted(len(result.missing), 'files')} that are gone: {listing(result.missing)}")
    return lines


def show_retractions(retracted: Sequence[Retraction]) -> None:
    """Print what no longer counts as covered, by series and provider."""
    found = [each for each in retracted if each.lost]
    if not found:
        return
    say("\nNo longer covered; the next backfill fetches it:\n")
    rows = []
    for each in sorted(found, key=_series):
        (dataset, subject, timeframe), provider = each.claim
        parts = list(each.lost)
        pieces = count(len(parts))
        rows.append([subject, timeframe or dataset, provider, instant(parts[0].start), instant(parts[-1].end), pieces])
    headings = [Heading(name) for name in ("subject", "timeframe", "provider", "from (UTC)", "until")]
    show_table([*headings, Heading("pieces", number=True)], rows)


def _series(retraction: Retraction) -> tuple[str, str, str]:
    (dataset, subject, timeframe), provider = retraction.claim
    return timeframe or dataset, subject, provider
