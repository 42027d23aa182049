"""Data contracts (Open Data Contract Standard v3): every schema and check derives from config/contracts/*.yaml."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import pyarrow as pa
import yaml
from pydantic import ValidationError

from pipelines.config import CONFIG_DIR, DeltaLakeSettings, Granularity
from pipelines.errors import ConfigError, ContractError
from pipelines.timeframes import Timeframe

if TYPE_CHECKING:
    from open_data_contract_standard.model import DataQuality, OpenDataContractStandard, SchemaObject, SchemaProperty
    from pyspark.sql.types import StructType

Provider = Literal["source", "edge", "storage"]
PARTITION_PREFIX = "partition_"
PARTITION_DATE = "partition_date"
SEVERITIES = ("error", "warning", "info")

_PRIMITIVES: Mapping[str, pa.DataType] = {
    "string": pa.string(),
    "double": pa.float64(),
    "bigint": pa.int64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", "UTC"),
}

_MINUTES = {"m": 1, "h": 60, "d": 1440}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a dataset; `type` is Spark DDL, `provided` says which stage fills it."""

    name: str
    type: str
    description: str
    required: bool
    key: bool
    partition: bool
    restates: bool
    provided: Provider
    allowed: tuple[str, ...]

    @property
    def arrow_type(self) -> pa.DataType:
        """The column's Arrow type; timestamps are microseconds in UTC."""
        return arrow_type(self.type)


@dataclass(frozen=True, slots=True)
class RowRule:
    """A check on one row: `expression` is SQL that is true for a good row, `reason` is what a refused one is told.

    Rules may read the columns `price_min`, `price_max`, `closes_at` and `now`, which the edge supplies, and those of
    severity warning also `spike_score` and `flat_run`; only the ones with `check_constraint` stand on the row alone and
    guard the table itself. `pipelines.rules` proves that a rule can work.
    """

    reason: str
    expression: str
    severity: str
    check_constraint: bool


@dataclass(frozen=True)
class Contract:
    """One dataset: its physical tables, columns, identity, partitioning and row rules."""

    id: str
    version: str
    description: str
    tables: tuple[str, ...]
    columns: tuple[Column, ...]
    event_time: str | None
    default_granularity: Granularity | None
    row_rules: tuple[RowRule, ...]
    freshness_minutes: float | None
    is_log: bool
    path: Path | None = field(default=None, compare=False, kw_only=True)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Columns that identify a row; several versions of it may exist."""
        return tuple(column.name for column in self.columns if column.key)

    @cached_property
    def value_columns(self) -> tuple[str, ...]:
        """Columns whose change makes a new version of a row, a restatement."""
        return tuple(c.name for c in self.columns if c.provided == "source" and not c.key and c.restates)

    @cached_property
    def partition_columns(self) -> tuple[str, ...]:
        """Physical partition columns, in order."""
        return tuple(column.name for column in self.columns if column.partition)

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """All physical columns; a required one is not nullable."""
        return pa.schema([pa.field(c.name, c.arrow_type, nullable=not c.required) for c in self.columns])

    def spark_schema(self) -> StructType:
        """Return all physical columns as a Spark schema with comments; needs no session."""
        from pyspark.sql.pandas.types import from_arrow_schema  # noqa: PLC0415 - Spark is slow to import
        from pyspark.sql.types import StructField, StructType  # noqa: PLC0415

        schema = from_arrow_schema(self.arrow_schema)
        return StructType(
            [
                StructField(field.name, field.dataType, field.nullable, {"comment": column.description})
                for field, column in zip(schema.fields, self.columns, strict=True)
            ]
        )

    def column(self, name: str) -> Column:
        """Return a column by name.

        Raises:
            ContractError: there is no such column.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise ContractError(f"{self.id} has no column {name!r}{_did_you_mean(name, [c.name for c in self.columns])}")

    def provided_by(self, *stages: Provider) -> tuple[Column, ...]:
        """Return the columns that the given stages fill."""
        return tuple(column for column in self.columns if column.provided in stages)

    def granularity(self, table_name: str, settings: DeltaLakeSettings) -> Granularity | None:
        """Return how a new table cuts event time into `partition_date`; None for an unpartitioned one."""
        if PARTITION_DATE not in self.partition_columns:
            return None
        usual = self.default_granularity or "day"
        timeframe = self.timeframe_of(table_name)
        return usual if timeframe is None else settings.partition_granularity.get(timeframe, usual)

    def timeframe_of(self, table_name: str) -> Timeframe | None:
        """Return the length of a table's bars; None for other datasets."""
        suffix = table_name.removeprefix(f"{self.id}_")
        return Timeframe(suffix) if suffix in set(Timeframe) else None

    def table_for(self, timeframe: Timeframe | None) -> str:
        """Return the physical table that holds a timeframe's rows."""
        return f"{self.id}_{timeframe.value}" if timeframe is not None else self.tables[0]


