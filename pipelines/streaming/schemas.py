"""What a message of a dataset carries, and its Avro schema: `python -m pipelines.streaming.schemas [--check]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from pipelines.config import PROJECT_ROOT, StreamingSettings
from pipelines.contracts import Column, Contract, load_contracts
from pipelines.generated import write_or_check

SCHEMAS = PROJECT_ROOT / "schemas"
NAMESPACE = "finance.lakehouse"
# Columns that the edge fills where it knows them of a whole page; a message says them itself.
_SAID_BY_THE_MESSAGE = frozenset({"asset_pair", "timeframe"})
# Records whose name is not simply the dataset's, in the singular.
_RECORDS: Mapping[str, str] = {"raw_market_data": "market_bar"}
_PRIMITIVES: Mapping[pa.DataType, object] = {
    pa.string(): "string",
    pa.float64(): "double",
    pa.int64(): "long",
    pa.bool_(): "boolean",
    pa.date32(): {"type": "int", "logicalType": "date"},
    pa.timestamp("us", "UTC"): {"type": "long", "logicalType": "timestamp-micros"},
}


def message_columns(contract: Contract) -> tuple[Column, ...]:
    """Return the columns that a message of the dataset carries, in the contract's order."""
    return tuple(
        column
        for column in contract.columns
        if column.provided == "source" or (column.provided == "edge" and column.name in _SAID_BY_THE_MESSAGE)
    )


def record_name(contract: Contract) -> str:
    """Return what one row of the dataset is called, as market_tick."""
    return _RECORDS.get(contract.id, contract.id.removeprefix("raw_").removesuffix("s"))


def avro_schema(contract: Contract) -> dict[str, object]:
    """Return the Avro record of the dataset's messages; instants are microseconds since 1970 in UTC."""
    name = _camel(record_name(contract))
    return {
        "type": "record",
        "name": name,
        "namespace": NAMESPACE,
        "doc": contract.description,
        "fields": [_field(column, name) for column in message_columns(contract)],
    }


def schema_files(folder: Path = SCHEMAS) -> Mapping[Path, str]:
    """Return the text of a schema file for each dataset that has a topic by default, by its path."""
    contracts = load_contracts()
    datasets = dict.fromkeys(topic.dataset for topic in StreamingSettings().topics.values())
    return {folder / f"{record_name(contracts[each])}.avsc": _text(contracts[each]) for each in datasets}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the schema files, or with --check compare them; returns 1 if one is stale."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.streaming.schemas", description="Writes schemas/*.avsc.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a schema is stale")
    parser.add_argument("--folder", type=Path, default=SCHEMAS, help="where the schemas are")
    given = parser.parse_args(arguments)
    return write_or_check(schema_files(given.folder), "pipelines.streaming.schemas", check=given.check)


def _text(contract: Contract) -> str:
    return json.dumps(avro_schema(contract), indent=2, ensure_ascii=False) + "\n"


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _field(column: Column, record: str) -> dict[str, object]:
    doc = column.description
    if column.allowed:
        doc = f"{doc} One of {', '.join(column.allowed)}."
    kind = _type(column.arrow_type, f"{record}{_camel(column.name)}")
    if column.required:
        return {"name": column.name, "type": kind, "doc": doc}
    return {"name": column.name, "type": ["null", kind], "default": None, "doc": doc}


def _type(kind: pa.DataType, name: str) -> object:
    """Return the Avro type; `name` is that of a record in it, which Avro wants to be unique in a schema."""
    if pa.types.is_list(kind):
        return {"type": "array", "items": _nullable(kind.value_field, name)}
    if pa.types.is_struct(kind):
        fields = [{"name": part.name, "type": _nullable(part, f"{name}{_camel(part.name)}")} for part in kind]
        return {"type": "record", "name": name, "fields": fields}
    return _PRIMITIVES[kind]


def _nullable(part: pa.Field, name: str) -> object:
    return ["null", _type(part.type, name)] if part.nullable else _type(part.type, name)


if __name__ == "__main__":
    sys.exit(main())
