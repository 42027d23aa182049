"""Avro schemas beside the contracts' own files, and read by fastavro, which knows nothing of contracts."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import CONFIG_DIR, PROJECT_ROOT
from pipelines.contracts import Contract, load_contracts
from pipelines.streaming import schemas
from pipelines.streaming.schemas import avro_schema, message_columns, record_name

FILES = {
    "raw_market_ticks": "market_tick",
    "raw_market_data": "market_bar",
    "raw_news_sentiment": "news_sentiment",
    "raw_ai_decisions": "ai_decision",
    "raw_trade_executions": "trade_execution",
}
NAMES = {
    "market_tick": "MarketTick",
    "market_bar": "MarketBar",
    "news_sentiment": "NewsSentiment",
    "ai_decision": "AiDecision",
    "trade_execution": "TradeExecution",
}
AVRO = {
    "string": "string",
    "double": "double",
    "bigint": "long",
    "boolean": "boolean",
    "timestamp": {"type": "long", "logicalType": "timestamp-micros"},
    "date": {"type": "int", "logicalType": "date"},
    "array<string>": {"type": "array", "items": ["null", "string"]},
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def written(dataset: str) -> list[dict[str, Any]]:
    """Return the columns of a message as the contract's file has them."""
    document = yaml.safe_load((CONFIG_DIR / "contracts" / f"{dataset}.yaml").read_text(encoding="utf-8"))
    found = []
    for column in document["schema"][0]["properties"]:
        custom = {each["property"]: each["value"] for each in column.get("customProperties", [])}
        by = custom.get("providedBy", "source")
        if by == "source" or (by == "edge" and column["name"] in ("asset_pair", "timeframe")):
            found.append(column)
    return found


def file_of(dataset: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((PROJECT_ROOT / "schemas" / f"{FILES[dataset]}.avsc").read_text("utf-8"))
    return found


def test_the_files_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert schemas.main(["--check"]) == 0, "run python -m pipelines.streaming.schemas"
    assert capsys.readouterr().err == ""
    assert {path.stem for path in schemas.SCHEMAS.glob("*.avsc")} == set(FILES.values())


def test_a_stale_file_is_noticed_and_written_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--folder", str(tmp_path)]
    assert schemas.main(["--check", *folder]) == 1
    assert schemas.main(folder) == 0
    assert schemas.main(["--check", *folder]) == 0
    (tmp_path / "market_bar.avsc").write_text("{}", encoding="utf-8")
    capsys.readouterr()
    assert schemas.main(["--check", *folder]) == 1
    assert "market_bar.avsc is stale" in capsys.readouterr().err


@pytest.mark.parametrize("dataset", FILES)
def test_a_schema_is_what_its_contract_says(dataset: str) -> None:
    schema, columns = file_of(dataset), written(dataset)
    assert (schema["type"], schema["namespace"]) == ("record", "finance.lakehouse")
    assert schema["name"] == NAMES[FILES[dataset]]
    assert [field["name"] for field in schema["fields"]] == [column["name"] for column in columns]
    for field, column in zip(schema["fields"], columns, strict=True):
        assert field["doc"].startswith(column["description"])
        kind = column["physicalType"]
        if column.get("required"):
            assert field["type"] == AVRO[kind]
            assert "default" not in field
        else:
            assert field["default"] is None
            assert field["type"][0] == "null"
            assert kind not in AVRO or field["type"][1] == AVRO[kind]


def test_what_a_tick_carries() -> None:
    """It says its provider itself; where it lay in Kafka and when it landed is not for it to say."""
    assert [column.name for column in message_columns(load_contracts()["raw_market_ticks"])] == [
        "asset_pair", "timestamp", "price", "volume", "bid", "ask", "side", "tick_id", "provider",
    ]  # fmt: skip
    assert [column.name for column in message_columns(load_contracts()["raw_market_data"])] == [
        "asset_pair", "timeframe", "timestamp", "open", "high", "low", "close", "volume",
    ]  # fmt: skip


@pytest.mark.parametrize("dataset", sorted(load_contracts()))
def test_every_dataset_has_a_schema_that_an_independent_reader_takes(dataset: str) -> None:
    contract = load_contracts()[dataset]
    parsed = fastavro.parse_schema(avro_schema(contract))
    assert isinstance(parsed, dict)
    assert parsed["name"].startswith("finance.lakehouse.")
    assert record_name(contract).isidentifier()


def values(kind: pa.DataType, *, nullable: bool) -> st.SearchStrategy[Any]:
    """Return values as Python has them; times have microseconds, and floats may be anything but NaN."""
    if pa.types.is_list(kind):
        found: st.SearchStrategy[Any] = st.lists(values(kind.value_type, nullable=True), max_size=3)
    elif pa.types.is_struct(kind):
        found = st.fixed_dictionaries({part.name: values(part.type, nullable=True) for part in kind})
    elif pa.types.is_timestamp(kind):
        found = st.integers(-(10**15), 4 * 10**15).map(lambda micros: EPOCH + timedelta(microseconds=micros))
    else:
        found = {
            pa.string(): st.text(max_size=20),
            pa.float64(): st.floats(allow_nan=False),
            pa.int64(): st.integers(-(2**63), 2**63 - 1),
            pa.bool_(): st.booleans(),
            pa.date32(): st.dates(),
        }[kind]
    return st.none() | found if nullable else found


def rows(contract: Contract) -> st.SearchStrategy[dict[str, Any]]:
    columns = message_columns(contract)
    return st.fixed_dictionaries({each.name: values(each.arrow_type, nullable=not each.required) for each in columns})


@pytest.mark.parametrize("dataset", FILES)
@given(data=st.data())
def test_rows_of_a_contract_survive(dataset: str, data: st.DataObject) -> None:
    contract = load_contracts()[dataset]
    row = data.draw(rows(contract))
    schema = fastavro.parse_schema(file_of(dataset))
    sent = io.BytesIO()
    fastavro.schemaless_writer(sent, schema, row, strict=True)
    assert fastavro.schemaless_reader(io.BytesIO(sent.getvalue()), schema, None) == row


def test_a_message_without_what_may_be_null_is_read() -> None:
    """A producer whose schema is older has no such field."""
    schema = file_of("raw_market_ticks")
    older = schema | {"fields": [field for field in schema["fields"] if "default" not in field]}
    row = {"asset_pair": "BTCUSD", "timestamp": EPOCH, "price": 1.0, "tick_id": "1", "provider": "coinbase"}
    sent = io.BytesIO()
    fastavro.schemaless_writer(sent, fastavro.parse_schema(older), row)
    sent.seek(0)
    read = fastavro.schemaless_reader(sent, fastavro.parse_schema(older), fastavro.parse_schema(schema))
    assert read == row | dict.fromkeys(("volume", "bid", "ask", "side"))
