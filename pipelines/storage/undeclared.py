"""Tables that no contract declares, such as those dbt makes: what can be known of them from their own log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import DeltaTable

from pipelines.contracts import Column, Contract, contract_for, load_contracts
from pipelines.storage.scan import physical_schema

if TYPE_CHECKING:
    from pipelines.storage.lake import Lake

_EVENT_TIME = "timestamp"
_DDL = {
    pa.string(): "string",
    pa.large_string(): "string",
    pa.bool_(): "boolean",
    pa.int8(): "tinyint",
    pa.int16(): "smallint",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.date32(): "date",
    pa.timestamp("us", "UTC"): "timestamp",
    pa.timestamp("us"): "timestamp_ntz",
    pa.binary(): "binary",
}


@dataclass(frozen=True, kw_only=True)
class UndeclaredContract(Contract):
    """A contract read off a table: no keys and no rules; event time is the column `timestamp` if there is one."""

    schema: pa.Schema

    @property
    def arrow_schema(self) -> pa.Schema:
        """All physical columns as the table has them, of types that no contract may use too."""
        return self.schema


def is_declared(table_name: str) -> bool:
    """Say whether a contract declares a table of that name."""
    return any(table_name in contract.tables for contract in load_contracts().values())


def contract_of(lake_or_table: Lake | DeltaTable, table_name: str) -> Contract:
    """Return the contract that declares a table, or else one derived from the schema that the table has.

    Args:
        lake_or_table: the lake, to look at the table as it is now; or the table, opened at the version that counts.
        table_name: the table.

    Raises:
        TableNotFoundError: undeclared, and not in the lake either; names the nearest.
    """
    if is_declared(table_name):
        return contract_for(table_name)
    table = lake_or_table if isinstance(lake_or_table, DeltaTable) else lake_or_table.open(table_name)
    schema = physical_schema(table)
    partitions = table.metadata().partition_columns
    return UndeclaredContract(
        id=table_name,
        version="0",
        description=table.metadata().description or "",
        tables=(table_name,),
        columns=tuple(_column(field, partition=field.name in partitions) for field in schema),
        event_time=_EVENT_TIME if _is_instant(schema) else None,
        default_granularity=None,
        row_rules=(),
        freshness_minutes=None,
        is_log=False,
        schema=schema,
    )


def _is_instant(schema: pa.Schema) -> bool:
    return _EVENT_TIME in schema.names and pa.types.is_timestamp(schema.field(_EVENT_TIME).type)


def _column(field: pa.Field, *, partition: bool) -> Column:
    return Column(
        name=field.name,
        type=_ddl(field.type),
        description=((field.metadata or {}).get(b"comment") or b"").decode(),
        required=not field.nullable,
        key=False,
        partition=partition,
        restates=True,
        provided="source",
        allowed=(),
    )


def _ddl(kind: pa.DataType) -> str:
    """Return an Arrow type as Spark spells it."""
    if kind in _DDL:
        return _DDL[kind]
    if pa.types.is_struct(kind):
        return f"struct<{','.join(f'{field.name}:{_ddl(field.type)}' for field in kind)}>"
    if pa.types.is_map(kind):
        return f"map<{_ddl(kind.key_type)},{_ddl(kind.item_type)}>"
    if pa.types.is_list(kind):
        return f"array<{_ddl(kind.value_type)}>"
    return f"decimal({kind.precision},{kind.scale})" if pa.types.is_decimal(kind) else str(kind)
