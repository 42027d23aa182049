"""How this project commits with delta-rs: what all such commits have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltalake import PostCommitHookProperties

if TYPE_CHECKING:
    from deltalake import DeltaTable

# A snapshot may need old commits, which delta-rs knows nothing of: the log is cleaned by our own maintenance alone.
KEEP_LOG = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)


def landed_version(table: DeltaTable, tag: str, seen: int) -> int | None:
    """Return the version after `seen` that carries a tag, or None: whether a commit is ours only the log tells."""
    newer = table.version() - seen
    entries = table.history(newer) if newer > 0 else []
    return next((int(entry["version"]) for entry in entries if entry.get("userMetadata") == tag), None)
