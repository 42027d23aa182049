"""A seeded book with all that is awkward: for tests of the marts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.contracts import load_contracts

START = datetime(2025, 3, 6, tzinfo=UTC)  # a Thursday
DAYS = 16
BARS = pa.schema(
    [
        ("asset_pair", pa.string()), ("timeframe", pa.string()), ("timestamp", pa.timestamp("us", "UTC")),
        ("open", pa.float64()), ("high", pa.float64()), ("low", pa.float64()), ("close", pa.float64()),
        ("volume", pa.float64()), ("regime", pa.string()),
    ]
)  # fmt: skip
# SOLUSD never has a bar; MSFT's come late; three trade on weekdays only.
PRICES = {
    "BTCUSD": 90_000.0,
    "ETHUSD": 2_000.0,
    "ETHBTC": 0.025,
    "EURUSD": 1.1,
    "AAPL": 200.0,
    "MSFT": 500.0,
    "SOLUSD": 150.0,
}
_WEEKDAYS = ("EURUSD", "AAPL", "MSFT")
_BARLESS = ("SOLUSD",)
_FIRST_BAR = {"MSFT": timedelta(days=5, hours=3), "BTCUSD": timedelta(hours=6)}
_HOURS = {"1h": 1, "4h": 4}
_REGIMES = ("trend", "range", "volatile")
_ANALYSTS = ("momentum", "reversal", "macro")


@dataclass(frozen=True, slots=True)
class SampleBook:
    """Executions and decisions in their contracts' source and edge columns, and bars (`BARS`) with their regimes."""

    executions: pa.Table
    decisions: pa.Table
    bars: pa.Table


