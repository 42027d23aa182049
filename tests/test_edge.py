"""Edge validation against an oracle in plain Python: every planted defect blamed, nothing lost, good rows unchanged."""

from __future__ import annotations

import math
import struct
from collections import Counter
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.contracts import load_contracts
from pipelines.edge import DEFECT, EdgeContext, EdgeResult, edge_schema, validate
from pipelines.instruments import load_registry
from pipelines.timeframes import Timeframe

NOW = datetime(2025, 12, 14, 12, tzinfo=UTC)
FIRST = datetime(2025, 12, 1, tzinfo=UTC)
PRICES = ("open", "high", "low", "close")
STEP = timedelta(hours=1)


def context(dataset: str = "raw_market_data", asset: str | None = "BTCUSD", **more: Any) -> EdgeContext:
    bars = dataset == "raw_market_data"
    instrument = load_registry().resolve(asset) if asset else None
    return EdgeContext(load_contracts()[dataset], "test", NOW, instrument, Timeframe.H1 if bars else None, **more)


def bars(count: int = 2, **columns: Any) -> pa.Table:
    """Sound bars, with columns replaced."""
    base: dict[str, Any] = {
        "timestamp": pa.array([FIRST + STEP * i for i in range(count)], pa.timestamp("us", "UTC")),
        "open": [10.0] * count,
        "high": [11.0] * count,
        "low": [9.0] * count,
        "close": [10.5] * count,
        "volume": [1.0] * count,
    }
    return pa.table(base | columns)


def decisions(count: int = 2, **columns: Any) -> pa.Table:
    base: dict[str, Any] = {
        "decision_id": [f"d{i}" for i in range(count)],
        "asset_pair": ["BTCUSD"] * count,
        "timestamp": [FIRST] * count,
        "action": ["BUY"] * count,
        "confidence": [0.5] * count,
        "strategy": ["voting"] * count,
        "providers": [["one", "two"]] * count,
        "votes": [[{"provider": "one", "action": "BUY", "confidence": 0.5}]] * count,
    }
    return pa.table(base | columns)


def executions(count: int = 2, **columns: Any) -> pa.Table:
    base: dict[str, Any] = {
        "execution_id": [f"e{i}" for i in range(count)],
        "order_id": ["o"] * count,
        "asset_pair": ["BTCUSD"] * count,
        "timestamp": [FIRST] * count,
        "side": ["BUY"] * count,
        "quantity": [0.5] * count,
        "price": [100.0] * count,
        "status": ["filled"] * count,
    }
    return pa.table(base | columns)


def reasons(result: EdgeResult) -> list[str]:
    return [row.reason for row in result.refused]


# --- the oracle: what the contract of bars says, in plain Python -------------------------------------------------


def read_number(value: Any) -> float | None:
    if value is None:
        return None
    try:
        return float(value.strip()) if isinstance(value, str) else float(value)
    except ValueError:
        return None


def read_time(value: Any) -> datetime | None:
    if isinstance(value, datetime):
        return value
    try:
        parsed = datetime.fromisoformat(value.strip()) if value is not None else None
        return parsed.astimezone(UTC) if parsed and parsed.tzinfo else None
    except (ValueError, OverflowError):
        return None


def structural(row: dict[str, Any]) -> list[str]:
    found = [row[DEFECT]] if row.get(DEFECT) else []
    if row["timestamp"] is None:
        found.append("null timestamp")
    elif read_time(row["timestamp"]) is None:
        found.append("wrong type or no time zone: timestamp")
    for name in (*PRICES, "volume"):
        number = read_number(row[name])
        if number is None and row[name] is not None:
            found.append(f"wrong type: {name}")
        elif number is None and name != "volume":
            found.append(f"null {name}")
        elif number is not None and math.isnan(number):
            found.append(f"NaN {name}")
        elif number is not None and math.isinf(number):
            found.append(f"infinite {name}")
    return found


def broken_rules(row: dict[str, Any], price_min: float, price_max: float) -> list[str]:
    open_, high, low, close = (read_number(row[name]) for name in PRICES)
    volume, when = read_number(row["volume"]), read_time(row["timestamp"])
    assert None not in (open_, high, low, close, when)
    found = []
    if high < low:
        found.append("high < low")
    if not low <= open_ <= high:
        found.append("open not in range")
    if not low <= close <= high:
        found.append("close not in range")
    negative = low < 0 and price_min >= 0
    if negative:
        found.append("negative price")
    elif not (low > price_min and high < price_max):
        found.append("price out of bounds")
    if volume is not None and volume < 0:
        found.append("negative volume")
    if when + STEP > NOW:
        found.append("bar not closed yet")
    return found


