"""The embedded engine: delta-rs in this process, for one machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import (
    CommitProperties,
    DeltaTable,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError
from typing_extensions import override

from pipelines.errors import StorageError
from pipelines.storage.creation import CODEC, property_of
from pipelines.storage.delta_rs import KEEP_LOG
from pipelines.storage.engines.base import TRANSACTION_APP, Engine, Ticket
from pipelines.storage.faults import explain
from pipelines.storage.files import partition_columns
from pipelines.storage.results import Merged, Rewritten
from pipelines.storage.scan import literal, quoted
from pipelines.storage.undeclared import contract_of
from pipelines.storage.upkeep.compaction import Layout, compact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.config import Settings
    from pipelines.contracts import Contract
    from pipelines.storage.files import Partition
    from pipelines.storage.lake import Lake
    from pipelines.storage.writing.update import Bound, Change


class EmbeddedEngine(Engine):
    """Writes with delta-rs. Every commit is put only if its version is absent, on disk and on S3."""

    def __init__(self, lake: Lake, settings: Settings) -> None:
        self._lake = lake
        self._target_bytes = settings.storage.maintenance.target_file_mib << 20

    @override
    def warm_up(self) -> None:
        """There is nothing to warm."""

    @override
    def append(self, table: DeltaTable, table_name: str, contract: Contract, rows: pa.Table, ticket: Ticket) -> None:
        numbers = {TRANSACTION_APP: ticket.transaction, **ticket.marks}
        # No retry of its own: what was decided upon this version holds for no other.
        commit = CommitProperties(
            custom_metadata={"userMetadata": ticket.tag},
            max_commit_retries=0,
            app_transactions=[Transaction(app, number) for app, number in numbers.items()],
        )
        try:
            if not rows.num_rows:
                table.create_write_transaction(
                    [],
                    mode="append",
                    schema=table.schema(),
                    partition_by=partition_columns(table) or None,
                    commit_properties=commit,
                    post_commithook_properties=KEEP_LOG,
                )
                return
            write_deltalake(
                table,
                rows,
                mode="append",
                writer_properties=writer_properties(table),
                commit_properties=commit,
                post_commithook_properties=KEEP_LOG,
            )
        except CommitFailedError:
            return
        except (DeltaError, OSError, pa.ArrowException) as error:
            raise StorageError(explain(error, f"cannot write {table_name}")) from error

    @override
    def optimize(self, table_name: str, chosen: frozenset[Partition] | None, zorder: Sequence[str]) -> Rewritten:
        event_time = contract_of(self._lake, table_name).event_time
        # In order of time unless another is wanted: readers then skip row groups.
        order = tuple(zorder) or ((event_time,) if event_time else ())
        return compact(self._lake, table_name, chosen, Layout(self._target_bytes, order, rewrite_all=bool(zorder)))

    @override
    def merge(self, table: DeltaTable, table_name: str, change: Change) -> Merged | None:
        matched = " AND ".join(
            [*(f"t.{quoted(k)} = s.{quoted(k)}" for k in change.keys), *map(_bounded, change.bounds)]
        )
        differs = " OR ".join(f"t.{quoted(c)} IS DISTINCT FROM s.{quoted(c)}" for c in change.updates)
        merger = table.merge(
            change.rows,
            matched,
            source_alias="s",
            target_alias="t",
            writer_properties=writer_properties(table),
            commit_properties=CommitProperties(max_commit_retries=0),
            post_commithook_properties=KEEP_LOG,
        )
        if change.updates:
            merger = merger.when_matched_update({quoted(c): f"s.{quoted(c)}" for c in change.updates}, differs)
        try:
            done = merger.when_not_matched_insert(
                {quoted(c): f"s.{quoted(c)}" for c in change.rows.column_names}
            ).execute()
        except CommitFailedError:
            return None
        except (DeltaError, OSError, pa.ArrowException) as error:
            raise StorageError(explain(error, f"cannot merge into {table_name}")) from error
        return Merged(table.version(), int(done["num_target_rows_updated"]), int(done["num_target_rows_inserted"]))


def _bounded(bound: Bound) -> str:
    name = f"t.{quoted(bound.column)}"
    if bound.is_range:
        return f"{name} BETWEEN {literal(bound.values[0])} AND {literal(bound.values[-1])}"
    return f"{name} IN ({', '.join(map(literal, bound.values))})"


def writer_properties(table: DeltaTable) -> WriterProperties:
    """Return how data files are written, as the table's properties have it; delta-rs itself does not look there."""
    codec = (property_of(table, CODEC) or "zstd").upper()
    return WriterProperties(compression="SNAPPY" if codec == "SNAPPY" else "GZIP" if codec == "GZIP" else "ZSTD")
