"""Suites from contracts on pandas, Arrow and Spark: each planted defect blamed, no false alarm, failed rows kept."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pytest

from pipelines.contracts import load_contracts
from pipelines.data_quality import DataQualityFramework, DeadLetterQueue
from pipelines.data_quality.expectations_suite import ValidationOutcome
from pipelines.errors import ContractError
from pipelines.monitoring.metrics import data_quality_checks_total
from pipelines.timeframes import utc_now

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FIRST = datetime(2025, 1, 6, tzinfo=UTC)
ROWS = 3_000
Build = Callable[[pa.Table], Any]


@pytest.fixture(scope="module")
def framework() -> DataQualityFramework:
    """One for all tests, since Great Expectations is slow to import; its queue is set by `dq`."""
    return DataQualityFramework(dlq=DeadLetterQueue(Path("unused")))


@pytest.fixture
def dq(framework: DataQualityFramework, tmp_path: Path) -> DataQualityFramework:
    framework._dlq = DeadLetterQueue(tmp_path / "dlq")
    return framework


@pytest.fixture(params=["pandas", "arrow", pytest.param("spark", marks=pytest.mark.spark)])
def build(request: pytest.FixtureRequest) -> Build:
    """Make a frame of an Arrow table on each engine."""
    if request.param == "arrow":
        return lambda table: table
    if request.param == "pandas":
        return lambda table: table.to_pandas()
    spark: SparkSession = request.getfixturevalue("spark")
    return spark.createDataFrame


def bars(count: int = ROWS, **columns: Any) -> dict[str, list[Any]]:
    """Sound 1m bars of three assets, as stored."""
    assets = ["BTCUSD", "EURUSD", "^TNX"]
    base: dict[str, list[Any]] = {
        "asset_pair": [assets[i % 3] for i in range(count)],
        "timeframe": ["1m"] * count,
        "timestamp": [FIRST + timedelta(minutes=i) for i in range(count)],
        "open": [10.0] * count,
        "high": [11.0] * count,
        "low": [-0.5 if i % 3 == 2 else 9.0 for i in range(count)],
        "close": [10.5] * count,
        "volume": [None if i % 3 == 1 else 1.5 for i in range(count)],
        "provider": ["coinbase"] * count,
        "price_side": ["trade"] * count,
        "is_adjusted": [False] * count,
        "is_derived": [False] * count,
        "run_id": ["r1"] * count,
        "ingested_at": [FIRST + timedelta(days=30)] * count,
    }
    return base | columns


def table_of(columns: dict[str, list[Any]], contract_id: str = "raw_market_data") -> pa.Table:
    kinds = {column.name: column.arrow_type for column in load_contracts()[contract_id].columns}
    return pa.table({name: pa.array(values, kinds.get(name)) for name, values in columns.items()})


DEFECTS: list[tuple[dict[str, Any], str]] = [
    ({"high": 8.0}, "open not in range; close not in range"),
    ({"low": 10.9, "high": 10.8}, "high < low; open not in range; close not in range"),
    ({"close": 11.5}, "close not in range"),
    ({"open": 8.5, "low": 9.0}, "open not in range"),
    ({"asset_pair": "BTCUSD", "low": -1.0}, "negative price"),
    ({"asset_pair": "BTCUSD", "low": 9.0, "high": 2e6}, "price out of bounds"),
    ({"asset_pair": "EURUSD", "low": 0.00001}, "price out of bounds"),
    ({"asset_pair": "^TNX", "low": -11.0}, "price out of bounds"),
    ({"volume": -1.0}, "negative volume"),
    ({"close": None}, "null close"),
    ({"asset_pair": None}, "null asset_pair"),
    ({"timestamp": None}, "null timestamp"),
    ({"close": float("inf")}, "infinite close"),
    ({"low": float("-inf"), "asset_pair": "BTCUSD"}, "infinite low"),
    ({"timestamp": utc_now() + timedelta(hours=1)}, "bar not closed yet"),
    ({"price_side": "last"}, "unknown price_side"),
    ({"timeframe": "2h"}, "unknown timeframe"),
    ({"asset_pair": "NONSENSE!"}, "unknown asset"),
]


def planted(nan: str) -> tuple[dict[str, list[Any]], dict[int, str]]:
    """Return bars with every defect planted many times, and the reason of each planted row."""
    columns, wanted = bars(), {}
    kinds = [*DEFECTS, ({"close": float("nan")}, nan)]
    for at in range(50, ROWS, 17):
        values, reason = kinds[at % len(kinds)]
        if values.get("high") == 8.0 and columns["low"][at] == 9.0:
            reason = f"high < low; {reason}"
        for name, value in values.items():
            columns[name][at] = value + timedelta(minutes=at) if isinstance(value, datetime) else value
        wanted[at] = reason
    columns["number"] = list(range(ROWS))
    return columns, wanted


def letters(outcome: ValidationOutcome) -> dict[str, Any]:
    assert outcome.dlq_file
    document: dict[str, Any] = json.loads(outcome.dlq_file.read_text(encoding="utf-8"))
    return document


def test_sound_rows_raise_no_alarm(dq: DataQualityFramework, build: Build, tmp_path: Path) -> None:
    outcome = dq.validate_dataframe(build(table_of(bars())))
    assert outcome
    assert [check for check in outcome.checks if not check.success] == []
    assert (outcome.total_rows, outcome.failed_rows, dict(outcome.reasons)) == (ROWS, 0, {})
    assert outcome.dlq_file is None
    assert not (tmp_path / "dlq").exists()


def test_every_planted_row_is_found_and_rightly_blamed(
    dq: DataQualityFramework, build: Build, request: pytest.FixtureRequest
) -> None:
    # pandas knows one missing value for numbers, so that its NaN is a null.
    columns, wanted = planted("null close" if "pandas" in request.node.name else "NaN close")
    outcome = dq.validate_dataframe(build(table_of(columns)))
    records = letters(outcome)["records"]
    assert {record["number"]: record["reason"] for record in records} == wanted
    assert len(records) == len(wanted) == outcome.failed_rows
    assert not outcome
    singles = Counter(reason for told in wanted.values() for reason in told.split("; "))
    assert dict(outcome.reasons) == singles
    failed = {check.reason: check.failed_rows for check in outcome.checks if not check.success}
    infinite = sum(singles[reason] for reason in ("infinite close", "NaN close"))
    assert failed.pop("not finite: close") == infinite
    assert failed.pop("not finite: low") == singles["infinite low"]
    assert failed == {reason: count for reason, count in singles.items() if "inite" not in reason and reason[0] != "N"}
    one = next(record for record in records if record["reason"] == "close not in range")
    assert one["close"] == 11.5
    assert one["timestamp"] == (FIRST + timedelta(minutes=one["number"])).isoformat()


def test_equal_versions_in_a_row_are_found(dq: DataQualityFramework, build: Build) -> None:
    columns = bars(6)
    for name in ("asset_pair", "timestamp"):
        columns[name] = [columns[name][0]] * 6
    columns["low"] = [9.0] * 6
    columns["volume"] = [1.0, None, None, 1.0, 1.0, None]
    columns["provider"] = ["coinbase"] * 5 + ["oanda"]
    columns["ingested_at"] = [FIRST + timedelta(days=day) for day in (1, 2, 3, 4, 5, 6)]
    shuffled = table_of(columns | {"number": list(range(6))}).take([3, 5, 0, 4, 2, 1])
    outcome = dq.validate_dataframe(build(shuffled))
    records = letters(outcome)["records"]
    assert {record["number"]: record["reason"] for record in records} == {2: "repeated version", 4: "repeated version"}


def test_text_columns_are_read_as_the_contract_says(dq: DataQualityFramework, build: Build) -> None:
    columns = bars(6)
    columns["close"] = ["10.5", " 10.25 ", "abc", "", None, "10"]
    moments = ["2025-01-06T00:00:00Z", "2025-01-06 01:01:00+01:00", "2025-01-06T00:02:00Z"]
    columns["timestamp"] = [*moments, "2025-01-06T00:03:00", "2025-01-06", "soon"]
    table = pa.table(columns | {"number": list(range(6))})
    outcome = dq.validate_dataframe(build(table))
    records = sorted(letters(outcome)["records"], key=lambda record: record["number"])
    assert [(record["close"], record["reason"]) for record in records] == [
        ("abc", "wrong type: close"),
        ("", "wrong type or no time zone: timestamp; wrong type: close"),
        (None, "wrong type or no time zone: timestamp; null close"),
        ("10", "wrong type or no time zone: timestamp"),
    ]
    assert [record["timestamp"] for record in records][1:] == ["2025-01-06T00:03:00", "2025-01-06", "soon"]


def test_zoneless_times_are_found(dq: DataQualityFramework, build: Build) -> None:
    table = table_of(bars(3))
    at = table.schema.get_field_index("timestamp")
    frame = build(table.set_column(at, "timestamp", table["timestamp"].cast("timestamp[us]")))
    if not isinstance(frame, pa.Table | pd.DataFrame):
        frame = frame.withColumn("timestamp", frame["timestamp"].cast("timestamp_ntz"))
    outcome = dq.validate_dataframe(frame)
    assert dict(outcome.reasons) == {"timestamp has no time zone": 3}
    assert letters(outcome)["records"][0]["timestamp"] == "2025-01-06T00:00:00"


def test_pandas_columns_of_mixed_types(dq: DataQualityFramework) -> None:
    frame = table_of(bars(6)).to_pandas()
    frame["close"] = pd.Series([10.5, "10.25", "abc", True, None, [1.0]], dtype=object)
    zoneless = [*frame["timestamp"][:5], datetime(2025, 1, 6, 0, 5)]  # noqa: DTZ001
    frame["timestamp"] = pd.Series(zoneless, dtype=object)
    outcome = dq.validate_dataframe(frame)
    assert [record["reason"] for record in letters(outcome)["records"]] == [
        "wrong type: close",
        "wrong type: close",
        "null close",
        "wrong type or no time zone: timestamp; wrong type: close",
    ]


def test_pandas_index_is_of_no_account(dq: DataQualityFramework) -> None:
    frame = table_of(bars(6)).to_pandas().set_index(pd.Index([3, 3, 1, 0, 0, 9]))
    assert dq.validate_dataframe(frame)
    frame.loc[frame.index == 1, "close"] = 50.0
    outcome = dq.validate_dataframe(frame)
    assert [record["close"] for record in letters(outcome)["records"]] == [50.0]


def test_no_rows_are_sound(dq: DataQualityFramework) -> None:
    outcome = dq.validate_dataframe(table_of(bars(0)))
    assert outcome
    assert outcome.total_rows == 0


def test_optional_and_stored_columns_may_be_absent(dq: DataQualityFramework) -> None:
    assert dq.validate_dataframe(table_of(bars(9)).drop(["volume", "run_id", "ingested_at"]))


def test_missing_columns_are_named(dq: DataQualityFramework, build: Build) -> None:
    with pytest.raises(ContractError, match=r"raw_market_data requires: high, provider$"):
        dq.validate_dataframe(build(table_of(bars(3)).drop(["provider", "high"])))


def test_unknown_names_are_errors_with_the_nearest(dq: DataQualityFramework) -> None:
    with pytest.raises(ContractError, match=r"no suite 'market_quality'.* market_data_quality"):
        dq.validate_dataframe(table_of(bars(1)), suite_name="market_quality")
    with pytest.raises(ContractError, match=r"no contract 'raw_market'.* raw_market_data"):
        dq.create_suite("raw_market")
    with pytest.raises(TypeError, match="cannot validate a dict"):
        dq.validate_dataframe(bars(1))  # type: ignore[arg-type]


def test_the_suite_is_a_great_expectations_suite(dq: DataQualityFramework) -> None:
    from great_expectations import ExpectationSuite

    suite = dq.create_market_data_suite()
    assert isinstance(suite, ExpectationSuite)
    assert suite.name == "market_data_quality"
    contract = load_contracts()["raw_market_data"]
    assert suite.meta["contract_version"] == contract.version
    stored = dq.context.suites.get("market_data_quality").to_json_dict()["expectations"]
    rules = {e["meta"]["reason"]: e["kwargs"]["rule"] for e in stored if "rule" in e["kwargs"]}
    assert {rule.reason: rule.expression for rule in contract.row_rules}.items() <= rules.items()
    nulls = {e["kwargs"]["column"] for e in stored if e["type"] == "expect_column_values_to_not_be_null"}
    assert nulls == {c.name for c in contract.provided_by("source", "edge") if c.required}
    assert dq.create_market_data_suite().name == suite.name
    assert len([s for s in dq.context.suites.all() if s.name == suite.name]) == 1


def test_an_expectation_added_by_hand_counts(tmp_path: Path) -> None:
    from great_expectations.expectations import ExpectColumnMaxToBeBetween

    dq = DataQualityFramework(dlq=DeadLetterQueue(tmp_path))
    dq.create_market_data_suite().add_expectation(ExpectColumnMaxToBeBetween(column="high", max_value=5))
    outcome = dq.validate_dataframe(table_of(bars(3)))
    assert not outcome
    assert outcome.failed_rows == 0
    assert [check.expectation for check in outcome.checks if not check.success] == ["expect_column_max_to_be_between"]


def test_a_check_that_cannot_run_is_an_error(tmp_path: Path) -> None:
    from great_expectations.expectations import ExpectColumnMaxToBeBetween

    dq = DataQualityFramework(dlq=DeadLetterQueue(tmp_path))
    dq.create_market_data_suite().add_expectation(ExpectColumnMaxToBeBetween(column="no_such", max_value=5))
    with pytest.raises(ContractError, match=r"cannot be run.*no_such"):
        dq.validate_dataframe(table_of(bars(3)))


def test_the_outcome_is_counted_logged_and_filed(
    dq: DataQualityFramework, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def count(status: str) -> float:
        return data_quality_checks_total.labels(suite="market_data_quality", status=status)._value.get()

    passed, failed = count("passed"), count("failed")
    dq.validate_dataframe(table_of(bars(3)))
    assert (count("passed"), count("failed")) == (passed + 1, failed)
    columns = bars(3, close=[10.5, 99.0, 10.5])
    with caplog.at_level(logging.WARNING):
        outcome = dq.validate_dataframe(table_of(columns))
    assert (count("passed"), count("failed")) == (passed + 1, failed + 1)
    assert "1 of 3 rows failed (close not in range: 1)" in caplog.text
    document = letters(outcome)
    assert document["error"] == "schema_validation_failed"
    assert document["context"] == {
        "suite": "market_data_quality",
        "dataset": "raw_market_data",
        "asset_pair": "EURUSD",
        "timeframe": "1m",
        "provider": "coinbase",
    }
    assert outcome.dlq_file.parent == tmp_path / "dlq"
    again = dq.validate_dataframe(table_of(columns))
    assert again.dlq_file == outcome.dlq_file


def test_nothing_is_called_and_nothing_is_left(
    dq: DataQualityFramework, tmp_path: Path, cut_off: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    fresh = DataQualityFramework(dlq=DeadLetterQueue(tmp_path / "dlq"))
    fresh.create_market_data_suite()
    assert fresh.validate_dataframe(table_of(bars(3)))
    assert [left for folder in cut_off for left in folder.iterdir()] == []
    assert capfd.readouterr().err == ""


OTHERS: dict[str, tuple[dict[str, list[Any]], list[str]]] = {
    "raw_news_sentiment": (
        {
            "article_id": ["a", "b", "c"],
            "asset_pair": ["BTCUSD"] * 3,
            "timestamp": [FIRST] * 3,
            "title": ["t"] * 3,
            "sentiment_score": [0.5, -1.5, 1.0],
            "relevance_score": [None, 0.5, 2.0],
            "topics": [["x"], None, []],
            "provider": ["alpha_vantage"] * 3,
        },
        ["sentiment out of range", "relevance out of range"],
    ),
    "raw_ai_decisions": (
        {
            "decision_id": ["a", "b", "c"],
            "asset_pair": ["BTCUSD"] * 3,
            "timestamp": [FIRST] * 3,
            "action": ["BUY", "LONG", "SELL"],
            "confidence": [0.5, 0.5, 1.5],
            "strategy": ["debate", "voting", "luck"],
            "votes": [[{"provider": "a", "action": "BUY", "confidence": 0.5}], [], None],
            "provider": ["files"] * 3,
        },
        ["unknown action", "unknown strategy; confidence out of range"],
    ),
    "raw_trade_executions": (
        {
            "execution_id": ["a", "b", "c"],
            "order_id": ["o"] * 3,
            "asset_pair": ["BTCUSD"] * 3,
            "timestamp": [FIRST] * 3,
            "side": ["BUY", "SELL", "HOLD"],
            "quantity": [1.0, 0.0, 1.0],
            "price": [5.0, 5.0, 5e6],
            "status": ["filled", "partial", "filled"],
            "provider": ["files"] * 3,
        },
        ["quantity not positive", "unknown side; price out of bounds"],
    ),
    "raw_market_ticks": (
        {
            "asset_pair": ["BTCUSD"] * 3,
            "timestamp": [FIRST] * 3,
            "price": [5.0, 5.0, 5e6],
            "volume": [None, -1.0, 1.0],
            "bid": [4.0, 6.0, None],
            "ask": [4.0, 5.0, None],
            "side": ["buy", None, "hold"],
            "tick_id": ["a", "a", "b"],
            "provider": ["coinbase"] * 3,
            "kafka_topic": ["t"] * 3,
            "kafka_partition": [0] * 3,
            "kafka_offset": [0, 1, 2],
            "kafka_timestamp": [FIRST] * 3,
        },
        ["negative volume; bid above ask", "unknown side; price out of bounds"],
    ),
    "macro_indicators": (
        {
            "series_id": ["DGS10", None, "DGS10"],
            "timestamp": [FIRST, FIRST, FIRST + timedelta(days=9999)],
            "value": [1.0, None, 2.0],
            "realtime_start": [date(2025, 1, 6)] * 3,
            "provider": ["fred"] * 3,
        },
        ["null series_id", "timestamp in the future"],
    ),
    "ingest_coverage": (
        {
            "dataset": ["d"] * 3,
            "subject": ["s"] * 3,
            "provider": ["p"] * 3,
            "start": [FIRST] * 3,
            "end": [FIRST + timedelta(1), FIRST, FIRST + timedelta(1)],
            "status": ["covered", "rejected", "lost"],
            "rows": [1, 2, 3],
        },
        ["inverted interval", "unknown status"],
    ),
    "quality_results": (
        {
            "run_id": ["r"] * 3,
            "checked_at": [FIRST] * 3,
            "kind": ["suite", "suite", "guess"],
            "dataset": ["d"] * 3,
            "check_name": ["c"] * 3,
            "severity": ["critical", "warning", "info"],
            "success": [True, False, False],
            "rows_checked": [2, 2, 2],
            "rows_failed": [0, 3, -1],
        },
        ["more failed than checked", "unknown kind; negative count"],
    ),
}


@pytest.mark.parametrize("contract_id", OTHERS)
def test_the_suite_of_each_contract(dq: DataQualityFramework, contract_id: str) -> None:
    columns, wanted = OTHERS[contract_id]
    name = dq.create_suite(contract_id).name
    outcome = dq.validate_dataframe(table_of(columns, contract_id), suite_name=name)
    assert [record["reason"] for record in letters(outcome)["records"]] == wanted
    assert dq.validate_dataframe(table_of(columns, contract_id).slice(0, 1), suite_name=name)


@pytest.mark.spark
@pytest.mark.parametrize("contract_id", ["raw_ai_decisions", "ingest_coverage"])
def test_spark_reads_nested_columns_and_contracts_without_keys(
    dq: DataQualityFramework, spark: SparkSession, contract_id: str
) -> None:
    columns, wanted = OTHERS[contract_id]
    frame = spark.createDataFrame(table_of(columns, contract_id))
    outcome = dq.validate_dataframe(frame, suite_name=dq.create_suite(contract_id).name)
    assert sorted(record["reason"] for record in letters(outcome)["records"]) == sorted(wanted)


def test_every_contract_has_a_suite() -> None:
    assert set(OTHERS) | {"raw_market_data"} == set(load_contracts())


@pytest.mark.spark
def test_a_spark_frame_is_not_kept_and_its_own_columns_survive(dq: DataQualityFramework, spark: SparkSession) -> None:
    columns = bars(3, close=[99.0, 99.0, 10.5]) | {"now": ["x", "y", "z"], "note": [1, 2, 3]}
    # Delta keeps some of its own, of tables that other tests have read.
    before = set(spark.sparkContext._jsc.getPersistentRDDs().keySet())
    outcome = dq.validate_dataframe(spark.createDataFrame(table_of(columns)))
    record = letters(outcome)["records"][1]
    assert (record["now"], record["note"]) == ("y", 2)
    assert set(record) == {*columns, "reason"}
    assert set(spark.sparkContext._jsc.getPersistentRDDs().keySet()) <= before
    shuffled = spark.createDataFrame(table_of(columns)).repartition(3, "note")
    assert dq.validate_dataframe(shuffled).dlq_file == outcome.dlq_file
