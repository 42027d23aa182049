"""Sample trade executions: some decisions are acted on seconds later, at the market's own price."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa

from pipelines.instruments import AssetClass, Instrument
from pipelines.sources.sample.bars import BarMaker
from pipelines.sources.sample.decisions import Decision, DecisionMaker, event_table, trading
from pipelines.sources.sample.noise import digest
from pipelines.sources.sample.profile import profile_of
from pipelines.sources.sample.slots import MINUTE, SECOND, Slots, micros
from pipelines.timeframes import Timeframe

DATASET = "raw_trade_executions"
_ACTED_ON = 0.7
_BY_HAND = 0.05
_SPLIT = 0.2
_DELAY = (2, 90)
_SECOND_FILL = 30
_LONGEST = timedelta(seconds=_DELAY[1] + _SECOND_FILL)
_NOTIONAL_USD = (1_000.0, 20_000.0)
# Class: fee as a share of the notional, digits of a quantity.
_TERMS = {AssetClass.CRYPTO: (0.001, 6), AssetClass.FOREX: (0.00002, 0), AssetClass.EQUITY: (0.0001, 0)}


@dataclass(frozen=True, slots=True)
class _Fill:
    decision: Decision
    micros: int
    part: int
    share: float
    status: str
    by_hand: bool
    notional: float


class ExecutionMaker:
    """Makes the executions that follow an instrument's decisions, in one fill or two."""

    def __init__(self, seed: int, instrument: Instrument, bars: BarMaker, decisions: DecisionMaker) -> None:
        self._instrument = instrument
        self._bars = bars
        self._decisions = decisions
        self._slots = Slots(seed, instrument.pair, "execution", Timeframe.H4.seconds)

    def table(self, start: datetime, end: datetime) -> pa.Table:
        """Return the executions in [start, end), aware UTC, in the contract's business columns."""
        low, high = micros(start), micros(end)
        acted = [d for d in self._decisions.between(start - _LONGEST, end) if d.action != "HOLD"]
        fills = sorted((fill for fill in self._fills(acted) if low <= fill.micros < high), key=lambda fill: fill.micros)
        instants = np.array([fill.micros for fill in fills], dtype=np.int64)
        position, instants = trading(self._instrument, np.arange(len(fills)), instants)
        prices = self._bars.prices_at(instants // MINUTE).tolist() if instants.size else []
        rows = [self._row(fills[where], price) for where, price in zip(position.tolist(), prices, strict=True)]
        return event_table(DATASET, rows)

    def _fills(self, acted: list[Decision]) -> Iterator[_Fill]:
        slot = np.array([decision.slot for decision in acted], dtype=np.int64)
        names = ("act", "hand", "split", "share", "notional", "delay")
        draws = zip(*(self._slots.uniform(name, slot).tolist() for name in names), strict=True)
        for decision, (act, hand, split, share, notional, delay) in zip(acted, draws, strict=True):
            if act >= _ACTED_ON:
                continue
            wait = _DELAY[0] + int(delay * (_DELAY[1] - _DELAY[0]))
            at = decision.micros + wait * SECOND
            by_hand = hand < _BY_HAND
            usd = _NOTIONAL_USD[0] + notional * (_NOTIONAL_USD[1] - _NOTIONAL_USD[0])
            if split >= _SPLIT:
                yield _Fill(decision, at, 1, 1.0, "filled", by_hand, usd)
                continue
            first = 0.2 + 0.6 * share
            yield _Fill(decision, at, 1, first, "partial", by_hand, usd)
            yield _Fill(decision, at + _SECOND_FILL * SECOND, 2, 1.0 - first, "filled", by_hand, usd)

    def _row(self, fill: _Fill, price: float) -> dict[str, object]:
        instrument = self._instrument
        fee_rate, digits = _TERMS.get(instrument.asset_class, (0.0, 0))
        wanted = fill.notional * fill.share / profile_of(instrument).usd
        quantity = max(round(wanted, digits), 10.0**-digits)
        order = "ord-" + digest(instrument.pair, "order", fill.decision.micros)
        return {
            "execution_id": "exe-" + digest(instrument.pair, fill.decision.micros, fill.part),
            "order_id": order,
            "decision_id": None if fill.by_hand else fill.decision.decision_id,
            "asset_pair": instrument.pair,
            "timestamp": fill.micros,
            "side": fill.decision.action,
            "quantity": float(quantity),
            "price": price,
            "fee": round(quantity * price * fee_rate, 8),
            "fee_currency": instrument.quote,
            "venue": f"sample-{instrument.asset_class.value}",
            "status": fill.status,
        }
