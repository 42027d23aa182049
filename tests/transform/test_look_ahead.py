"""No row of silver or gold knows the future: with another one, all that was known before it stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipelines.storage import DeltaLakeManager
from pipelines.timeframes import Timeframe
from pipelines.transform.project import is_view
from pipelines.transform.runner import dbt_environment, prepare
from tests.transform import book_lake
from tests.transform.sample_book import BARS, PRICES, START, SampleBook, bar, contract_table

pytestmark = pytest.mark.spark

MOMENT = timedelta(microseconds=1)
# The last instant before another future. Days are cut at a midnight; of two instruments it is in the middle of bars.
MIDNIGHT = START + timedelta(days=9)
WITHIN = START + timedelta(days=9, hours=13, minutes=37)
LAST = dict.fromkeys(("BTCUSD", "ETHUSD"), WITHIN)


def last_known(pairs: pd.Series) -> pd.Series:
    return pairs.map(lambda pair: pd.Timestamp(LAST.get(pair, MIDNIGHT - MOMENT)))


def closes_at(bars: pd.DataFrame) -> pd.Series:
    return bars["timestamp"] + pd.to_timedelta([Timeframe(name).step for name in bars["timeframe"]])


def known_bars(rows: pd.DataFrame) -> pd.Series:
    # What closes at midnight belongs to the day that ends.
    return closes_at(rows) - MOMENT <= last_known(rows["asset_pair"])


def known_days(rows: pd.DataFrame) -> pd.Series:
    return rows["known_at"] <= MIDNIGHT


# Which rows of each model were known, and its key. Of lots these are the closed ones: an open one is known at its mark.
KNOWN: dict[str, tuple[Callable[[pd.DataFrame], pd.Series], list[str]]] = {
    "market_data_enriched": (known_bars, ["asset_pair", "timeframe", "timestamp"]),
    "multi_timeframe_analysis": (
        lambda rows: rows["as_of"] - MOMENT <= last_known(rows["asset_pair"]), ["asset_pair", "timestamp"]
    ),
    "decision_history": (lambda rows: rows["timestamp"] <= last_known(rows["asset_pair"]), ["decision_id"]),
    "trade_lifecycle": (
        lambda rows: rows["closed_at"] <= last_known(rows["asset_pair"]), ["book", "asset_pair", "lot_id"]
    ),
    "mart_trading_performance": (known_days, ["book", "quote_currency", "asset_pair", "day"]),
    "mart_provider_attribution": (known_days, ["ai_provider", "asset_pair", "day"]),
    "mart_ensemble_effectiveness": (known_days, ["strategy", "quote_currency", "day"]),
    "mart_market_regime_stats": (known_days, ["asset_pair", "regime", "day"]),
    "mart_daily_portfolio_summary": (known_days, ["book", "quote_currency", "day"]),
}  # fmt: skip
# These need longer histories, and another future of their own: tests/transform/test_cross_asset.py.
CROSS_ASSET = {"cross_asset_pairs", "crypto_equity_correlation", "yield_curve"}
# When bronze learned of a row is not what the row says.
NOT_COMPARED = {"ingested_at"}


def test_no_model_is_left_out(tmp_path: Path, embedded_lake: DeltaLakeManager) -> None:
    with dbt_environment(tmp_path):
        project = prepare([], embedded_lake)[1].project
    tables = {node.name for node in project.models() if not is_view(node) and not node.name.startswith("int_")}
    assert tables == set(KNOWN) | CROSS_ASSET
    assert "def test_another_future_moves_nothing" in Path(__file__).with_name("test_cross_asset.py").read_text("utf-8")


def other_future(book: SampleBook, bars: pa.Table, folder: Path) -> DeltaLakeManager:
    """The same lake up to the last known instants. After them other prices, restated ones, decisions, fills, assets."""
    random = np.random.default_rng(7)
    fills, decisions, prices = book.executions.to_pandas(), book.decisions.to_pandas(), bars.to_pandas()
    for events in (fills, decisions):
        assert (events["timestamp"] > last_known(events["asset_pair"])).sum() > 50
    known = known_bars(prices).to_numpy()
    moved = prices[~known & (random.random(len(prices)) < 0.8)].copy()
    for name in ("open", "high", "low", "close"):
        moved[name] *= 3.0
    moved["volume"] = moved["volume"] * 50 + 1
    known_fills = fills[fills["timestamp"] <= last_known(fills["asset_pair"])]
    known_decisions = decisions[decisions["timestamp"] <= last_known(decisions["asset_pair"])]
    made, decided = later_trades(known_fills, known_decisions)
    lake = book_lake.land(
        folder,
        SampleBook(
            pa.concat_tables([like(known_fills, book.executions), contract_table("raw_trade_executions", made)]),
            pa.concat_tables([like(known_decisions, book.decisions), contract_table("raw_ai_decisions", decided)]),
            bars,
        ),
        pa.concat_tables([bars.filter(pa.array(known)), like(moved, bars), later_bars()]),
    )
    for name in ("open", "high", "low", "close"):
        moved[name] *= 0.5
    book_lake.land_bars(lake, like(moved[::3], bars))
    book_lake.land_bars(lake, like(moved[1::3], bars), provider="alpha_vantage")
    return lake


def like(rows: pd.DataFrame, table: pa.Table) -> pa.Table:
    return pa.Table.from_pandas(rows, schema=table.schema, preserve_index=False)


def later_bars() -> pa.Table:
    """Of instruments that had none before, and of days after the book."""
    rows = []
    for pair, price, begin in (("SOLUSD", 10.0, MIDNIGHT), ("USDJPY", 150.0, MIDNIGHT), ("LTCBTC", 0.002, MIDNIGHT),
                               ("BTCUSD", 1.0, START + timedelta(days=17))):  # fmt: skip
        rows += [
            bar(pair, "1h", begin + timedelta(hours=number), price + number % 3 * price / 9) for number in range(60)
        ]
    return pa.Table.from_pylist(rows, schema=BARS)


def later_trades(
    fills: pd.DataFrame, decisions: pd.DataFrame
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """After the last known instants: every book trades every instrument, in finer quantities, by orders known before.

    Decisions come too that fills named before there was any.
    """
    made: list[dict[str, object]] = []
    decided: list[dict[str, object]] = []
    unknown = sorted(set(fills["decision_id"].dropna()) - set(decisions["decision_id"]))
    assert "dec-nobody-knows" in unknown
    votes = [{"provider": "newcomer", "action": "SELL", "confidence": 1.0}]
    for number, pair in enumerate([*PRICES, "USDJPY", "LTCBTC"]):
        at = LAST.get(pair, MIDNIGHT - MOMENT) + MOMENT
        about: dict[str, object] = {"asset_pair": pair, "provider": "sample", "strategy": "debate", "confidence": 1.0}
        names = [f"new-{number}", *(unknown if pair == "ETHBTC" else [])]
        decided += [about | {"decision_id": name, "timestamp": at, "action": "SELL", "votes": votes} for name in names]
        decided.append(
            about | {"decision_id": f"newer-{number}", "timestamp": at + timedelta(days=11), "action": "BUY"}
        )
        for book in ("sample", "desk", "cases", "newcomer"):
            before = fills[(fills["provider"] == book) & (fills["asset_pair"] == pair)].sort_values("timestamp")
            order = before["order_id"].iloc[-1] if len(before) else "order"
            price = PRICES.get(pair, 100.0 if pair == "USDJPY" else 0.002)
            for place, side in enumerate(("SELL", "BUY", "BUY", "SELL", "SELL")):
                made.append(
                    {
                        "execution_id": f"new-{book}-{pair}-{place}", "order_id": order, "decision_id": f"new-{number}",
                        "asset_pair": pair, "timestamp": at + place * timedelta(hours=7), "side": side,
                        "quantity": 3.123456789 * (place + 1), "price": price * (1 + place / 10),
                        "fee": price / 50, "fee_currency": "BNB" if place == 3 else None,
                        "status": "filled", "provider": book,
                    }
                )  # fmt: skip
    return made, decided


@pytest.fixture(scope="module")
def another(
    book: SampleBook, book_bars: pa.Table, built_book: DeltaLakeManager, tmp_path_factory: pytest.TempPathFactory
) -> DeltaLakeManager:
    folder = tmp_path_factory.mktemp("another")
    lake = other_future(book, book_bars, folder)
    book_lake.build(lake, folder, "run")
    return lake


@pytest.mark.parametrize("name", KNOWN)
def test_what_was_known_does_not_move(name: str, built_book: DeltaLakeManager, another: DeltaLakeManager) -> None:
    known, keys = KNOWN[name]
    tables = [book_lake.read(lake, name) for lake in (built_book, another)]
    one, other = (
        rows[known(rows)].drop(columns=NOT_COMPARED & set(rows)).sort_values(keys).reset_index(drop=True)
        for rows in tables
    )
    later = [len(rows) - len(one) for rows in tables]
    assert len(one) > 20
    assert min(later) > 5, "there is no future that could be known"
    pd.testing.assert_frame_equal(one, other, rtol=1e-9, atol=1e-9, check_exact=False)


def test_the_futures_differ(built_book: DeltaLakeManager, another: DeltaLakeManager) -> None:
    """Else the test above would say nothing."""
    for name, (known, keys) in KNOWN.items():
        one, other = (book_lake.read(lake, name) for lake in (built_book, another))
        one, other = (rows[~known(rows)].drop(columns=NOT_COMPARED & set(rows)) for rows in (one, other))
        both = one.merge(other, on=keys, suffixes=("", "_other"))
        changed = [column for column in one if column not in keys and (both[column] != both[f"{column}_other"]).any()]
        assert len(other) != len(one) or changed, name


def test_of_an_open_lot_its_entry_and_size_were_known(built_book: DeltaLakeManager, another: DeltaLakeManager) -> None:
    """Later fills cut a lot into parts and later bars mark it, but what was open at an instant is open of it."""
    found = []
    for lake in (built_book, another):
        lots = book_lake.read(lake, "trade_lifecycle")
        last = last_known(lots["asset_pair"])
        open_then = lots[(lots["opened_at"] <= last) & ~(lots["closed_at"] <= last)]
        entry = ["book", "asset_pair", "entry_execution_id", "entry_order_id", "decision_id", "side", "opened_at",
                 "quote_currency", "entry_price"]  # fmt: skip
        by_entry = open_then.groupby(entry, dropna=False)
        found.append(by_entry[["quantity", "entry_fee"]].sum(min_count=1).reset_index())
    assert len(found[0]) > 5
    pd.testing.assert_frame_equal(found[0], found[1], rtol=1e-9, atol=1e-12, check_exact=False)


def test_open_lots_are_marked_by_the_last_close_of_the_lake(built_book: DeltaLakeManager, book_bars: pa.Table) -> None:
    lots = book_lake.read(built_book, "trade_lifecycle").query("status == 'open'")
    bars = book_bars.to_pandas()
    newest = bars.assign(closes_at=closes_at(bars)).groupby("asset_pair")["closes_at"].max()
    assert {"SOLUSD"} < set(lots["asset_pair"])
    for lot in lots.itertuples():
        assert pd.isna(lot.mark_at) if lot.asset_pair == "SOLUSD" else lot.mark_at == newest[lot.asset_pair]