def bits(number: float | None) -> bytes | None:
    return None if number is None else struct.pack("<d", number)


def expected(rows: list[dict[str, Any]], asset: str) -> tuple[list[tuple[Any, ...]], list[str], int]:
    """Return the good rows bit by bit, the reasons of the refused ones in order, and the count of repeated ones."""
    instrument = load_registry().resolve(asset)
    good, refused, repeated = [], [], 0
    seen: dict[datetime, list[tuple[float | None, ...]]] = {}
    for row in rows:
        found = structural(row) or broken_rules(row, instrument.price_min, instrument.price_max)
        if found:
            refused.append("; ".join(found))
            continue
        when, values = read_time(row["timestamp"]), tuple(read_number(row[name]) for name in (*PRICES, "volume"))
        versions = seen.setdefault(when, [])
        if values in versions:
            repeated += 1
        elif versions:
            refused.append("conflicting duplicate")
            versions.append(values)
        else:
            versions.append(values)
            good.append((when, *map(bits, values)))
    return good, refused, repeated


def agrees(rows: list[dict[str, Any]], table: pa.Table, asset: str) -> None:
    result = validate(table, context(asset=asset))
    good, refused, repeated = expected(rows, asset)
    landed = result.good.select(["timestamp", *PRICES, "volume"]).to_pylist()
    assert [(row["timestamp"], *(bits(row[name]) for name in (*PRICES, "volume"))) for row in landed] == good
    assert reasons(result) == refused
    assert result.repeated == repeated
    assert result.total == len(rows) == result.good.num_rows + len(result.refused) + result.repeated
    assert result.good.schema == edge_schema(load_contracts()["raw_market_data"])


# --- property tests ----------------------------------------------------------------------------------------------

price = st.one_of(
    st.floats(9.0, 11.0),
    st.sampled_from([10.0, 10.25, -3.0, 0.0, -0.0, 1e-5, 0.0001, 1e6, 2e6, 99.9, 100.0, -10.0, 5e-324]),
    st.sampled_from([None, math.nan, math.inf, -math.inf]),
)
hour = st.one_of(st.integers(0, 4), st.sampled_from([322, 323, 324, 400]))


