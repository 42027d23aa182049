"""The embedded engine: delta-rs in this process, for one machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError
from typing_extensions import override

from pipelines.errors import StorageError
from pipelines.storage.creation import property_of
from pipelines.storage.engines.base import TRANSACTION_APP, Engine, Ticket
from pipelines.storage.faults import explain

if TYPE_CHECKING:
    from pipelines.contracts import Contract
    from pipelines.storage.lake import Lake

KEEP_LOG = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)
_CODEC = "delta.parquet.compression.codec"


class EmbeddedEngine(Engine):
    """Writes with delta-rs. Every commit is put only if its version is absent, on disk and on S3."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    @override
    def warm_up(self) -> None:
        """There is nothing to warm."""

    @override
    def append(self, table: DeltaTable, table_name: str, contract: Contract, rows: pa.Table, ticket: Ticket) -> None:
        try:
            write_deltalake(
                table,
                rows,
                mode="append",
                writer_properties=writer_properties(table),
                # No retry of its own: what was decided upon this version holds for no other.
                commit_properties=CommitProperties(
                    custom_metadata={"userMetadata": ticket.tag},
                    max_commit_retries=0,
                    app_transactions=[Transaction(TRANSACTION_APP, ticket.transaction)],
                ),
                post_commithook_properties=KEEP_LOG,
            )
        except CommitFailedError:
            return
        except (DeltaError, OSError, pa.ArrowException) as error:
            raise StorageError(explain(error, f"cannot write {table_name}")) from error


def writer_properties(table: DeltaTable) -> WriterProperties:
    """Return how data files are written, as the table's properties have it; delta-rs itself does not look there."""
    return WriterProperties(compression=(property_of(table, _CODEC) or "zstd").upper())
