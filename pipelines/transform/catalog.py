"""The session's catalog, filled before dbt looks at it: bronze at pinned versions, silver and gold as they lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipelines.storage.layers import LAYERS
from pipelines.transform.extent import moment
from pipelines.transform.sources import SCHEMA as BRONZE
from pipelines.transform.sources import source_tables

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from pipelines.contracts import Contract
    from pipelines.storage import DeltaLakeManager
    from pipelines.storage.travel.pins import Pin

VIEWS = "staging"


def fill(spark: SparkSession, manager: DeltaLakeManager, pins: Mapping[str, Pin], suffix: str) -> None:
    """Make the databases anew and register what the lake holds; touches no table.

    Without this an incremental model would not find its table and be created over it: the catalog is in memory, and
    another process's tables are not in it.

    Args:
        spark: the session.
        manager: the lake.
        pins: the versions of the bronze tables that are there; of the others there will be an empty one.
        suffix: of the names of all databases but bronze.
    """
    for database in (BRONZE, VIEWS + suffix, *(layer + suffix for layer in LAYERS)):
        # Every table in them is an external one: what goes is the name.
        spark.sql(f"drop database if exists {_quoted(database)} cascade")
        spark.sql(f"create database {_quoted(database)}")
    for table, contract in source_tables().items():
        spark.sql(f"create view {_quoted(BRONZE)}.{_quoted(table)} as {_select(contract, pins.get(table))}")
    for schema in (layer + suffix for layer in LAYERS):
        layer = manager.layer(schema)
        for name in layer.names():
            spark.sql(f"create table {_quoted(schema)}.{_quoted(name)} using delta location '{layer.spark_uri(name)}'")


def _select(contract: Contract, pin: Pin | None) -> str:
    """Return the contract's columns of a pinned version; of a column it lacks, nulls; of no table, no rows."""
    present = () if pin is None else pin.columns
    columns = ", ".join(
        _quoted(column.name) if column.name in present else f"cast(null as {column.type}) as {_quoted(column.name)}"
        for column in contract.columns
    )
    if pin is None:
        return f"select {columns} where false"
    known = "" if pin.ingested_by is None else f" where ingested_at <= {moment(pin.ingested_by)}"
    return f"select {columns} from delta.{_quoted(pin.address)} version as of {pin.version}{known}"  # noqa: S608 - quoted


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