def contract_table(dataset: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Build a table in the contract's columns that a source and the edge fill; what a row leaves out is null."""
    columns = load_contracts()[dataset].provided_by("source", "edge")
    schema = pa.schema([pa.field(column.name, column.arrow_type) for column in columns])
    return pa.Table.from_pylist(rows, schema=schema)


def bar(pair: str, timeframe: str, at: datetime, close: float, regime: str | None = None) -> dict[str, Any]:
    """Return a row of `BARS` that stands still at one price."""
    prices = dict.fromkeys(("open", "high", "low", "close"), close)
    return {"asset_pair": pair, "timeframe": timeframe, "timestamp": at, **prices, "volume": 1.0, "regime": regime}


def sample_book(seed: int = 1, days: int = DAYS) -> SampleBook:
    """Make a book of at least 12 days: random trades of several instruments in two books, and every awkward case."""
    maker = _Maker(np.random.default_rng(seed), days)
    maker.make()
    return SampleBook(
        contract_table("raw_trade_executions", maker.executions),
        contract_table("raw_ai_decisions", maker.decisions),
        pa.Table.from_pylist(maker.bars, schema=BARS),
    )


class _Maker:
    def __init__(self, random: np.random.Generator, days: int) -> None:
        self._random = random
        self._days = days
        self.executions: list[dict[str, Any]] = []
        self.decisions: list[dict[str, Any]] = []
        self.bars: list[dict[str, Any]] = []

    def make(self) -> None:
        for pair in PRICES:
            for timeframe in _HOURS:
                self._series(pair, timeframe)
            for slot in range(self._days * 3):
                self._acted(pair, START + timedelta(hours=8 * slot, seconds=int(self._random.integers(0, 20_000))))
        self._awkward()
        # Order of arrival says nothing.
        self._random.shuffle(self.executions)
        self._random.shuffle(self.decisions)

    def _series(self, pair: str, timeframe: str) -> None:
        if pair in _BARLESS:
            return
        hours = _HOURS[timeframe]
        close = PRICES[pair]
        for slot in range(self._days * 24 // hours - 8 // hours):
            at = START + timedelta(hours=slot * hours)
            draw, gap, regime = self._random.normal(), self._random.random(), self._random.integers(0, 3)
            before, close = close, close * float(np.exp(0.01 * draw * hours**0.5))
            weekend = pair in _WEEKDAYS and at.weekday() >= 5
            if weekend or gap < 0.03 or at < START + _FIRST_BAR.get(pair, timedelta(0)):
                continue
            self.bars.append(
                bar(pair, timeframe, at, close, None if slot < 14 else _REGIMES[regime])
                | {"open": before, "high": max(before, close), "low": min(before, close)}
            )

    def _acted(self, pair: str, at: datetime) -> None:
        if pair in _WEEKDAYS and at.weekday() >= 5:
            return
        random = self._random
        action = ("BUY", "SELL", "HOLD")[random.choice(3, p=[0.4, 0.4, 0.2])]
        name = f"{pair}-{at:%d%H%M%S}"
        self.decide(name, pair, at, action)
        if action == "HOLD" or random.random() < 0.25:
            return
        digits = 3 if pair in {"BTCUSD", "ETHUSD", "ETHBTC", "SOLUSD"} else 0
        quantity = max(round(float(random.uniform(0.2, 3.0)), digits), 10.0**-digits)
        price = round(PRICES[pair] * float(np.exp(0.03 * random.normal())), 6)
        by_hand = random.random() < 0.1
        order = {
            "decision_id": None if by_hand else f"dec-{name}",
            "order_id": f"ord-{name}",
            "provider": "desk" if random.random() < 0.3 else "sample",
        }
        parts = 1 + int(random.integers(0, 3))
        at += timedelta(seconds=int(random.integers(0, 90)))
        sizes = [round(quantity / parts, digits + 3)] * (parts - 1)
        sizes.append(round(quantity - sum(sizes), digits + 3))
        for part, size in enumerate(sizes):
            # Every other fill comes in the same instant as the one before.
            self.fill(f"{name}-{part}", pair, at + timedelta(seconds=part // 2), action, size, price, **order)

    def decide(self, name: str, pair: str, at: datetime, action: str, **fields: Any) -> None:
        random = self._random
        votes = [
            {
                "provider": analyst,
                "action": action if random.random() < 0.6 else ("BUY", "SELL", "HOLD")[random.integers(0, 3)],
                "confidence": round(float(random.random()), 3),
            }
            for analyst in _ANALYSTS[: random.integers(1, 4)]
        ]
        row = {
            "decision_id": f"dec-{name}",
            "asset_pair": pair,
            "timestamp": at,
            "action": action,
            "confidence": round(float(random.random()), 3),
            "strategy": ("debate", "voting", "fallback")[random.integers(0, 3)],
            "providers": [vote["provider"] for vote in votes],
            "votes": votes,
            "timeframe": "4h",
            "provider": "sample",
        }
        self.decisions.append(row | fields)

    def fill(self, name: str, pair: str, at: datetime, side: str, quantity: float, price: float, **fields: Any) -> None:
        row = {
            "execution_id": f"exe-{name}",
            "order_id": f"ord-{name}",
            "asset_pair": pair,
            "timestamp": at,
            "side": side,
            "quantity": quantity,
            "price": price,
            "fee": round(quantity * price * 0.001, 8),
            "status": "filled",
            "provider": "sample",
        }
        self.executions.append(row | fields)

    def _awkward(self) -> None:
        day = [START + timedelta(days=number) for number in range(self._days)]
        hour = timedelta(hours=1)
        # The book `cases` holds these alone. 0.1 + 0.2 closed to nothing, after a decision before any bar.
        case: dict[str, Any] = {"provider": "cases"}
        self.decide("early", "BTCUSD", day[0] + hour, "BUY")
        self.fill(
            "a1", "BTCUSD", day[0] + hour, "BUY", 0.1, 90_000.0, decision_id="dec-early", order_id="ord-a", **case
        )
        self.fill(
            "a2", "BTCUSD", day[0] + 2 * hour, "BUY", 0.2, 90_100.0, decision_id="dec-early", order_id="ord-a", **case
        )
        self.fill("a3", "BTCUSD", day[0] + 30 * hour, "SELL", 0.3, 91_000.0, fee=None, **case)
        # Another provider has it too.
        self.executions.append(self.executions[-1] | {"provider": "tape", "price": 91_001.0})
        # The same order goes on after it was closed, and is closed in two days by one order: midnight is the next day.
        self.fill("a4", "BTCUSD", day[2], "BUY", 0.5, 90_500.0, order_id="ord-a", **case)
        self.fill("a5", "BTCUSD", day[3] - hour, "SELL", 0.2, 90_700.0, order_id="ord-b", **case)
        self.fill("a6", "BTCUSD", day[3], "SELL", 0.3, 90_400.0, order_id="ord-b", **case)
        # A flip from short to long by one fill, after two lots.
        self.fill("b1", "ETHUSD", day[1], "SELL", 1.0, 2_000.0, fee=0.001, fee_currency="ETH", **case)
        self.fill("b2", "ETHUSD", day[1] + hour, "SELL", 2.0, 2_050.0, fee=0.1, fee_currency="USD", **case)
        self.fill("b3", "ETHUSD", day[4], "BUY", 5.0, 1_950.0, fee=0.1, fee_currency="usd", **case)
        # A fee in a third currency, then trades of nothing gained: a tie.
        self.fill("c1", "BTCUSD", day[5], "BUY", 1.0, 90_000.0, fee=0.01, fee_currency="BNB", **case)
        self.fill("c2", "BTCUSD", day[5] + hour, "SELL", 1.0, 91_000.0, fee=0.0, fee_currency="BNB", **case)
        self.fill("d1", "BTCUSD", day[6], "BUY", 1.0, 90_000.0, fee=None, **case)
        self.fill("d2", "BTCUSD", day[6], "SELL", 1.0, 90_000.0, fee=0.0, **case)
        # A decision nobody knows, one made after its execution, and one in another currency.
        self.fill("e1", "ETHBTC", day[7], "BUY", 4.0, 0.025, decision_id="dec-nobody-knows", fee=0.0001, **case)
        self.decide("late", "ETHBTC", day[7] + 3 * hour, "BUY")
        self.fill(
            "e2",
            "ETHBTC",
            day[7] + hour,
            "BUY",
            1.0,
            0.026,
            decision_id="dec-late",
            fee=0.001,
            fee_currency="ETH",
            **case,
        )
        self.fill("e3", "ETHBTC", day[9] + hour, "SELL", 4.5, 0.027, fee=0.0, **case)
        # Decisions without votes, of no confidence, with two votes of one provider, and delivered by two providers.
        self.decide("mute", "AAPL", day[8] + hour, "BUY", votes=None, providers=None)
        self.decide("empty", "AAPL", day[8] + hour, "SELL", votes=[], providers=[])
        twice = [("macro", "BUY", 0.4), ("macro", "SELL", 0.4), ("risk", "BUY", None), ("momentum", "BUY", 0.0)]
        votes = [dict(zip(("provider", "action", "confidence"), vote, strict=True)) for vote in twice]
        self.decide("zero", "AAPL", day[8] + hour, "BUY", votes=votes[2:])
        self.decide("twice", "AAPL", day[8] + 2 * hour, "BUY", votes=votes)
        self.decide("twice", "AAPL", day[8] + 2 * hour, "SELL", provider="tape", votes=votes[:1], strategy="debate")
        for number, name in enumerate(("mute", "zero", "twice")):
            self.fill(f"f{number}", "AAPL", day[8] + 3 * hour, "BUY", 3.0, 201.0, decision_id=f"dec-{name}", **case)
        self.fill("f3", "AAPL", day[11], "SELL", 10.0, 199.5, **case)
