"""What the log says that data files hold, and which files are there. Local disk and object store alike."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake.exceptions import DeltaError

from pipelines.contracts import Contract
from pipelines.errors import StorageError
from pipelines.intervals import Interval
from pipelines.storage.files import STATISTICS_STEP, file_actions, store_of
from pipelines.timeframes import EPOCH

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deltalake import DeltaTable

    from pipelines.storage.lake import Lake

LOG_FOLDER = "_delta_log"
_PARTITION_SUBJECT = "partition.partition_asset_pair"


@dataclass(frozen=True, slots=True)
class HeldFile:
    """A data file as the log has it; `rows`, `span` (event time) and `subject` are None where the log does not say.

    `modified` (aware UTC) is when it was written.
    """

    path: str
    bytes: int
    modified: datetime
    rows: int | None
    span: Interval | None
    subject: str | None


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as the disk or bucket has it; `path` is relative to the table, `modified` is aware UTC."""

    path: str
    bytes: int
    modified: datetime


def rows_in(source: object) -> int | None:
    """Return the rows that a Parquet file, open or as a buffer, really has, all of its pages read; None if garbled."""
    try:
        return sum(int(batch.num_rows) for batch in pq.ParquetFile(source).iter_batches())
    except (OSError, pa.ArrowException):
        return None


def held_files(table: DeltaTable, contract: Contract) -> dict[str, HeldFile]:
    """Return the files that this version of a table is made of, by path in the table's folder."""
    actions = file_actions(table)
    files = [_held_file(row, contract.event_time) for row in actions.to_pylist()]
    return {file.path: file for file in files}


def _held_file(row: dict[str, object], event_time: str | None) -> HeldFile:
    low, high = row.get(f"min.{event_time}"), row.get(f"max.{event_time}")
    span = None
    if isinstance(low, datetime) and isinstance(high, datetime):
        span = Interval(_utc(low), _utc(high) + STATISTICS_STEP)
    rows, subject = row.get("num_records"), row.get(_PARTITION_SUBJECT)
    return HeldFile(
        # The log spells paths as URLs.
        path=unquote(str(row["path"])),
        bytes=int(str(row["size_bytes"])),
        modified=EPOCH + timedelta(milliseconds=int(str(row["modification_time"]))),
        rows=rows if isinstance(rows, int) else None,
        span=span,
        subject=subject if isinstance(subject, str) else None,
    )


def _utc(instant: datetime) -> datetime:
    """Return an instant as aware: a table without a contract may have zoneless times; they are UTC."""
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def stored_files(lake: Lake, table_name: str) -> dict[str, StoredFile]:
    """Return every file in a table's folder, its log included, by path; empty where there is no such folder.

    Raises:
        StorageError: the folder cannot be listed.
    """
    try:
        found = store_of(table_name, lake.root).get_file_info(
            pafs.FileSelector("", allow_not_found=True, recursive=True)
        )
    except (DeltaError, OSError) as error:
        raise StorageError(f"cannot list {lake.root.uri(table_name)}: {error}") from error
    files = [info for info in found if info.type == pafs.FileType.File]
    return {info.path: StoredFile(info.path, info.size or 0, info.mtime or EPOCH) for info in files}


def is_data(path: str) -> bool:
    """Say whether a path in a table's folder is that of a data file, committed or not."""
    return path.endswith(".parquet") and not path.startswith("_")


def total_rows(files: Iterable[HeldFile]) -> int:
    """Sum the rows of files, as far as the log knows them."""
    return sum(file.rows or 0 for file in files)
