"""Upserts: in place, or where a table is append-only as restatements, a new version of the row for each update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from pipelines.frames import as_arrow
from pipelines.storage.creation import property_of

if TYPE_CHECKING:
    from pipelines.config import Settings
    from pipelines.frames import Frame
    from pipelines.storage.engines import Engine
    from pipelines.storage.lake import Lake
    from pipelines.storage.results import AppendResult


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What became of the rows, each counted once.

    `duplicates` were replaced by a later row of the same key, `dlq_file` holds the rejected ones, `version` is the
    table's version with the merge, `run_id` what its rows carry in an append-only table.
    """

    table: str
    version: int
    run_id: str
    updated: int
    inserted: int
    unchanged: int
    rejected: int
    duplicates: int
    dlq_file: Path | None = None


class Append(Protocol):
    """The lake's idempotent append."""

    def __call__(self, table_name: str, data: pa.Table, run_id: str, *, synthetic: bool) -> AppendResult:
        """Append rows that the table does not have."""


def upsert(
    lake: Lake,
    settings: Settings,
    engine: Engine,
    append: Append,
    df: Frame,
    table_name: str,
    merge_keys: Sequence[str] | str,
    update_columns: Sequence[str] | str | None = None,
) -> MergeResult:
    """Update rows in some columns and insert new ones; doing it again changes nothing.

    An append-only table keeps every version, so an update adds one: the newest row of the key with `update_columns`
    changed. A row that names its provider concerns that provider's row; one that does not concerns the row of the best
    provider that has the key, in the order of `providers.chain`, then by name. Any other table is changed in place.
    The rows are held in memory.

    Args:
        lake: the lake.
        settings: for the provider order, the dead letter queue and the retries.
        engine: merges in place.
        append: lands rows idempotently.
        df: pandas, Arrow or Spark; asset pairs in any spelling, times as ISO text or instants, zoneless ones in UTC.
        table_name: an existing table.
        merge_keys: what identifies a row, as asset_pair and timestamp; provider may be left out.
        update_columns: what to change of a known row; by default all columns given. A null is a value like any other.

    Raises:
        TableNotFoundError: no such table; names the nearest.
        ContractError: unknown columns, or merge keys that are missing, null or do not identify a row.
        ConcurrentWriteError: other writers were faster on every attempt.
        StorageError: the table cannot be read or written; nothing was committed.
        OSError: the dead letter queue cannot be written; nothing was committed.
        TypeError: the frame is of no known kind.
    """
    rows, keys = as_arrow(df), _names(merge_keys)
    columns = None if update_columns is None else _names(update_columns)
    table = lake.open(table_name)
    if property_of(table, "delta.appendOnly") == "true":
        from pipelines.storage.writing.restate import restate  # noqa: PLC0415 - the edge is slow to import

        return restate(lake, settings, append, rows, table_name, keys, columns)
    from pipelines.storage.writing.update import update  # noqa: PLC0415 - one of the two

    done = update(lake, engine, settings.delta_lake.commit_retries, rows, table, table_name, keys, columns)
    return MergeResult(table_name, done.version, "", done.updated, done.inserted, done.unchanged, 0, done.duplicates)


def _names(given: Sequence[str] | str) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(dict.fromkeys(given))
