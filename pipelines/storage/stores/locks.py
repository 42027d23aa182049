"""Lets writers of one table take turns. Correctness does not rest on it: commits are compared and swapped."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from pipelines.storage.names import LakeRoot, checked_name

_POLL_SECONDS = 0.05
_FOLDER = ".locks"


@contextmanager
def turn(root: LakeRoot, table_name: str, patience_seconds: float = 120.0) -> Iterator[bool]:
    """Hold a table's turn; yields whether it was had in time. Without it a writer goes on all the same.

    Without turns every loser of a race writes its files for nothing. That is all they are for in S3, where a commit is
    put only if its version is absent, whoever has the turn; there it is a lease, which lapses when its holder dies.
    On a local disk it is a lock file that the kernel frees, and there is a second reason: Hadoop's local file system
    checks and renames a commit in two steps, so two JVMs within the same microseconds could overwrite one another's.
    Other stores have no turns.

    Raises:
        StorageError: the name is no table name, or the bucket is missing or cannot be written; names the fix.
    """
    checked_name(table_name)
    if root.is_local:
        waiting: AbstractContextManager[bool] = locked(root, table_name, patience_seconds)
    elif root.is_s3:
        from pipelines.storage.stores.leases import lease  # noqa: PLC0415 - only for S3

        waiting = lease(root.place, table_name, patience_seconds)
    else:
        waiting = nullcontext(enter_result=False)
    with waiting as held:
        yield held


@contextmanager
def locked(root: LakeRoot, name: str, patience_seconds: float) -> Iterator[bool]:
    """Hold a lock file of a lake on a local disk, which the kernel frees; yields whether it was had in time."""
    folder = root.path / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as handle:
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
