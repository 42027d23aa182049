"""Messages say what their rows say: read back by json and by fastavro with the schema files, not by our own code."""

from __future__ import annotations

import io
import json
import math
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import PROJECT_ROOT, Settings
from pipelines.contracts import load_contracts
from pipelines.streaming.encoding import EncodingError, encoder, message_key, subject_column
from pipelines.streaming.topics import Topic

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
INSTANTS = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=ZONES)  # noqa: DTZ001 - zones are added
VOTE = st.fixed_dictionaries(
    {"provider": TEXTS | st.none(), "action": TEXTS | st.none(), "confidence": NUMBERS | st.none()}
)
# Written down here, so that a change of a contract shows.
REQUIRED: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "market_tick": {"asset_pair": TEXTS, "timestamp": INSTANTS, "price": NUMBERS, "tick_id": TEXTS, "provider": TEXTS},
    "market_bar": {
        "asset_pair": TEXTS, "timeframe": TEXTS, "timestamp": INSTANTS,
        "open": NUMBERS, "high": NUMBERS, "low": NUMBERS, "close": NUMBERS,
    },
    "ai_decision": {
        "decision_id": TEXTS, "asset_pair": TEXTS, "timestamp": INSTANTS, "action": TEXTS, "confidence": NUMBERS,
        "strategy": TEXTS,
    },
}  # fmt: skip
OPTIONAL: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "market_tick": {"volume": NUMBERS, "bid": NUMBERS, "ask": NUMBERS, "side": TEXTS},
    "market_bar": {"volume": NUMBERS},
    "ai_decision": {
        "providers": st.lists(TEXTS | st.none(), max_size=3), "votes": st.lists(VOTE | st.none(), max_size=3),
        "timeframe": TEXTS, "reasoning": TEXTS, "model_version": TEXTS,
    },
}  # fmt: skip
DATASETS = {"market_tick": "raw_market_ticks", "market_bar": "raw_market_data", "ai_decision": "raw_ai_decisions"}


def topic_of(dataset: str, form: str) -> Topic:
    return Topic("t", load_contracts()[dataset], form, 1, 1.0)  # type: ignore[arg-type]


@st.composite
def rows(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """Draw a record and a row of it, with optional columns there, null or absent."""
    record = draw(st.sampled_from(sorted(DATASETS)))
    row = draw(st.fixed_dictionaries(REQUIRED[record]))
    for name, values in OPTIONAL[record].items():
        value = draw(values | st.none())
        if value is not None or draw(st.booleans()):
            row[name] = value
    return record, row


def expected(record: str, row: dict[str, Any]) -> dict[str, Any]:
    return {name: row.get(name) for name in [*REQUIRED[record], *OPTIONAL[record]]}


@given(rows())
def test_json_says_the_row(drawn: tuple[str, dict[str, Any]]) -> None:
    record, row = drawn
    message = encoder(topic_of(DATASETS[record], "json"))(row)
    found = json.loads(message.decode("utf-8"))
    text = found["timestamp"]
    assert len(text) == len("2025-12-07T10:00:00.123456Z")
    assert text.endswith("Z")
    assert datetime.fromisoformat(text) == row["timestamp"]
    assert {**found, "timestamp": None} == {**expected(record, row), "timestamp": None}
    assert message_key(load_contracts()[DATASETS[record]])(row) == row["asset_pair"].encode("utf-8")


@given(rows())
def test_avro_says_the_row_to_a_reader_of_the_schema_file(drawn: tuple[str, dict[str, Any]]) -> None:
    record, row = drawn
    schema = fastavro.schema.load_schema(str(PROJECT_ROOT / "schemas" / f"{record}.avsc"))
    stream = io.BytesIO(encoder(topic_of(DATASETS[record], "avro"))(row))
    found = fastavro.schemaless_reader(stream, schema, None)
    assert stream.read() == b""
    assert found == expected(record, row)
    assert found["timestamp"].utcoffset() == timedelta()


def test_the_message_of_a_tick_is_as_it_is_documented() -> None:
    row = {
        "asset_pair": "BTCUSD", "timestamp": datetime(2025, 12, 7, 12, 0, 0, 123456, timezone(timedelta(hours=2))),
        "price": 1, "volume": 0.5, "side": "buy", "tick_id": "ü1", "provider": "coinbase",
    }  # fmt: skip
    assert encoder(topic_of("raw_market_ticks", "json"))(row).decode() == (
        '{"asset_pair":"BTCUSD","timestamp":"2025-12-07T10:00:00.123456Z","price":1.0,"volume":0.5,"bid":null,'
        '"ask":null,"side":"buy","tick_id":"ü1","provider":"coinbase"}'
    )


@pytest.mark.parametrize("form", ["json", "avro"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"price": None}, "null price"),
        ({"tick_id": None}, "null tick_id"),
        ({"price": "1.0"}, "wrong type: price"),
        ({"price": True}, "wrong type: price"),
        ({"price": math.nan}, "wrong type: price"),
        ({"volume": math.inf}, "wrong type: volume"),
        ({"volume": 10**400}, "wrong type: volume"),
        ({"side": 1}, "wrong type: side"),
        ({"side": b"buy"}, "wrong type: side"),
        ({"side": "\ud800"}, "a text is not Unicode"),
        ({"timestamp": datetime(2025, 12, 7)}, "wrong type: timestamp"),  # noqa: DTZ001 - zoneless is what is refused
        ({"timestamp": "2025-12-07T10:00:00Z"}, "wrong type: timestamp"),
        ({"timestamp": date(2025, 12, 7)}, "wrong type: timestamp"),
        ({"kafka_offset": 1}, "not in a message of raw_market_ticks: kafka_offset"),
    ],
)
def test_what_is_no_message_is_refused_by_column_and_without_its_value(
    form: str, change: dict[str, Any], reason: str
) -> None:
    row = {"asset_pair": "BTCUSD", "timestamp": datetime(2025, 12, 7, tzinfo=UTC), "price": 1.0, "tick_id": "1",
           "provider": "coinbase"}  # fmt: skip
    encode = encoder(topic_of("raw_market_ticks", form))
    assert encode(row)
    with pytest.raises(EncodingError) as caught:
        encode({**row, **change})
    assert str(caught.value) == reason


@pytest.mark.parametrize("form", ["json", "avro"])
@pytest.mark.parametrize("votes", ["buy", [{"provider": "x", "vote": 1}], [["x"]], [{"confidence": "high"}]])
def test_nested_values_are_checked_too(form: str, votes: object) -> None:
    row = {"decision_id": "1", "asset_pair": "BTCUSD", "timestamp": datetime(2025, 12, 7, tzinfo=UTC),
           "action": "buy", "confidence": 0.5, "strategy": "s", "votes": votes}  # fmt: skip
    with pytest.raises(EncodingError, match="wrong type: votes"):
        encoder(topic_of("raw_ai_decisions", form))(row)


def test_every_topic_is_keyed_by_the_asset_and_another_dataset_by_its_subject() -> None:
    datasets = {each.dataset for each in Settings().streaming.topics.values()}
    assert {subject_column(load_contracts()[dataset]) for dataset in datasets} == {"asset_pair"}
    assert subject_column(load_contracts()["macro_indicators"]) == "series_id"