@st.composite
def typed_rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Mostly sound bars, few hours, so that repeats and contradictions are common."""
    rows = []
    for _ in range(draw(st.integers(0, 12))):
        row: dict[str, Any] = {"timestamp": FIRST + STEP * draw(hour)}
        row |= {"open": 10.0, "high": 11.0, "low": 9.0, "close": 10.0, "volume": 1.0}
        for name in draw(st.lists(st.sampled_from([*PRICES, "volume"]), max_size=2)):
            row[name] = draw(price)
        if draw(st.integers(0, 9)) == 0:
            row["timestamp"] = None
        row[DEFECT] = draw(st.sampled_from([None, None, None, None, "", "price is a ratio"]))
        rows.append(row)
    return rows


@settings(max_examples=80, deadline=None)
@given(typed_rows(), st.sampled_from(["BTCUSD", "^TNX"]))
def test_typed_pages_agree_with_the_oracle(rows: list[dict[str, Any]], asset: str) -> None:
    kinds = {"timestamp": pa.timestamp("us", "UTC"), DEFECT: pa.string()}
    names = ["timestamp", *PRICES, "volume", DEFECT]
    columns = {name: pa.array([row[name] for row in rows], kinds.get(name, pa.float64())) for name in names}
    agrees(rows, pa.table(columns), asset)


text = st.one_of(
    st.sampled_from(["10", " 10.5 ", "9.75", "1e1", "-3", "0"]),
    st.sampled_from(["abc", "", " ", "1,5", "0x10", "10.0.0", "null", "NaN", "inf", "-inf", "1e400", "½"]),
    st.none(),
)
time_text = st.sampled_from(
    [
        "2025-12-01T00:00:00Z",
        "2025-12-01T01:00:00+01:00",
        "2025-12-01 05:30:00+05:30",
        "2025-12-01T01:00:00+00:00",
        "2025-12-14T11:00:00Z",
        "2025-12-14T11:00:00.000001Z",
        "2025-12-01T00:00:00",
        "2025-12-01",
        "2025-02-29T00:00:00Z",
        "yesterday",
        "",
        "1733011200",
        "0001-01-01T00:00:00+05:00",
        "9999-12-31T23:59:59-05:00",
        None,
    ]
)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(time_text, text, text, st.booleans()), max_size=12), st.sampled_from(["BTCUSD", "^TNX"]))
def test_text_pages_of_mixed_types_agree_with_the_oracle(drawn: list[Any], asset: str) -> None:
    base = {"open": "10", "high": "11", "low": "9", "close": "10", "volume": "1"}
    rows = [{"timestamp": when, **base} for when, *_ in drawn]
    for row, (_, close, volume, both) in zip(rows, drawn, strict=True):
        row["volume"] = volume
        if both:
            row["close"] = close
    names = ["timestamp", *PRICES, "volume"]
    agrees(rows, pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in names}), asset)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["BTCUSD", "ETHBTC", "^TNX", "NONSENSE!", None]),
            st.sampled_from([50.0, 0.05, -2.0, 5e5, 2e6]),
            st.sampled_from(["BUY", "SELL", "sell", "HOLD"]),
        ),
        max_size=10,
    )
)
def test_a_page_of_several_assets_is_held_to_the_bounds_of_each(drawn: list[tuple[str | None, float, str]]) -> None:
    assets, prices, sides = ([row[i] for row in drawn] for i in range(3))
    table = executions(
        len(drawn),
        asset_pair=pa.array(assets, pa.string()),
        price=pa.array(prices, pa.float64()),
        side=pa.array(sides, pa.string()),
    )
    result = validate(table, context("raw_trade_executions", None))
    wanted = []
    for asset, value, side in drawn:
        if asset is None:
            wanted.append("null asset_pair")
        elif asset == "NONSENSE!":
            wanted.append("unknown asset")
        else:
            low, high = (-10, 100) if asset == "^TNX" else (0.0001, 1e6)
            found = [] if low < value < high else ["price out of bounds"]
            found += [] if side in ("BUY", "SELL") else ["unknown side"]
            wanted.append("; ".join(found))
    assert reasons(result) == [reason for reason in wanted if reason]
    assert result.good["asset_pair"].to_pylist() == [
        asset for (asset, *_), reason in zip(drawn, wanted, strict=True) if not reason
    ]
    assert result.total == len(drawn)


# --- single cases ------------------------------------------------------------------------------------------------


def test_the_refused_record_is_the_page_as_it_came() -> None:
    result = validate(bars(high=[1.0, 11.0], extra=["kept", "kept"], _defect=[None, "torn"]), context())
    assert result.good.num_rows == 0
    first, second = result.refused
    assert first.record == {
        "timestamp": FIRST,
        "open": 10.0,
        "high": 1.0,
        "low": 9.0,
        "close": 10.5,
        "volume": 1.0,
        "extra": "kept",
    }
    assert first.reason == "high < low; open not in range; close not in range"
    assert first.event_time == FIRST
    assert (second.reason, second.event_time) == ("torn", FIRST + STEP)


def test_the_edge_fills_what_it_knows() -> None:
    result = validate(bars(provider=["liar", "liar"]), context(price_side="mid", adjusted=True, derived=True))
    row = result.good.to_pylist()[0]
    assert (row["asset_pair"], row["timeframe"], row["provider"]) == ("BTCUSD", "1h", "test")
    assert (row["price_side"], row["is_adjusted"], row["is_derived"]) == ("mid", True, True)


@pytest.mark.parametrize(
    "table", [bars().slice(0, 0), pa.table({}), pa.table({"timestamp": pa.array([], pa.string())})]
)
def test_an_empty_page_is_empty(table: pa.Table) -> None:
    result = validate(table, context())
    assert result.total == 0
    assert result.good.schema == edge_schema(load_contracts()["raw_market_data"])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([True, False], "wrong type: volume"),
        ([FIRST, FIRST], "wrong type: volume"),
        ([date(2025, 1, 1)] * 2, "wrong type: volume"),
        ([time(1)] * 2, "wrong type: volume"),
        ([timedelta(1)] * 2, "wrong type: volume"),
        ([[1.0], [2.0]], "wrong type: volume"),
        ([{"a": 1.0}, {"a": 2.0}], "wrong type: volume"),
        ([b"1", b"2"], "wrong type: volume"),
    ],
)
def test_what_is_no_number_is_no_volume(values: list[Any], reason: str) -> None:
    result = validate(bars(volume=values), context())
    assert reasons(result) == [reason, reason]
    assert result.total == 2


@pytest.mark.parametrize(
    "values",
    [
        pa.array([Decimal("7.5"), Decimal(8)]),
        pa.array([7.5, 8], pa.float32()),
        pa.array(["7.5", "8"]).dictionary_encode(),
        pa.array([" 7.5", "8.0 "]),
    ],
    ids=["decimal", "float32", "dictionary", "text"],
)
def test_numbers_are_read_from_other_types(values: pa.Array) -> None:
    assert validate(bars(volume=values), context()).good["volume"].to_pylist() == [7.5, 8.0]


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "+05:30", "-03:00"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_zoned_times_keep_their_instant(zone: str, unit: str) -> None:
    times = pa.array([FIRST, FIRST + STEP], pa.timestamp("us", "UTC")).cast(pa.timestamp(unit, zone))
    result = validate(bars(timestamp=times), context())
    assert [when.astimezone(UTC) for when in result.good["timestamp"].to_pylist()] == [FIRST, FIRST + STEP]


def test_zoneless_times_are_refused() -> None:
    times = pa.array([FIRST.replace(tzinfo=None)] * 2, pa.timestamp("us"))
    assert reasons(validate(bars(timestamp=times), context())) == ["timestamp has no time zone"] * 2


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_times_beyond_all_calendars_are_refused_and_shown(unit: str) -> None:
    times = pa.array([2**61, None], pa.int64()).cast(pa.timestamp(unit, "UTC"))
    result = validate(bars(timestamp=times), context())
    assert reasons(result) == ["wrong type or no time zone: timestamp", "null timestamp"]
    assert result.refused[0].record["timestamp"] == str(2**61)


def test_a_sound_time_beside_an_impossible_one_is_kept() -> None:
    micros = [int(FIRST.timestamp() * 1_000_000) + 1, 2**62]
    result = validate(bars(timestamp=pa.array(micros, pa.int64()).cast(pa.timestamp("us", "UTC"))), context())
    assert result.good["timestamp"].to_pylist() == [FIRST + timedelta(microseconds=1)]
    assert len(result.refused) == 1


def test_a_bar_is_good_from_the_instant_it_closes() -> None:
    times = pa.array([NOW - STEP, NOW - STEP + timedelta(microseconds=1)], pa.timestamp("us", "UTC"))
    result = validate(bars(timestamp=times), context())
    assert result.good["timestamp"].to_pylist() == [NOW - STEP]
    assert reasons(result) == ["bar not closed yet"]


@pytest.mark.parametrize(
    ("asset", "low", "reason"),
    [
        ("^TNX", -0.5, None),
        ("^TNX", -10.0, "price out of bounds"),
        ("BTCUSD", -0.5, "negative price"),
        ("BTCUSD", 0.0001, "price out of bounds"),
        ("BTCUSD", 0.00011, None),
        ("SHIBUSD", 0.00001, None),
        ("SHIBUSD", 0.0, "price out of bounds"),
    ],
)
def test_bounds_are_those_of_the_instrument(asset: str, low: float, reason: str | None) -> None:
    result = validate(bars(1, low=[low]), context(asset=asset))
    assert reasons(result) == ([reason] if reason else [])


def test_the_first_of_contradicting_rows_stays() -> None:
    table = pa.concat_tables(
        [bars(1), bars(1, close=[9.5]), bars(1), bars(1, close=[9.5]), bars(1, close=pa.nulls(1, pa.float64()))]
    )
    result = validate(table, context())
    assert result.good["close"].to_pylist() == [10.5]
    assert reasons(result) == ["conflicting duplicate", "null close"]
    assert result.repeated == 2


def test_decisions_that_differ_in_a_vote_alone_are_not_the_same() -> None:
    votes = [[{"provider": "one", "action": side, "confidence": 0.5}] for side in ("BUY", "SELL", "BUY")]
    result = validate(decisions(3, decision_id=["d"] * 3, votes=votes), context("raw_ai_decisions", None))
    assert (result.good.num_rows, reasons(result), result.repeated) == (1, ["conflicting duplicate"], 1)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"confidence": [1.5, -0.1]}, "confidence out of range"),
        ({"action": ["LONG", "buy"]}, "unknown action"),
        ({"strategy": ["luck", "x"]}, "unknown strategy"),
        ({"timestamp": [NOW + STEP] * 2}, "timestamp in the future"),
        ({"decision_id": [["a"], ["b"]]}, "wrong type: decision_id"),
        ({"decision_id": [{"a": 1}, {"a": 2}]}, "wrong type: decision_id"),
        ({"providers": ["one", "two"]}, "wrong type: providers"),
        ({"providers": [[1], [2]]}, "wrong type: providers"),
        ({"votes": ["one", "two"]}, "wrong type: votes"),
        ({"votes": [[{"provider": "a", "action": "BUY", "confidence": "high"}]] * 2}, "wrong type: votes"),
        ({"timeframe": [[1], [2]]}, "wrong type: timeframe"),
        ({"asset_pair": [None, None]}, "null asset_pair"),
        ({"asset_pair": ["NONSENSE!", "?"]}, "unknown asset"),
    ],
)
def test_bad_decisions_are_blamed(columns: dict[str, list[Any]], reason: str) -> None:
    result = validate(decisions(**columns), context("raw_ai_decisions", None))
    assert reasons(result) == [reason, reason]


def test_nested_values_are_read_whole() -> None:
    votes = [[{"confidence": 1, "provider": "a", "action": "BUY", "weight": 2}], []]
    result = validate(decisions(votes=votes, providers=[[], None]), context("raw_ai_decisions", None))
    assert result.good["votes"].to_pylist() == [[{"provider": "a", "action": "BUY", "confidence": 1.0}], []]
    assert result.good["providers"].to_pylist() == [[], None]


def test_assets_get_their_registered_name() -> None:
    result = validate(decisions(asset_pair=["btc-usd", "ETH/BTC"]), context("raw_ai_decisions", None))
    assert result.good["asset_pair"].to_pylist() == ["BTCUSD", "ETHBTC"]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"quantity": [0.0, -1.0]}, "quantity not positive"),
        ({"fee": [-0.1, -1.0]}, "negative fee"),
        ({"status": ["open", "x"]}, "unknown status"),
        ({"price": ["ten", "x"]}, "wrong type: price"),
        ({"order_id": [None, None]}, "null order_id"),
    ],
)
def test_bad_executions_are_blamed(columns: dict[str, list[Any]], reason: str) -> None:
    assert reasons(validate(executions(**columns), context("raw_trade_executions", None))) == [reason, reason]


def test_missing_columns_are_nulls() -> None:
    result = validate(bars().drop(["close", "volume"]), context())
    assert reasons(result) == ["null close"] * 2


def test_a_page_of_defects_alone_loses_none() -> None:
    result = validate(pa.table({DEFECT: ["torn line"]}), context())
    assert reasons(result)[0].startswith("torn line; null timestamp; null open")
    assert result.refused[0].record == {}


def test_dates_and_whole_numbers_are_not_guessed() -> None:
    table = pa.table(
        {
            "series_id": ["A", "B", "C", "D"],
            "timestamp": [FIRST] * 4,
            "value": [1.0, None, 2.0, 3.0],
            "realtime_start": ["2025-01-01", "2025-02-30", None, "01/02/2025"],
        }
    )
    result = validate(table, context("macro_indicators", None))
    assert result.good["realtime_start"].to_pylist() == [date(2025, 1, 1), None]
    assert Counter(reasons(result)) == {"wrong type: realtime_start": 2}
    coverage = {"dataset": ["a"] * 3, "subject": ["b"] * 3, "start": [FIRST] * 3, "end": [NOW, NOW, FIRST]}
    table = pa.table(coverage | {"provider": ["p"] * 3, "status": ["covered"] * 3, "rows": [1.5, 2.0, 3.0]})
    result = validate(table, context("ingest_coverage", None))
    assert result.good["rows"].to_pylist() == [2]
    assert reasons(result) == ["wrong type: rows", "inverted interval"]


def test_python_times_with_any_offset() -> None:
    east = timezone(timedelta(hours=9))
    result = validate(bars(timestamp=[FIRST.astimezone(east), (FIRST + STEP).astimezone(east)]), context())
    assert result.good["timestamp"].to_pylist() == [FIRST, FIRST + STEP]
