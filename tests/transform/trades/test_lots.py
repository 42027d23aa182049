from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import ContractError, UnknownAssetError
from pipelines.transform.trades import EXECUTIONS, LOTS, ddl, marked, trade_lots
from tests.transform.marts_oracle import lifecycle
from tests.transform.sample_book import sample_book

NOON = datetime(2025, 3, 6, 12, tzinfo=UTC)
MARKS = pa.schema([("asset_pair", pa.string()), ("close", pa.float64()), ("closed_at", pa.timestamp("us", "UTC"))])


def execution(number: int, side: str, quantity: float, price: float, **fields: Any) -> dict[str, Any]:
    row = {
        "execution_id": f"e{number}", "order_id": f"o{number}", "provider": "desk", "asset_pair": "BTCUSD",
        "timestamp": NOON + timedelta(hours=number), "side": side, "quantity": quantity, "price": price,
    }  # fmt: skip
    return row | fields


def lots(*rows: dict[str, Any], mark: float | None = None) -> list[dict[str, Any]]:
    known = [{"mark": mark, "mark_at": None if mark is None else NOON} | row for row in rows]
    made = trade_lots(pa.Table.from_pylist(known, schema=EXECUTIONS))
    assert made.schema.equals(LOTS, check_metadata=True)
    rows_made: list[dict[str, Any]] = made.to_pylist()
    return rows_made


def test_a_round_trip() -> None:
    (lot,) = lots(
        execution(1, "BUY", 2.0, 100.0, fee=1.0, decision_id="d1"),
        execution(2, "SELL", 2.0, 110.0, fee=0.5),
        mark=500.0,
    )
    assert lot == {
        "lot_id": "e1 > e2", "book": "desk", "asset_pair": "BTCUSD", "quote_currency": "USD", "side": "LONG",
        "status": "closed", "trade_id": "o1 > o2 @ 2025-03-06", "decision_id": "d1", "exit_decision_id": None,
        "entry_execution_id": "e1", "entry_order_id": "o1", "exit_execution_id": "e2", "exit_order_id": "o2",
        "opened_at": NOON + timedelta(hours=1), "closed_at": NOON + timedelta(hours=2), "quantity": 2.0,
        "entry_price": 100.0, "exit_price": 110.0, "entry_fee": 1.0, "exit_fee": 0.5, "gross_pnl": 20.0,
        "net_pnl": 18.5, "net_return": 18.5 / 200.0, "holding_seconds": 3600.0, "mark": None, "mark_at": None,
        "open_gross_pnl": None, "open_pnl": None,
    }  # fmt: skip


def test_a_fill_that_closes_and_goes_on_flips_the_position() -> None:
    short, long = lots(execution(1, "SELL", 1.0, 100.0, fee=1.0), execution(2, "BUY", 4.0, 90.0, fee=4.0), mark=95.0)
    assert (short["side"], short["quantity"], short["gross_pnl"], short["exit_fee"]) == ("SHORT", 1.0, 10.0, 1.0)
    assert (long["side"], long["status"], long["quantity"], long["entry_fee"]) == ("LONG", "open", 3.0, 3.0)
    assert (long["open_gross_pnl"], long["open_pnl"]) == (15.0, 12.0)
    assert (long["mark"], long["mark_at"], long["trade_id"]) == (95.0, NOON, None)
    assert short["net_pnl"] == 10.0 - 1.0 - 1.0


def test_several_lots_of_a_trade_share_its_id_and_a_day_later_is_another_trade() -> None:
    made = lots(
        execution(1, "BUY", 0.1, 100.0, order_id="in"), execution(2, "BUY", 0.2, 100.0, order_id="in"),
        execution(3, "SELL", 0.2, 110.0, order_id="out"), execution(14, "SELL", 0.1, 110.0, order_id="out"),
    )  # fmt: skip
    assert [lot["trade_id"] for lot in made] == [
        "in > out @ 2025-03-06", "in > out @ 2025-03-06", "in > out @ 2025-03-07",
    ]  # fmt: skip


@pytest.mark.parametrize("closing", [0.3, 0.1 + 0.2])
def test_a_tenth_and_two_tenths_close_to_nothing(closing: float) -> None:
    made = lots(execution(1, "BUY", 0.1, 100.0), execution(2, "BUY", 0.2, 100.0), execution(3, "SELL", closing, 100.0))
    assert [(lot["status"], lot["quantity"]) for lot in made] == [("closed", 0.1), ("closed", 0.2)]
    assert all(lot["net_pnl"] == 0.0 for lot in made)


