"""Sample news: a few made-up articles a day, around the clock, a little in tune with what the price did."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa

from pipelines.instruments import AssetClass, Instrument
from pipelines.sources.sample.bars import BarMaker
from pipelines.sources.sample.decisions import event_table, iso
from pipelines.sources.sample.noise import digest
from pipelines.sources.sample.profile import profile_of
from pipelines.sources.sample.slots import MINUTE, Slots, trend

DATASET = "raw_news_sentiment"
_EVERY_SECONDS = 6 * 3600
_WRITTEN = 0.75
_DAY = 1440
_WIRES = ("Sample Wire", "Example Markets", "Fictional Times")
# Upper bound of the score and its label, as Alpha Vantage words them.
_LABELS = (
    (-0.35, "Bearish"),
    (-0.15, "Somewhat-Bearish"),
    (0.15, "Neutral"),
    (0.35, "Somewhat-Bullish"),
    (1.01, "Bullish"),
)
_HEADLINES = {
    "Bearish": "{pair} slides as sellers take over",
    "Somewhat-Bearish": "{pair} eases in cautious trading",
    "Neutral": "{pair} little changed as markets wait",
    "Somewhat-Bullish": "{pair} edges up on steady demand",
    "Bullish": "{pair} jumps as buyers return",
}
_TOPICS = {
    AssetClass.CRYPTO: ("blockchain", "financial_markets", "technology"),
    AssetClass.FOREX: ("economy_monetary", "financial_markets", "economy_macro"),
    AssetClass.EQUITY: ("earnings", "financial_markets", "technology"),
    AssetClass.BOND: ("economy_monetary", "economy_fiscal", "financial_markets"),
}


class NewsMaker:
    """Makes one instrument's news."""

    def __init__(self, seed: int, instrument: Instrument, bars: BarMaker) -> None:
        self._instrument = instrument
        self._bars = bars
        self._slots = Slots(seed, instrument.pair, "news", _EVERY_SECONDS)

    def table(self, start: datetime, end: datetime) -> pa.Table:
        """Return the articles published in [start, end), aware UTC, in the contract's business columns."""
        slot, instant = self._slots.between(start, end)
        written = self._slots.uniform("written", slot) < _WRITTEN
        slot, instant = slot[written], instant[written]
        if not slot.size:
            return event_table(DATASET, [])
        minutes = instant // MINUTE
        now, before = self._bars.prices_at(minutes), self._bars.prices_at(minutes - _DAY)
        moves = trend(now, before, profile_of(self._instrument).daily)
        mood = np.tanh(0.35 * moves + 1.2 * (self._slots.uniform("mood", slot) - 0.5))
        relevance = 0.35 + 0.65 * self._slots.uniform("relevance", slot)
        details = zip(
            instant.tolist(), mood.tolist(), relevance.tolist(), self._slots.draws("wire", slot, len(_WIRES)).tolist(),
            self._slots.draws("topics", slot, 3).tolist(), strict=True,
        )  # fmt: skip
        return event_table(DATASET, [self._row(*detail) for detail in details])

    def _row(self, at: int, mood: float, relevance: float, wire: int, topics: int) -> dict[str, object]:
        pair = self._instrument.pair
        score = round(mood, 6)
        label = next(name for bound, name in _LABELS if score < bound)
        title = _HEADLINES[label].format(pair=pair)
        identity = "art-" + digest(pair, "article", at)
        return {
            "article_id": identity,
            "asset_pair": pair,
            "timestamp": at,
            "title": title,
            "url": f"https://news.example/{identity}",
            "source_name": _WIRES[wire],
            "summary": f"{title}, {_WIRES[wire]} reported at {iso(at)}. This article is made up.",
            "sentiment_score": score,
            "sentiment_label": label,
            "relevance_score": round(relevance, 6),
            "topics": list(_TOPICS[self._instrument.asset_class][: topics + 1]),
        }
