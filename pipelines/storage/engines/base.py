"""What an engine does for storage: the writes. All else goes through delta-rs, whichever engine writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa
    from deltalake import DeltaTable

    from pipelines.contracts import Contract
    from pipelines.storage.files import Partition
    from pipelines.storage.results import Merged, Rewritten
    from pipelines.storage.writing.update import Change

# One application for all ingesting writers: Delta refuses a commit of it that did not see the one before.
TRANSACTION_APP = "lakehouse-ingest"


@dataclass(frozen=True, slots=True)
class Ticket:
    """What makes a commit ours and the next one: a tag to find it by, and the transaction after those of `seen`.

    Further transactions that go with it are `marks`: numbers by application.
    """

    tag: str
    transaction: int
    seen: int
    marks: Mapping[str, int] = field(default_factory=dict)


class Engine(Protocol):
    """Writes to the tables of one lake; every commit happens once or not at all, whoever else is writing."""

    def warm_up(self) -> None:
        """Bear the costs of a first commit now; does nothing the second time in a process."""

    def append(self, table: DeltaTable, table_name: str, contract: Contract, rows: pa.Table, ticket: Ticket) -> None:
        """Append complete rows in one commit upon version `ticket.seen`, or not at all.

        Returning says nothing about success: the caller looks for the ticket in the log.

        Args:
            table: open at version `ticket.seen`.
            table_name: its name.
            contract: what the rows keep to.
            rows: all physical columns of the contract, partition columns included; none where only marks are set.
            ticket: goes into the commit.

        Raises:
            StorageError: it could not be written; nothing was committed.
        """

    def optimize(self, table_name: str, chosen: frozenset[Partition] | None, zorder: Sequence[str]) -> Rewritten:
        """Rewrite the small files of partitions as few large ones in one commit; rows stay as they are.

        Args:
            table_name: the table.
            chosen: these partitions; all of them if None.
            zorder: cluster rows by these columns, also in partitions of a single file.

        Raises:
            ConcurrentWriteError: another writer changed the same files.
            StorageError: it failed; nothing was committed.
        """

    def merge(self, table: DeltaTable, table_name: str, change: Change) -> Merged | None:
        """Update the rows that differ and insert the new ones in one commit.

        Args:
            table: open at the version to merge into.
            table_name: its name.
            change: the rows.

        Returns:
            What was done, or None if another writer was faster and it has to be done again.

        Raises:
            StorageError: it failed; nothing was committed.
        """
