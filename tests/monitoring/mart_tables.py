"""Gold marts of two days in the columns that the dbt project declares, with made-up figures."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time

import pyarrow as pa
import yaml

from pipelines.config import PROJECT_ROOT

_GOLD = PROJECT_ROOT / "dbt" / "models" / "gold"
_DAYS = (date(2025, 12, 1), date(2025, 12, 2))
_TYPES = {
    "string": pa.string(), "date": pa.date32(), "timestamp": pa.timestamp("us", tz="UTC"), "double": pa.float64(),
    "bigint": pa.int64(), "int": pa.int32(),
}  # fmt: skip
_KEYS = {
    "book": ("coinbase", "paper"),
    "quote_currency": ("USD",),
    "asset_pair": ("ALL", "BTCUSD", "ETHUSD"),
    "ai_provider": ("claude", "gemini"),
    "strategy": ("debate", "voting", "fallback", "none"),
    "regime": ("trend", "range", "volatile", "unknown"),
}


def mart_tables() -> Mapping[str, pa.Table]:
    """Return each mart's rows, by its name."""
    found = {}
    for path in sorted(_GOLD.glob("mart_*.yml")):
        (model,) = yaml.safe_load(path.read_text(encoding="utf-8"))["models"]
        columns = {each["name"]: each["data_type"] for each in model["columns"]}
        schema = pa.schema([(name, _TYPES[kind]) for name, kind in columns.items()])
        found[model["name"]] = pa.Table.from_pylist(list(_rows(columns)), schema)
    return found


def _rows(columns: Mapping[str, str]) -> Iterator[dict[str, object]]:
    keys = [name for name in columns if name in _KEYS]
    # A row of the whole book is a matter of the performance alone, which goes by book and instrument.
    whole = "book" in keys
    for day, *values in itertools.product(_DAYS, *(_KEYS[name] for name in keys)):
        key = dict(zip(keys, values, strict=True))
        if whole or key.get("asset_pair") != "ALL":
            yield {name: key.get(name, _value(name, kind, day, key)) for name, kind in columns.items()}


def _value(name: str, kind: str, day: date, key: Mapping[str, str]) -> object:
    if kind in ("date", "timestamp"):
        return day if kind == "date" else datetime.combine(day, time(), UTC)
    number = zlib.crc32(f"{name} {day} {sorted(key.items())}".encode())
    if name == "profit_factor" and key.get("asset_pair") == "ETHUSD":
        # Nothing was lost.
        return None
    return number % 100 if kind in ("bigint", "int") else number % 10_000 / 1000 - 2
