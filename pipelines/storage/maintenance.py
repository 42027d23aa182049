"""Keeps tables fast and small: compaction, Z-order, and removal of files that no kept version needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties
from deltalake.exceptions import DeltaError
from deltalake.fs import DeltaStorageHandler

from pipelines.contracts import Contract, contract_for
from pipelines.errors import ConcurrentWriteError, StorageError
from pipelines.storage.creation import property_of
from pipelines.storage.faults import explain, is_concurrent
from pipelines.storage.locks import turn
from pipelines.storage.scan import checked_columns

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from pipelines.storage.lake import Lake

# Delta keeps removed files at least this long: a slow reader or an uncommitted write may still need younger ones.
SAFE_RETENTION_HOURS = 168

_CONDITION = re.compile(r"(\w+)\s*(<=|>=|!=|<>|=|<|>)\s*(?:DATE\s*)?'([A-Za-z0-9^._/:-]{1,64})'", re.IGNORECASE)
_AND = re.compile(r"\s+AND\s+", re.IGNORECASE)
_STATISTICS = "delta.dataSkippingStatsColumns"
_KEEP_LOG = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)


@dataclass(frozen=True, slots=True)
class OptimizeResult:
    """What an optimization did; `version` is the table's version after it, bytes are those of data files."""

    table: str
    version: int
    partitions: int
    files_added: int
    files_removed: int
    bytes_added: int
    bytes_removed: int


@dataclass(frozen=True, slots=True)
class VacuumResult:
    """The files removed, or that would be by a dry run, as paths in the table's folder; `bytes` is their size."""

    table: str
    files: tuple[str, ...]
    bytes: int
    retention_hours: int
    dry_run: bool

    @property
    def count(self) -> int:
        """How many files."""
        return len(self.files)


def optimize(
    lake: Lake,
    spark: Callable[[], SparkSession],
    table_name: str,
    zorder_columns: Sequence[str] | str | None = None,
    where: str | None = None,
) -> OptimizeResult:
    """Rewrite small files of a table as few large ones; rows stay as they are.

    Appends wait meanwhile, for two minutes at most. A second compaction finds nothing to do; a Z-order rewrites what it
    is given every time.

    Args:
        lake: the lake.
        spark: gives the session.
        table_name: the table.
        zorder_columns: cluster rows by these, for reads that select by them; by partition columns they are anyway.
        where: only these partitions, as in `partition_date >= '2025-12-01' AND partition_asset_pair = 'BTCUSD'`.

    Raises:
        TableNotFoundError: no such table; names the nearest.
        ConcurrentWriteError: another optimization of the same files was faster.
        StorageError: a column cannot be ordered by, `where` is not such a condition, or Spark failed; nothing changed.
    """
    table, contract = lake.open(table_name), contract_for(table_name)
    columns = zorder_checked(table, contract, zorder_columns)
    condition = None if where is None else partition_condition(where, contract)
    with turn(lake.root, table_name):
        metrics = _optimize(spark(), lake.root.uri(table_name), columns, condition, table_name)
    return OptimizeResult(
        table=table_name,
        version=lake.open(table_name).version(),
        partitions=metrics["partitionsOptimized"],
        files_added=metrics["numFilesAdded"],
        files_removed=metrics["numFilesRemoved"],
        bytes_added=metrics["filesAdded"]["totalSize"],
        bytes_removed=metrics["filesRemoved"]["totalSize"],
    )


def vacuum(
    lake: Lake, table_name: str, retention_hours: int = 720, *, dry_run: bool = False, force: bool = False
) -> VacuumResult:
    """Remove the files that no version of the last `retention_hours` needs, and those of writes that never committed.

    Older versions cannot be read afterwards. The log forgets when a file was removed from the table after the table's
    `delta.deletedFileRetentionDuration` (7 days if unset); a longer retention holds no longer than that for such files.
    No JVM; when there is nothing to remove, nothing is committed.

    Raises:
        TableNotFoundError: no such table; names the nearest.
        ConcurrentWriteError: forced, and a writer was at work all the time.
        StorageError: the retention is under the safe limit and not forced, or a file could not be removed.
    """
    _check_retention(retention_hours, force=force)
    with nullcontext(enter_result=True) if dry_run else turn(lake.root, table_name) as alone:
        # Below the limit, the files of a write that is under way would count as left behind.
        if lake.root.is_local and not alone and retention_hours < SAFE_RETENTION_HOURS:
            raise ConcurrentWriteError(f"{table_name} is being written; vacuum it when its writers are done")
        table = lake.open(table_name)
        files = _expired(table, retention_hours, dry_run=True)
        sizes = _sizes(table, lake, files)
        if files and not dry_run:
            files = _expired(table, retention_hours, dry_run=False)
    return VacuumResult(table_name, files, sum(sizes.get(file, 0) for file in files), retention_hours, dry_run)