def arrow_type(ddl: str) -> pa.DataType:
    """Return the Arrow type of a Spark DDL type: a primitive, array<…> or struct<name:type,…>.

    Raises:
        ContractError: the type is not known.
    """
    text = ddl.strip()
    if text in _PRIMITIVES:
        return _PRIMITIVES[text]
    if match := re.fullmatch(r"array<(.+)>", text):
        return pa.list_(pa.field("element", arrow_type(match[1])))
    if match := re.fullmatch(r"struct<(.+)>", text):
        fields = [part.split(":", 1) for part in match[1].split(",")]
        return pa.struct([pa.field(name.strip(), arrow_type(kind)) for name, kind in fields])
    raise ContractError(f"unknown type {ddl!r}; use {', '.join(_PRIMITIVES)}, array<…> or struct<…>")


@cache
def load_contracts(folder: Path = CONFIG_DIR / "contracts") -> Mapping[str, Contract]:
    """Load every contract of a folder, by id.

    Raises:
        ConfigError: a file is not a valid contract; names the file and the key.
    """
    contracts = [_load(path) for path in sorted(folder.glob("*.yaml"))]
    if not contracts:
        raise ConfigError(f"no data contracts in {folder}")
    return {contract.id: contract for contract in contracts}


def contract_for(table_name: str) -> Contract:
    """Return the contract of a physical table.

    Raises:
        ContractError: no contract declares that table.
    """
    contracts = load_contracts()
    names = {table: contract for contract in contracts.values() for table in contract.tables}
    if table_name not in names:
        raise ContractError(f"no contract declares a table {table_name!r}{_did_you_mean(table_name, list(names))}")
    return names[table_name]


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=2)
    return f"; did you mean {' or '.join(close)}?" if close else f"; known: {', '.join(known)}"


def _load(path: Path) -> Contract:
    from open_data_contract_standard.model import OpenDataContractStandard  # noqa: PLC0415 - slow to import

    try:
        text = path.read_text(encoding="utf-8")
        # CSafeLoader is the C twin of safe_load; the pure Python one takes a second for these files.
        document = OpenDataContractStandard.model_validate(yaml.load(text, Loader=yaml.CSafeLoader))
        return _contract(document, path)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
    except (ContractError, KeyError, IndexError) as error:
        raise ConfigError(f"{path}: {error}") from None


def _contract(document: OpenDataContractStandard, path: Path) -> Contract:
    if not document.schema_ or not document.description:
        raise ContractError("needs a schema and a description")
    table = document.schema_[0]
    custom = _custom(table)
    identity = str(document.id)
    columns = tuple(_column(part) for part in table.properties or [])
    names = [name.strip() for name in custom.get("tables", identity).split(",")]
    return Contract(
        id=identity,
        version=str(document.version),
        description=document.description.purpose or "",
        tables=tuple(names),
        columns=columns,
        event_time=custom.get("eventTime"),
        default_granularity=cast("Granularity | None", custom.get("granularity")),
        row_rules=(*(_rule(q) for q in table.quality or [] if q.engine == "row"), *_set_rules(columns)),
        freshness_minutes=_freshness(document),
        is_log=custom.get("log") == "true",
        path=path,
    )


def _freshness(document: OpenDataContractStandard) -> float | None:
    latency = next((sla for sla in document.slaProperties or [] if sla.property == "latency"), None)
    return float(str(latency.value)) * _MINUTES[str(latency.unit)] if latency else None


def _column(part: SchemaProperty) -> Column:
    custom = _custom(part)
    allowed = next((q.arguments["validValues"] for q in part.quality or [] if q.arguments), ())
    arrow_type(part.physicalType or "")
    return Column(
        name=part.name or "",
        type=part.physicalType or "",
        description=part.description or "",
        required=bool(part.required),
        key=bool(part.primaryKey),
        partition=bool(part.partitioned),
        restates=custom.get("restates") != "false",
        provided=cast("Provider", custom.get("providedBy", "source")),
        allowed=tuple(str(value) for value in allowed),
    )


def _rule(quality: DataQuality) -> RowRule:
    severity = quality.severity or "error"
    if severity not in SEVERITIES:
        raise ContractError(f"quality rule {quality.name!r}: severity {severity!r}; use {', '.join(SEVERITIES)}")
    return RowRule(
        reason=quality.name or "",
        expression=str(quality.implementation),
        severity=severity,
        check_constraint=_custom(quality).get("deltaCheck") == "true",
    )


def _set_rules(columns: Sequence[Column]) -> Iterator[RowRule]:
    """Yield a rule for each column of the source that has a set of valid values."""
    for column in columns:
        if column.allowed and column.provided == "source" and not column.partition:
            values = ", ".join(f"'{value}'" for value in column.allowed)
            # A constraint that comes out as null is broken.
            or_none = "" if column.required else f"{column.name} IS NULL OR "
            rule = f"{or_none}{column.name} IN ({values})"
            yield RowRule(f"unknown {column.name}", rule, "error", check_constraint=True)


def _custom(part: SchemaObject | SchemaProperty | DataQuality) -> dict[str, str]:
    pairs = [(str(c.property), c.value) for c in part.customProperties or []]
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in pairs}
