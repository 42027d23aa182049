"""Sample trading decisions: every few hours an ensemble of made-up analysts votes on what the price just did."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from pipelines.calendars import is_open
from pipelines.contracts import load_contracts
from pipelines.instruments import AssetClass, Instrument
from pipelines.sources.sample.bars import BarMaker
from pipelines.sources.sample.noise import Floats, Ints, digest
from pipelines.sources.sample.profile import profile_of
from pipelines.sources.sample.slots import MINUTE, SECOND, Slots, trend
from pipelines.timeframes import Timeframe

DATASET = "raw_ai_decisions"
_EVERY = Timeframe.H4
_LOOK_BACK = 240
_ANALYSTS = ("momentum", "reversal", "macro", "sentiment", "risk")
_STRATEGIES = ("voting", "voting", "voting", "debate", "debate", "fallback")
_MODEL = "sample-1"
_DECISIVE = 0.35

Vote: TypeAlias = dict[str, str | float]


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision; `micros` is its instant, microseconds since the epoch."""

    slot: int
    micros: int
    decision_id: str
    action: str
    confidence: float
    strategy: str
    votes: list[Vote]
    move: float


class DecisionMaker:
    """Makes one instrument's decisions; a yield, which nobody trades, has none."""

    def __init__(self, seed: int, instrument: Instrument, bars: BarMaker) -> None:
        self._instrument = instrument
        self._bars = bars
        self._slots = Slots(seed, instrument.pair, "decision", _EVERY.seconds)

    def table(self, start: datetime, end: datetime) -> pa.Table:
        """Return the decisions made in [start, end), aware UTC, in the contract's business columns."""
        return event_table(DATASET, [self._row(decision) for decision in self.between(start, end)])

    def between(self, start: datetime, end: datetime) -> list[Decision]:
        """Return the decisions made in [start, end), oldest first; only while the market is open."""
        if self._instrument.asset_class is AssetClass.BOND:
            return []
        slot, instant = trading(self._instrument, *self._slots.between(start, end))
        minutes = instant // MINUTE
        before, now = (
            self._bars.prices_at(minutes - back) if minutes.size else np.array([]) for back in (_LOOK_BACK, 0)
        )
        typical = profile_of(self._instrument).daily * math.sqrt(_LOOK_BACK / 1440)
        return list(self._decide(slot, instant, trend(now, before, typical)))

    def _decide(self, slot: Ints, instant: Ints, moves: Floats) -> Iterator[Decision]:
        scores = [
            0.5 * moves * (-1.0 if analyst == "reversal" else 1.0) + 2.4 * (self._slots.uniform(analyst, slot) - 0.5)
            for analyst in _ANALYSTS
        ]
        strategies = self._slots.draws("strategy", slot, len(_STRATEGIES))
        sizes = 2 + self._slots.draws("size", slot, len(_ANALYSTS) - 1)
        rows = zip(
            slot.tolist(), instant.tolist(), strategies.tolist(), sizes.tolist(), moves.tolist(),
            zip(*(score.tolist() for score in scores), strict=True), strict=True,
        )  # fmt: skip
        for number, at, strategy, size, move, given in rows:
            name = _STRATEGIES[strategy]
            votes = [_vote(*pair) for pair in zip(_ANALYSTS, given, strict=True)][: 1 if name == "fallback" else size]
            action, confidence = _settle(name, votes)
            identity = "dec-" + digest(self._instrument.pair, at)
            yield Decision(number, at, identity, action, confidence, name, votes, move)

    def _row(self, decision: Decision) -> dict[str, object]:
        return {
            "decision_id": decision.decision_id,
            "asset_pair": self._instrument.pair,
            "timestamp": decision.micros,
            "action": decision.action,
            "confidence": decision.confidence,
            "strategy": decision.strategy,
            "providers": [vote["provider"] for vote in decision.votes],
            "votes": decision.votes,
            "reasoning": f"The price moved {decision.move:+.2f} of its usual four-hour range; "
            f"{len(decision.votes)} of {len(_ANALYSTS)} analysts answered and {decision.strategy} settled on "
            f"{decision.action}.",
            "timeframe": _EVERY.value,
            "model_version": _MODEL,
        }


def trading(instrument: Instrument, slot: Ints, instant: Ints) -> tuple[Ints, Ints]:
    """Keep the slots whose instant lies in a minute with trading."""
    minutes = (instant // MINUTE * MINUTE).astype("datetime64[us]")
    kept = is_open(instrument, Timeframe.M1, minutes)
    return slot[kept], instant[kept]


def event_table(dataset: str, rows: list[dict[str, object]]) -> pa.Table:
    """Build a table of a dataset's business columns, typed by its contract.

    Args:
        dataset: the contract's id.
        rows: one mapping a row; instants as microseconds since the epoch.
    """
    contract = load_contracts()[dataset]
    names = [c.name for c in contract.columns if c.provided == "source" or c.name == "asset_pair"]
    columns = {}
    for name in names:
        kind = contract.column(name).arrow_type
        columns[name] = pa.array([row[name] for row in rows], type=kind)
    return pa.table(columns)


def iso(micros: int) -> str:
    """Return an instant as text, whole seconds, UTC."""
    return datetime.fromtimestamp(micros // SECOND, UTC).isoformat().replace("+00:00", "Z")


def _vote(analyst: str, score: float) -> Vote:
    action = "BUY" if score > _DECISIVE else "SELL" if score < -_DECISIVE else "HOLD"
    sure = abs(score) if action != "HOLD" else 1.0 - abs(score)
    return {"provider": analyst, "action": action, "confidence": round(min(0.99, 0.45 + 0.25 * sure), 4)}


def _settle(strategy: str, votes: list[Vote]) -> tuple[str, float]:
    """Return the ensemble's action and confidence: by weight of votes, or by the surest voice in a debate."""
    if strategy == "debate":
        surest = max(votes, key=lambda vote: float(vote["confidence"]))
        return str(surest["action"]), float(surest["confidence"])
    weights: dict[str, float] = {}
    for vote in votes:
        weights[str(vote["action"])] = weights.get(str(vote["action"]), 0.0) + float(vote["confidence"])
    action = max(weights, key=lambda name: weights[name])
    return action, round(weights[action] / len(votes), 4)