def zorder_checked(table: DeltaTable, contract: Contract, columns: Sequence[str] | str | None) -> list[str]:
    """Return the columns to cluster by.

    Raises:
        StorageError: one does not exist, is a partition column, or has no statistics that reads could skip files by.
    """
    names = [columns] if isinstance(columns, str) else list(dict.fromkeys(columns or ()))
    checked_columns([column.name for column in contract.columns], names, contract.id)
    partitions = [name for name in names if name in contract.partition_columns]
    if partitions:
        raise StorageError(
            f"{', '.join(partitions)}: a file holds one value of a partition column, so there is nothing to order by; "
            "give other columns, for example asset_pair and timestamp"
        )
    indexed = property_of(table, _STATISTICS)
    blind = [name for name in names if indexed and name not in indexed.split(",")]
    if blind:
        raise StorageError(
            f"{contract.id} keeps no statistics on {', '.join(blind)}, so ordering by it would skip no file; "
            f"order by some of {indexed}"
        )
    return names


def partition_condition(where: str, contract: Contract) -> str:
    """Return a condition on partitions as SQL, made anew from its parts; no text of the caller gets through unread.

    Raises:
        StorageError: it is anything but comparisons of partition columns with quoted values, joined by AND.
    """
    return " AND ".join(_comparison(part, contract) for part in _AND.split(where.strip()))


def _comparison(text: str, contract: Contract) -> str:
    known = ", ".join(contract.partition_columns) or "none"
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise StorageError(
            f"cannot read the partition condition {text!r}; write comparisons joined by AND, for example "
            f"partition_date >= '2025-12-01' (partition columns: {known})"
        )
    name, operator, value = found.groups()
    if name not in contract.partition_columns:
        raise StorageError(f"{name} is not a partition column of {contract.id}; it has {known}")
    if contract.column(name).type != "date":
        return f"{name} {operator} '{value}'"
    try:
        return f"{name} {operator} DATE '{date.fromisoformat(value).isoformat()}'"
    except ValueError:
        raise StorageError(f"{name} is a date and {value!r} is none; write for example '2025-12-01'") from None


def _optimize(spark: SparkSession, uri: str, columns: list[str], condition: str | None, table_name: str) -> Any:  # noqa: ANN401 - Spark rows
    from delta.tables import DeltaTable as SparkTable  # noqa: PLC0415 - slow to import
    from py4j.protocol import Py4JError  # noqa: PLC0415
    from pyspark.errors import PySparkException  # noqa: PLC0415

    try:
        builder = SparkTable.forPath(spark, uri).optimize()
        if condition is not None:
            builder = builder.where(condition)
        done = builder.executeZOrderBy(columns) if columns else builder.executeCompaction()
        return done.collect()[0]["metrics"]
    except (PySparkException, Py4JError) as error:
        doing = f"cannot optimize {table_name}"
        if is_concurrent(error):
            raise ConcurrentWriteError(f"{doing}: another writer changed the same files; run it again") from error
        raise StorageError(explain(error, doing)) from error


def _check_retention(hours: int, *, force: bool) -> None:
    if not isinstance(hours, int) or isinstance(hours, bool) or hours < 0:
        raise StorageError(f"retention_hours must be a whole number of hours, not {hours!r}")
    if hours < SAFE_RETENTION_HOURS and not force:
        raise StorageError(
            f"a retention of {hours} h is under the safe {SAFE_RETENTION_HOURS} h: slow readers and time travel "
            "may need the files; force it if nothing else uses the table"
        )


def _expired(table: DeltaTable, retention_hours: int, *, dry_run: bool) -> tuple[str, ...]:
    try:
        files = table.vacuum(
            retention_hours,
            dry_run=dry_run,
            # The limit is checked before, against the safe one.
            enforce_retention_duration=False,
            full=True,
            commit_properties=CommitProperties(max_commit_retries=20),
            post_commithook_properties=_KEEP_LOG,
        )
    except (DeltaError, OSError) as error:
        raise StorageError(explain(error, f"cannot vacuum {table.table_uri}")) from error
    return tuple(sorted(files))


def _sizes(table: DeltaTable, lake: Lake, files: Sequence[str]) -> dict[str, int]:
    """Ask the store, for the log does not know the files of writes that never committed."""
    if not files:
        return {}
    store = DeltaStorageHandler(table.table_uri, lake.root.options())
    return {file: info.size or 0 for file, info in zip(files, store.get_file_info(list(files)), strict=True)}
