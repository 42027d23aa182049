"""Snapshots of a lake, made, shown and deleted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.cli.lakes import ChosenLake, lake_for_reading
from pipelines.cli.render import Heading, counted, instant, say, show_json, show_table
from pipelines.config import load_settings

if TYPE_CHECKING:
    from pipelines.storage.travel.snapshots import Snapshot


def create_snapshot(
    name: str, note: str | None, lake: str | None, *, sample: bool, config_file: Path | None, as_json: bool
) -> None:
    """Make a snapshot and print it."""
    chosen = lake_for_reading(load_settings(config_file), lake, sample=sample)
    made = chosen.manager.snapshots.create(name, note)
    if as_json:
        _show_json(chosen, made)
        return
    chosen.show()
    say(f"Snapshot {made.name} pins {counted(len(made.tables), 'tables')} as of {instant(made.instant)} UTC.")


def show_snapshots(lake: str | None, *, sample: bool, config_file: Path | None, as_json: bool) -> None:
    """Print all snapshots."""
    chosen = lake_for_reading(load_settings(config_file), lake, sample=sample)
    found = chosen.manager.snapshots.list()
    if as_json:
        show_json({**chosen.as_dict(), "snapshots": [each.as_dict() for each in found]})
        return
    chosen.show()
    say()
    if not found:
        say("No snapshots; make one with `lakehouse snapshot create NAME`.")
        return
    headings = [Heading("snapshot"), Heading("made (UTC)"), Heading("tables", number=True), Heading("note", fold=True)]
    show_table(headings, [[s.name, instant(s.instant), str(len(s.tables)), s.note or ""] for s in found])


def show_snapshot(name: str, lake: str | None, *, sample: bool, config_file: Path | None, as_json: bool) -> None:
    """Print what a snapshot pins."""
    chosen = lake_for_reading(load_settings(config_file), lake, sample=sample)
    found = chosen.manager.snapshots.get(name)
    if as_json:
        _show_json(chosen, found)
        return
    chosen.show()
    _show(found)


def delete_snapshot(
    name: str, lake: str | None, *, yes: bool, sample: bool, config_file: Path | None, as_json: bool
) -> None:
    """Delete a snapshot if the user said yes; say what would go otherwise."""
    chosen = lake_for_reading(load_settings(config_file), lake, sample=sample)
    snapshots = chosen.manager.snapshots
    found = snapshots.delete(name) if yes else snapshots.get(name)
    if as_json:
        show_json({**chosen.as_dict(), **found.as_dict(), "deleted": yes})
        return
    chosen.show()
    if yes:
        say(f"Deleted the snapshot {name}.")
        return
    _show(found)
    say("\nNothing was deleted; --yes deletes it.")


def _show(found: Snapshot) -> None:
    say(f"Snapshot {found.name}, made {instant(found.instant)} UTC" + (f": {found.note}" if found.note else ""))
    say()
    headings = [Heading("table"), Heading("version", number=True)]
    show_table(headings, [[table, str(version)] for table, version in found.tables.items()])


def _show_json(chosen: ChosenLake, found: Snapshot) -> None:
    show_json({**chosen.as_dict(), **found.as_dict()})
