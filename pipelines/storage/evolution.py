"""Brings a table to its contract: new nullable columns are added, what would lose or change data is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, DeltaError

from pipelines.errors import ContractError, StorageError
from pipelines.storage.files import partition_columns
from pipelines.storage.scan import physical_schema
from pipelines.storage.stores.locks import turn

if TYPE_CHECKING:
    from pipelines.contracts import Column, Contract
    from pipelines.storage.lake import Lake

CONTRACT_ID = "lakehouse.contract.id"
CONTRACT_VERSION = "lakehouse.contract.version"
_CONSTRAINT = "delta.constraints."
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class _Difference:
    """What a table lacks of its contract, and why the contract cannot be had."""

    added: tuple[Column, ...]
    loosened: tuple[str, ...]
    outdated: bool
    constraints: dict[str, str]
    refused: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.loosened or self.outdated or self.constraints)


def delta_schema(columns: tuple[Column, ...]) -> Schema:
    """Return columns as a Delta schema with their comments."""
    fields = [
        pa.field(c.name, c.arrow_type, nullable=not c.required).with_metadata({"comment": c.description})
        for c in columns
    ]
    return Schema.from_arrow(pa.schema(fields))


def bring_to_contract(lake: Lake, table_name: str, contract: Contract) -> DeltaTable:
    """Add the columns and CHECK constraints that a table lacks; safe when several processes do it at once.

    It lacks them when its contract has gained nullable columns or changed its rules, when it is new, or when whoever
    made it was killed. The contract's version is recorded last.

    Args:
        lake: the lake.
        table_name: the table.
        contract: what it is to keep to.

    Returns:
        The table, opened at the version with the changes.

    Raises:
        ContractError: a column was dropped, renamed, retyped or made required, or the partitioning changed; shows the
            difference. Nothing was changed.
        StorageError: the table cannot be written, or rows in it break a new rule.
    """
    table = lake.open(table_name)
    if not _checked(table, table_name, contract):
        return table
    problem = "other writers were faster"
    with turn(lake.root, table_name):
        for _ in range(_ATTEMPTS):
            table = lake.open(table_name)
            difference = _checked(table, table_name, contract)
            if not difference:
                return table
            try:
                _apply(table, contract, difference)
            except (CommitFailedError, DeltaError) as error:
                # Somebody who takes no turns may have done it.
                problem = str(error).strip().splitlines()[0]
    raise StorageError(f"cannot bring {table_name} to version {contract.version} of its contract: {problem}")


def _checked(table: DeltaTable, table_name: str, contract: Contract) -> _Difference:
    difference = _difference(table, contract)
    if difference.refused:
        raise ContractError(_refusal(table, table_name, contract, difference.refused))
    return difference


def _apply(table: DeltaTable, contract: Contract, difference: _Difference) -> None:
    if difference.added:
        table.alter.add_columns(list(delta_schema(difference.added).fields))
    for name in difference.loosened:
        table.alter.drop_column_not_null(name)
    if difference.outdated:
        # delta-rs rewrites an expression to store it, so only the version tells whether a rule has changed.
        for name in _constraints(table):
            table.alter.drop_constraint(name)
        rules = _rules(contract)
        if rules:
            table.alter.add_constraint(rules)
        table.alter.set_table_properties({CONTRACT_VERSION: contract.version}, raise_if_not_exists=False)
    elif difference.constraints:
        table.alter.add_constraint(difference.constraints)


def _rules(contract: Contract) -> dict[str, str]:
    return {constraint_name(rule.reason): rule.expression for rule in contract.row_rules if rule.check_constraint}


def _constraints(table: DeltaTable) -> set[str]:
    present = table.metadata().configuration
    return {name.removeprefix(_CONSTRAINT) for name in present if name.startswith(_CONSTRAINT)}


def constraint_name(reason: str) -> str:
    """Return the name of the CHECK constraint that enforces a row rule."""
    return re.sub(r"[^a-z0-9]+", "_", reason.lower()).strip("_")


def _difference(table: DeltaTable, contract: Contract) -> _Difference:
    present = {field.name: field for field in physical_schema(table)}
    declared = {column.name: column for column in contract.columns}
    added = [column for name, column in declared.items() if name not in present]
    shared = [(present[name], column) for name, column in declared.items() if name in present]
    refused = [
        f"- {name} {field.type}: the table has it, the contract does not"
        for name, field in present.items()
        if name not in declared
    ]
    refused += [f"+ {column.name} {column.type}: new, but required" for column in added if column.required]
    refused += [
        f"~ {column.name}: {field.type} in the table, {column.arrow_type} in the contract"
        for field, column in shared
        if field.type != column.arrow_type
    ]
    refused += [
        f"~ {column.name}: may be null in the table, required in the contract"
        for field, column in shared
        if field.nullable and column.required
    ]
    if list(contract.partition_columns) != partition_columns(table):
        refused.append(
            f"~ partitioned by {', '.join(partition_columns(table)) or 'nothing'} in the table, "
            f"by {', '.join(contract.partition_columns) or 'nothing'} in the contract"
        )
    loosened = [column.name for field, column in shared if not field.nullable and not column.required]
    missing = {name: rule for name, rule in _rules(contract).items() if name not in _constraints(table)}
    outdated = table.metadata().configuration.get(CONTRACT_VERSION) != contract.version
    return _Difference(tuple(added), tuple(loosened), outdated, missing, tuple(refused))


def _refusal(table: DeltaTable, table_name: str, contract: Contract, refused: tuple[str, ...]) -> str:
    made = table.metadata().configuration.get(CONTRACT_VERSION) or "none"
    lines = "\n".join(f"  {line}" for line in refused)
    return (
        f"{table_name} was written under version {made} of the contract {contract.id} and cannot be brought to version "
        f"{contract.version}:\n{lines}\n"
        "A contract may gain nullable columns; for anything else give the new shape another id, and so a table of its "
        "own. If the table is ahead of the contract, update this installation."
    )
