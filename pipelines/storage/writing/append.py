"""Appends decided rows through the engine; the commit happens once or not at all, whoever else is writing."""

from __future__ import annotations

import random
import time
import uuid
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.errors import ConcurrentWriteError, ContractError, StorageError
from pipelines.storage.creation import GRANULARITY, property_of
from pipelines.storage.delta_rs import landed_version
from pipelines.storage.engines.base import TRANSACTION_APP, Ticket
from pipelines.storage.partitions import add_partitions
from pipelines.storage.results import AppendResult
from pipelines.storage.stores.locks import turn
from pipelines.storage.writing.dedupe import Decision
from pipelines.storage.writing.marks import ByKey, Placement
from pipelines.timeframes import utc_now

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from pipelines.contracts import Column, Contract
    from pipelines.storage.engines import Engine
    from pipelines.storage.lake import Lake

_FIRST_BACKOFF_SECONDS = 0.05
_LAST_BACKOFF_SECONDS = 2.0


class Appender:
    """Appends to the tables of one lake."""

    def __init__(self, lake: Lake, engine: Engine, retries: int) -> None:
        self._lake = lake
        self._engine = engine
        self._retries = retries

    def append(
        self, table_name: str, contract: Contract, data: pa.Table, run_id: str, placement: Placement | None = None
    ) -> AppendResult:
        """Append the rows that the table does not have yet.

        Args:
            table_name: is there.
            contract: the table's.
            data: source and edge columns.
            run_id: the run that lands the rows.
            placement: decides what is written, and which marks with it; by default new and changed keys.

        Raises:
            ContractError: columns are missing, unknown or of a wrong type.
            ConcurrentWriteError: other writers were faster on every attempt.
            StorageError: the engine could not write; nothing was committed.
        """
        batch = conform(data, contract)
        with turn(self._lake.root, table_name):
            return self._append(table_name, contract, batch, run_id, placement or ByKey())

    def _append(
        self, table_name: str, contract: Contract, batch: pa.Table, run_id: str, placement: Placement
    ) -> AppendResult:
        tag = uuid.uuid4().hex
        for attempt in range(self._retries + 1):
            table = self._lake.open(table_name)
            granularity = property_of(table, GRANULARITY)
            decision, marks = placement.place(table, contract, batch, granularity, utc_now())
            version = table.version()
            if decision.rows.num_rows or marks:
                rows = _complete(decision, contract, granularity, run_id)
                ticket = Ticket(tag, (table.transaction_version(TRANSACTION_APP) or 0) + 1, version, marks)
                landed = self._commit(table, table_name, contract, rows, ticket)
                if landed is None:
                    # Not held up in the usual case: writers take turns. Jitter keeps losers apart.
                    backoff = min(_FIRST_BACKOFF_SECONDS * 2**attempt, _LAST_BACKOFF_SECONDS)
                    time.sleep(backoff * (0.5 + random.random()))  # noqa: S311 - no secret
                    continue
                version = landed
            return AppendResult(table_name, version, decision.kinds)
        raise ConcurrentWriteError(
            f"other writers of {table_name} committed first {self._retries + 1} times; run it again, "
            "or raise delta_lake.commit_retries"
        )

    def _commit(
        self, table: DeltaTable, table_name: str, contract: Contract, rows: pa.Table, ticket: Ticket
    ) -> int | None:
        """Write and return the version it landed as; None if another writer was faster."""
        try:
            self._engine.append(table, table_name, contract, rows, ticket)
        except StorageError:
            # It may have landed though its answer was lost.
            landed = self._landed(table_name, ticket)
            if landed is None:
                raise
            return landed
        # Delta skips, without a word, a transaction it takes for done already: only the log tells.
        return self._landed(table_name, ticket)

    def _landed(self, table_name: str, ticket: Ticket) -> int | None:
        return landed_version(self._lake.open(table_name), ticket.tag, ticket.seen)


def conform(data: pa.Table, contract: Contract) -> pa.Table:
    """Return the data with the contract's source and edge columns, in its order and types.

    Raises:
        ContractError: a column is missing, unknown, of a wrong type, or null though required.
    """
    expected = [column for column in contract.columns if column.provided != "storage"]
    names = [column.name for column in expected]
    missing, unknown = sorted(set(names) - set(data.column_names)), sorted(set(data.column_names) - set(names))
    if missing or unknown:
        problems = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unknown {', '.join(unknown)}"] * bool(
            unknown
        )
        raise ContractError(f"the batch for {contract.id} {' and '.join(problems)}")
    batch = pa.table({column.name: _typed(data[column.name], column, contract) for column in expected})
    nulls = [column.name for column in expected if column.required and batch[column.name].null_count]
    if nulls:
        raise ContractError(f"the batch for {contract.id} has nulls in required {', '.join(nulls)}")
    return batch


def _typed(values: pa.ChunkedArray, column: Column, contract: Contract) -> pa.ChunkedArray:
    try:
        return values.cast(column.arrow_type)
    except pa.ArrowException as error:
        problem = f"{column.name} is {values.type}, not {column.type}"
        raise ContractError(f"the batch for {contract.id} has a wrong type: {problem}: {error}") from error


def _complete(decision: Decision, contract: Contract, granularity: str | None, run_id: str) -> pa.Table:
    rows = decision.rows.append_column("run_id", pa.repeat(pa.scalar(run_id), decision.rows.num_rows))
    rows = add_partitions(rows, contract, granularity)
    return rows.select(contract.arrow_schema.names)
