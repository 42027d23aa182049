"""Contracts: what derives from them."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from pipelines.config import CONFIG_DIR, DeltaLakeSettings
from pipelines.contracts import arrow_type, contract_for, load_contracts
from pipelines.errors import ConfigError, ContractError
from pipelines.timeframes import Timeframe

BRONZE = [
    "raw_market_data", "raw_market_ticks", "raw_news_sentiment", "raw_ai_decisions", "raw_trade_executions",
    "macro_indicators",
]  # fmt: skip


@pytest.mark.parametrize("name", BRONZE)
def test_bronze_contracts_have_identity_time_and_lineage(name: str) -> None:
    contract = load_contracts()[name]
    assert contract.keys
    assert contract.value_columns
    assert contract.event_time == "timestamp"
    assert contract.arrow_schema.field("timestamp").type == pa.timestamp("us", "UTC")
    assert {"provider", "run_id", "ingested_at", "partition_date"} <= set(contract.arrow_schema.names)
    assert all(column.description for column in contract.columns)


def test_market_data_is_one_contract_of_six_tables() -> None:
    contract = load_contracts()["raw_market_data"]
    assert contract.tables == tuple(f"raw_market_data_{t.value}" for t in Timeframe)
    assert all(contract_for(contract.table_for(t)) is contract for t in Timeframe)
    granularity = [contract.granularity(contract.table_for(t), DeltaLakeSettings()) for t in Timeframe]
    assert granularity == ["day", "day", "day", "month", "month", "year"]


def test_spark_and_arrow_schemas_agree() -> None:
    from pyspark.sql.pandas.types import to_arrow_schema

    for contract in load_contracts().values():
        spark = to_arrow_schema(contract.spark_schema())
        assert spark.names == contract.arrow_schema.names
        assert [f.nullable for f in spark] == [f.nullable for f in contract.arrow_schema]
        assert [f.type for f in spark] == [f.type for f in contract.arrow_schema]


@pytest.mark.parametrize("name", BRONZE)
def test_row_rules_are_sql_over_the_contract(name: str) -> None:
    contract = load_contracts()[name]
    extra = "NULL::DOUBLE price_min, NULL::DOUBLE price_max, NULL::TIMESTAMPTZ closes_at, NULL::TIMESTAMPTZ now"
    extra += ", NULL::DOUBLE spike_score, NULL::BIGINT flat_run"
    empty = contract.arrow_schema.empty_table()
    with duckdb.connect() as connection:
        connection.register("rows", empty)
        for rule in contract.row_rules:
            connection.sql(f"SELECT {rule.expression} FROM (SELECT *, {extra} FROM rows)").fetchall()


@pytest.mark.parametrize(
    ("ddl", "expected"),
    [
        ("double", pa.float64()),
        ("array<string>", pa.list_(pa.field("element", pa.string()))),
        ("struct<a:string,b:bigint>", pa.struct([("a", pa.string()), ("b", pa.int64())])),
    ],
)
def test_types(ddl: str, expected: pa.DataType) -> None:
    assert arrow_type(ddl) == expected


def test_unknown_types_and_tables_are_named() -> None:
    with pytest.raises(ContractError, match="decimal"):
        arrow_type("decimal")
    with pytest.raises(ContractError, match="raw_market_data_1m"):
        contract_for("raw_market_data_1n")
    with pytest.raises(ContractError, match="close"):
        load_contracts()["raw_market_data"].column("closs")


def test_a_broken_contract_names_its_file_and_key(tmp_path: Path) -> None:
    text = (CONFIG_DIR / "contracts" / "macro_indicators.yaml").read_text(encoding="utf-8")
    (tmp_path / "broken.yaml").write_text(text.replace("physicalType: double", "physicalType: dubble"))
    with pytest.raises(ConfigError, match=r"broken\.yaml.*dubble"):
        load_contracts(tmp_path)
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_contracts(tmp_path)
