"""Whether something took rows out of a table since a version that a writer has seen. No JVM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.storage.travel.log_files import log_files

if TYPE_CHECKING:
    from pipelines.storage.lake import Lake

# What a restore and a repair call themselves in the log, with either engine.
UNDOING = {"RESTORE", "FSCK"}


def undone_since(lake: Lake, table_name: str, version: int) -> bool:
    """Say whether a restore, a repair or a rebuild came after a version, so that its rows may be gone.

    Where that version still is the newest one, this takes no more than a listing of the log.

    Raises:
        StorageError: the log cannot be listed or read.
    """
    newest = max(log_files(lake.root, table_name).commits, default=-1)
    if newest == version:
        return False
    if newest < version:
        # Its commit was set aside, or the whole table was.
        return True
    table = lake.open(table_name)
    since = table.version() - version
    later = table.history(since)
    # What a clean-up took out of the log can no longer be told.
    return len(later) < since or any(entry.get("operation") in UNDOING for entry in later)
