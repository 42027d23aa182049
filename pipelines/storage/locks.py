"""Lets writers of one table take turns. Correctness does not rest on it: commits are compared and swapped."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.storage.names import LakeRoot

_POLL_SECONDS = 0.05
_FOLDER = ".locks"


@contextmanager
def turn(root: LakeRoot, table_name: str, patience_seconds: float = 120.0) -> Iterator[bool]:
    """Hold the table's lock file; yields whether it was had in time. The kernel frees it when its holder dies.

    Two reasons: without turns every loser of a race writes its files for nothing, and Hadoop's local file system checks
    and renames a commit in two steps, so two JVMs within the same microseconds could overwrite one another's.
    An object store has no such locks and is not asked for one.
    """
    if not root.is_local:
        yield False
        return
    folder = root.path / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{table_name}.lock").open("w") as handle:
        deadline = time.monotonic() + patience_seconds
        held = _try(handle.fileno())
        while not held and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            held = _try(handle.fileno())
        yield held


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