def test_fees_are_in_quote_currency_or_unknown() -> None:
    made = lots(
        execution(1, "BUY", 1.0, 100.0, fee=0.01, fee_currency="BTC"), execution(2, "SELL", 1.0, 110.0, fee=0.5),
        execution(3, "BUY", 1.0, 100.0, fee=0.5, fee_currency="BNB"), execution(4, "SELL", 1.0, 110.0),
        execution(5, "BUY", 1.0, 100.0, fee=0.5, fee_currency="BNB"), mark=90.0,
    )  # fmt: skip
    assert [lot["entry_fee"] for lot in made] == [1.0, None, None]
    assert [lot["net_pnl"] for lot in made] == [8.5, None, None]
    assert [lot["gross_pnl"] for lot in made] == [10.0, 10.0, None]
    assert (made[2]["open_gross_pnl"], made[2]["open_pnl"]) == (-10.0, None)


def test_without_a_known_bar_there_is_no_mark() -> None:
    (lot,) = lots(execution(1, "BUY", 1.0, 100.0, fee=1.0))
    assert (lot["status"], lot["entry_fee"]) == ("open", 1.0)
    assert [lot[name] for name in ("mark", "mark_at", "open_gross_pnl", "open_pnl", "closed_at")] == [None] * 5


def test_marks_are_the_newest_of_the_instrument() -> None:
    fills = pa.Table.from_pylist([execution(1, "BUY", 1.0, 100.0)], schema=EXECUTIONS)
    bare = fills.drop_columns(["mark", "mark_at"])
    rows = [("BTCUSD", 1.0, 1), ("BTCUSD", 2.0, 3), ("BTCUSD", 3.0, 2), ("ETHUSD", 4.0, 9)]
    known = [{"asset_pair": pair, "close": close, "closed_at": NOON + timedelta(hours=at)} for pair, close, at in rows]
    for table, mark, at in ((known, 2.0, NOON + timedelta(hours=3)), (known[3:], None, None)):
        made = marked(bare, pa.Table.from_pylist(table, schema=MARKS))
        assert made.schema.equals(EXECUTIONS)
        assert (made["mark"].to_pylist(), made["mark_at"].to_pylist()) == ([mark], [at])


def test_nothing_makes_nothing() -> None:
    assert trade_lots(EXECUTIONS.empty_table()).equals(LOTS.empty_table())


def test_what_cannot_be_one_book_is_refused() -> None:
    one = execution(1, "BUY", 1.0, 100.0)
    with pytest.raises(ContractError, match="e1 occurs more than once: pass only the newest"):
        lots(one, one | {"price": 101.0})
    with pytest.raises(ContractError, match=r"within one asset_pair, .*partition by it"):
        lots(one, execution(2, "BUY", 1.0, 100.0, asset_pair="ETHUSD"))
    with pytest.raises(ContractError, match="within one provider"):
        lots(one, execution(2, "BUY", 1.0, 100.0, provider="tape"))
    with pytest.raises(UnknownAssetError):
        lots(one | {"asset_pair": "NOBODY"})


def test_ddl_and_descriptions_are_complete() -> None:
    assert ddl(LOTS).startswith("lot_id string, book string, ")
    assert "opened_at timestamp, closed_at timestamp, quantity double" in ddl(LOTS)
    assert all(field.metadata[b"description"].endswith(b".") for schema in (EXECUTIONS, LOTS) for field in schema)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_sample_book_agrees_with_the_oracle(seed: int) -> None:
    book = sample_book(seed)
    hours = book.bars.filter(pc.equal(book.bars["timeframe"], "1h")).sort_by("timestamp")
    shut = pc.add(hours["timestamp"], pa.scalar(timedelta(hours=1)))
    marks = pa.table([hours["asset_pair"], hours["close"], shut], schema=MARKS)
    made = []
    bare = book.executions.select([name for name in EXECUTIONS.names if not name.startswith("mark")])
    for key in bare.group_by(["provider", "asset_pair"]).aggregate([]).to_pylist():
        own = bare.filter((pc.field("provider") == key["provider"]) & (pc.field("asset_pair") == key["asset_pair"]))
        made.append(trade_lots(marked(own, marks)))
    closes = {row["asset_pair"]: (row["close"], row["closed_at"]) for row in marks.to_pylist()}
    expected = lifecycle(book.executions.to_pandas(), closes)
    assert {"open", "closed"} == set(expected.status)
    keys = ["book", "asset_pair", "lot_id"]
    pd.testing.assert_frame_equal(
        pa.concat_tables(made).to_pandas().sort_values(keys).reset_index(drop=True),
        expected.sort_values(keys).reset_index(drop=True)[LOTS.names],
        check_dtype=False, rtol=1e-12, atol=1e-9,
    )  # fmt: skip


