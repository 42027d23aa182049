"""Table functions as Spark's workers call them, without Spark: what comes in as rows, goes out as declared."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from pipelines.contracts import arrow_type
from pipelines.transform.functions import FUNCTIONS, TableFunction, exposed_days_of, indicators_of, instruments_of
from tests.transform.test_runner import bars


def declared(function: TableFunction) -> dict[str, pa.DataType]:
    return {name: arrow_type(kind) for name, kind in (part.split(" ") for part in function.ddl.split(", "))}


def test_resumed_bars_equal_those_of_the_whole_history() -> None:
    rows = bars("BTCUSD", "5m", 0, 320)
    rows = rows.append_column(
        "ingested_at", pa.repeat(pa.scalar(datetime(2025, 6, 1, tzinfo=UTC), pa.timestamp("us", "UTC")), 320)
    )
    whole = indicators_of(rows)
    known = whole.slice(0, 250).append_column("is_known", pa.repeat(True, 250))
    new = whole.schema.empty_table()
    new = pa.table(
        {n: rows[n].slice(250) if n in rows.column_names else pa.nulls(70, whole[n].type) for n in new.column_names}
    )
    mixed = pa.concat_tables([new.append_column("is_known", pa.repeat(False, 70)), known])
    resumed = indicators_of(mixed)
    assert resumed.column_names == whole.column_names == list(declared(FUNCTIONS["lakehouse_indicators"]))
    assert resumed["timestamp"].equals(whole["timestamp"].slice(250))
    for name in ("sma_200", "rsi_14", "obv", "adx_14", "session_vwap"):
        assert resumed[name].to_pylist() == pytest.approx(whole[name].slice(250).to_pylist(), rel=1e-9, abs=1e-9), name


def test_known_rows_alone_give_nothing() -> None:
    rows = bars("BTCUSD", "5m", 0, 5)
    rows = rows.append_column("ingested_at", rows["timestamp"]).append_column("is_known", pa.repeat(True, 5))
    assert indicators_of(rows).num_rows == 0


def test_instruments_are_those_of_the_registry() -> None:
    found = instruments_of(pa.table({"asset_pair": ["BTCUSD", "EURUSD"]}))
    assert found.to_pylist() == [
        {"asset_pair": "BTCUSD", "asset_class": "crypto", "quote_currency": "USD", "round_the_clock": True},
        {"asset_pair": "EURUSD", "asset_class": "forex", "quote_currency": "USD", "round_the_clock": False},
    ]


def test_keys_come_back_in_front() -> None:
    opened = datetime(2025, 1, 1, 23, tzinfo=UTC)
    rows = pa.table(
        {
            "book": ["desk"], "quote_currency": ["USD"], "asset_pair": ["ALL"],
            "opened_at": pa.array([opened], pa.timestamp("us", "UTC")),
            "closed_at": pa.array([opened + timedelta(hours=2)], pa.timestamp("us", "UTC")),
        }
    )  # fmt: skip
    found = exposed_days_of(rows)
    assert found.column_names == list(declared(FUNCTIONS["lakehouse_exposed_days"]))
    assert found["exposed_seconds"].to_pylist() == [3600.0, 3600.0]
    assert set(found["book"].to_pylist()) == {"desk"}
