"""Writes what dbt's project derives from declarations: `python -m pipelines.transform.sources`; `--check` compares.

The sources come from the contracts, the columns of models that table functions fill from those functions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipelines.config import PROJECT_ROOT
from pipelines.contracts import Column, Contract, contract_for, load_contracts
from pipelines.generated import write_or_check
from pipelines.transform import indicators, trades

MODELS = PROJECT_ROOT / "dbt" / "models"
SCHEMA = "bronze"
# What silver keeps of a bar in bronze, in this order.
BAR = (
    "asset_pair", "timeframe", "timestamp", "open", "high", "low", "close", "volume", "provider", "price_side",
    "is_adjusted", "is_derived", "ingested_at",
)  # fmt: skip
# What models read of ticks are the bars that are made of them.
_UNREAD = frozenset({"raw_market_ticks"})
_HEADER = "# Written by `python -m pipelines.transform.sources`; edit what it is made from ({}), not this file.\n"


def source_contracts() -> list[Contract]:
    """Return the contracts of bronze that models read, in the order of their files."""
    return [each for each in load_contracts().values() if not each.is_log and each.id not in _UNREAD]


def source_tables() -> dict[str, Contract]:
    """Return the bronze tables that models may read, each with its contract."""
    return {table: contract for contract in source_contracts() for table in contract.tables}


def sources_page(contracts: Iterable[Contract]) -> str:
    """Return the file, in YAML: a source table per physical table, with columns, descriptions and tests."""
    source = {
        "name": SCHEMA,
        "schema": SCHEMA,
        "description": "What providers served: append-only, several versions and providers of a row side by side.",
        "tables": [_table(table, contract) for contract in contracts for table in contract.tables],
    }
    return _page({"sources": [source]}, "config/contracts")


def pages() -> Mapping[Path, str]:
    """Return every generated file, by its path in the folder of the models."""
    return {
        Path("staging/sources.yml"): sources_page(source_contracts()),
        Path("staging/staging.yml"): _staging_page(),
        Path("silver/market_data_enriched.yml"): _enriched_page(),
        Path("silver/trade_lifecycle.yml"): _lots_page(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or with --check compare them; returns 1 if one is stale."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.transform.sources", description=(__doc__ or "").partition(":")[0]
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is stale")
    parser.add_argument("--models", type=Path, default=MODELS, help="the folder of dbt's models")
    given = parser.parse_args(arguments)
    found = {given.models / name: page for name, page in pages().items()}
    return write_or_check(found, "pipelines.transform.sources", check=given.check)


def _staging_page() -> str:
    models = [_staged(table, contract) for table, contract in source_tables().items()]
    models.append(_staged("raw_market_data", contract_for("raw_market_data_1m")))
    return _page({"models": models}, "config/contracts")


def _staged(table: str, contract: Contract) -> dict[str, Any]:
    """Return the view of a table: of each key the newest version, of a bar the best provider's."""
    bars = contract.id == "raw_market_data"
    keys = [column.name for column in contract.columns if column.key and column.name != "provider"]
    kept = [column for column in contract.columns if column.name != "run_id"]
    which = "the newest version from the best provider (var provider_priority)"
    return {
        "name": f"stg_{table.removeprefix('raw_')}",
        "description": f"{contract.description} Of each {', '.join(keys)} one: {which}.",
        "columns": [_described(column.name, column.type, column.description) for column in kept],
        "data_tests": [_unique(["timeframe", *keys] if bars else keys)],
    }


def _enriched_page() -> str:
    contract = contract_for("raw_market_data_1m")
    bar = [contract.column(name) for name in BAR]
    computed = [
        {"name": column.name, "data_type": column.type, "description": column.description}
        for column in indicators.COLUMNS
    ]
    model = {
        "name": "market_data_enriched",
        "description": (
            "One row per bar with its indicators: the newest version of the best provider. Every value is of the "
            "row's own and earlier bars, and is known at the bar's close, timestamp + timeframe. Columns state_* are "
            "there for the next run to go on from."
        ),
        "columns": [
            *(_described(column.name, column.type, column.description) for column in bar),
            *computed,
            _described("partition_date", "date", "Month of the bar, for 1h and longer the year, UTC."),
        ],
        "data_tests": [
            _unique(["asset_pair", "timeframe", "timestamp"]),
            _never_null([column.name for column in bar if column.required]),
        ],
    }
    return _page({"models": [model]}, "config/contracts, pipelines/transform/indicators/spec.py")


def _lots_page() -> str:
    columns = [
        _described(field.name, kind.split(" ")[1], field.metadata[b"description"].decode())
        for field, kind in zip(trades.LOTS, trades.ddl(trades.LOTS).split(", "), strict=True)
    ]
    required = ["lot_id", "book", "asset_pair", "side", "status", "opened_at", "quantity", "entry_price"]
    model = {
        "name": "trade_lifecycle",
        "description": (
            "One row per lot: executions matched first in, first out, within a book and an instrument, with what they "
            "earned; open positions at the last close that is known."
        ),
        "columns": columns,
        "data_tests": [_unique(["book", "asset_pair", "lot_id"]), _never_null(required)],
    }
    return _page({"models": [model]}, "pipelines/transform/trades/spec.py")


def _page(document: Mapping[str, object], origin: str) -> str:
    text = yaml.safe_dump({"version": 2, **document}, sort_keys=False, allow_unicode=True, width=116)
    return _HEADER.format(origin) + text


def _described(name: str, kind: str, description: str) -> dict[str, Any]:
    return {"name": name, "data_type": kind, "description": description}


def _unique(columns: Sequence[str]) -> dict[str, Any]:
    return {"unique_together": {"arguments": {"columns": list(columns)}}}


def _never_null(columns: Sequence[str]) -> dict[str, Any]:
    return {"never_null": {"arguments": {"columns": list(columns)}}}


def _table(table: str, contract: Contract) -> dict[str, Any]:
    return {
        "name": table,
        "description": f"{contract.description} Contract {contract.id} {contract.version}.",
        "columns": [_column(column) for column in contract.columns],
    }


def _column(column: Column) -> dict[str, Any]:
    tests: list[Any] = ["not_null"] if column.required else []
    if column.allowed:
        tests.append({"accepted_values": {"arguments": {"values": list(column.allowed)}}})
    found = {"name": column.name, "description": column.description, "data_type": column.type}
    return found | ({"data_tests": tests} if tests else {})


if __name__ == "__main__":
    sys.exit(main())