fills = st.builds(
    lambda at, side, digits, places, price, fee: {
        "timestamp": NOON + timedelta(hours=at), "side": side, "quantity": float(f"{digits}e-{places}"),
        "price": float(price), "fee": fee / 100,
    },
    st.integers(0, 30), st.sampled_from(["BUY", "SELL"]), st.integers(1, 10**5), st.integers(0, 6),
    st.integers(1, 1000), st.integers(0, 500),
)  # fmt: skip
books = st.lists(fills, min_size=1, max_size=25).map(
    lambda rows: [execution(number, "", 0.0, 0.0) | row for number, row in enumerate(rows)]
)


def total(made: list[dict[str, Any]], *names: str) -> float:
    return float(np.sum([lot[name] or 0.0 for lot in made for name in names]))


def close(value: float) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-5)


def exact(rows: list[dict[str, Any]]) -> Fraction:
    return sum((Fraction(f"{row['quantity']:.15g}") for row in rows), Fraction(0))


@given(books)
def test_every_quantity_is_closed_or_open(rows: list[dict[str, Any]]) -> None:
    made = lots(*rows, mark=100.0)
    closed, still = ([lot for lot in made if lot["status"] == status] for status in ("closed", "open"))
    assert exact(rows) == 2 * exact(closed) + exact(still)
    signed = [exact([row]) if row["side"] == "BUY" else -exact([row]) for row in rows]
    assert abs(sum(signed)) == exact(still)


@given(books)
def test_profit_is_what_cash_and_position_come_to(rows: list[dict[str, Any]]) -> None:
    made = lots(*rows, mark=100.0)
    cash = sum(row["quantity"] * row["price"] * (1 if row["side"] == "SELL" else -1) - row["fee"] for row in rows)
    position = sum(row["quantity"] * (1 if row["side"] == "BUY" else -1) for row in rows)
    assert total(made, "net_pnl", "open_pnl") == close(cash + position * 100.0)
    assert total(made, "entry_fee", "exit_fee") == close(sum(row["fee"] for row in rows))


@given(books, st.data())
def test_fills_in_parts_change_no_total_and_no_trade(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    split = []
    for row in rows:
        count = data.draw(st.integers(1, 4))
        # The parts come where the whole came: between the same neighbours.
        split += [
            row | {"execution_id": f"{row['execution_id']}.{part}", "quantity": row["quantity"] / 8 * share,
                   "fee": row["fee"] / 8 * share}
            for part, share in enumerate([[8], [3, 5], [1, 2, 5], [2, 2, 2, 2]][count - 1])
        ]  # fmt: skip
    whole, parts = lots(*rows, mark=100.0), lots(*split, mark=100.0)
    for name in ("gross_pnl", "net_pnl", "open_pnl", "entry_fee", "exit_fee"):
        assert total(parts, name) == close(total(whole, name))
    assert exact(parts) == exact(whole)
    trades = [{(lot["trade_id"], lot["side"], lot["status"]) for lot in made} for made in (whole, parts)]
    assert trades[0] == trades[1]


@given(books)
def test_mirrored_sides_mirror_the_profit(rows: list[dict[str, Any]]) -> None:
    other = {"BUY": "SELL", "SELL": "BUY"}
    made = lots(*rows, mark=100.0)
    mirrored = lots(*(row | {"side": other[row["side"]]} for row in rows), mark=100.0)
    for lot, image in zip(made, mirrored, strict=True):
        assert (lot["lot_id"], lot["quantity"], lot["entry_fee"]) == (
            image["lot_id"], image["quantity"], image["entry_fee"],
        )  # fmt: skip
        assert {lot["side"], image["side"]} == {"LONG", "SHORT"}
        for name in ("gross_pnl", "open_gross_pnl"):
            assert lot[name] == (None if image[name] is None else -image[name])


@given(books, st.randoms(use_true_random=False))
def test_the_order_of_arrival_says_nothing(rows: list[dict[str, Any]], random: Any) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert lots(*shuffled, mark=100.0) == lots(*rows, mark=100.0)


@given(books, st.integers(0, 30))
def test_no_later_fill_changes_what_was_closed(rows: list[dict[str, Any]], hour: int) -> None:
    then = NOON + timedelta(hours=hour)
    before = [row for row in rows if row["timestamp"] <= then]
    known, later = (
        {lot["lot_id"]: lot["net_pnl"] for lot in made if lot["closed_at"] is not None and lot["closed_at"] <= then}
        for made in (lots(*before), lots(*rows))
    )
    assert known == close(later) if known else not later
