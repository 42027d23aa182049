"""The files of a table's log, by what their names say: which versions can still be read."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow.fs as pafs
from deltalake.exceptions import DeltaError

from pipelines.errors import StorageError
from pipelines.storage.files import store_of
from pipelines.storage.stores.objects import Listed
from pipelines.timeframes import EPOCH

if TYPE_CHECKING:
    from pipelines.storage.names import LakeRoot

_FOLDER = "_delta_log"
# Hadoop hides a checksum of each file beside it, as .00000000000000000003.json.crc.
_VERSIONED = re.compile(r"\.?(\d{20})\..+")
_COMMIT = re.compile(r"(\d{20})\.json")
# One file, one of several parts, or one that names its parts (its identifier is a UUID).
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint(?:\.(\d{10})\.(\d{10})|\.[0-9a-f-]{36})?\.(?:parquet|json)")


@dataclass(frozen=True, slots=True)
class LogFiles:
    """Versions with a commit file, those with a whole checkpoint, and every file that belongs to a version."""

    commits: tuple[int, ...]
    checkpoints: tuple[int, ...]
    files: tuple[tuple[int, Listed], ...]

    def readable(self) -> range:
        """Return the versions that can be read: from the first checkpoint, or from 0, without a gap up to the newest.

        A clean-up that was killed leaves commit files that no checkpoint leads up to; those cannot be read.
        """
        present = set(self.commits)
        newest = max((*self.commits, *self.checkpoints), default=-1)
        first = newest + 1
        while first - 1 in present:
            first -= 1
        if first == 0:
            return range(newest + 1)
        starts = [version for version in self.checkpoints if version >= first - 1]
        return range(min(starts), newest + 1) if starts else range(0)


def log_files(root: LakeRoot, table_name: str) -> LogFiles:
    """List the log of a table, in whatever store; of a table that is not there, nothing is listed.

    Raises:
        StorageError: not a table name, or the store cannot be listed.
    """
    uri = root.uri(table_name)
    try:
        found = store_of(table_name, root).get_file_info(
            pafs.FileSelector(_FOLDER, allow_not_found=True, recursive=False)
        )
    except (DeltaError, OSError) as error:
        raise StorageError(f"cannot list the log of {table_name} at {uri}: {error}") from error
    return _sorted_out(
        Listed(f"{table_name}/{info.path}", info.size or 0, info.mtime or EPOCH)
        for info in found
        if info.type == pafs.FileType.File
    )


def _sorted_out(listed: Iterable[Listed]) -> LogFiles:
    files: list[tuple[int, Listed]] = []
    commits: list[int] = []
    parts: dict[tuple[int, int], int] = defaultdict(int)
    for entry in sorted(listed, key=lambda each: each.path):
        name = entry.path.rpartition("/")[2]
        if not (found := _VERSIONED.fullmatch(name)):
            continue
        files.append((int(found[1]), entry))
        if _COMMIT.fullmatch(name):
            commits.append(int(found[1]))
        elif checkpoint := _CHECKPOINT.fullmatch(name):
            parts[int(found[1]), int(checkpoint[3] or 1)] += 1
    whole = {version for (version, of), count in parts.items() if count >= of}
    return LogFiles(tuple(sorted(commits)), tuple(sorted(whole)), tuple(sorted(files, key=lambda each: each[0])))
