"""Clean bars, real and synthetic, and defects to plant in them at places that are known."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow as pa

from pipelines.config import PROJECT_ROOT
from pipelines.contracts import load_contracts
from pipelines.instruments import load_registry
from pipelines.sources.sample.bars import BarMaker
from pipelines.timeframes import Timeframe

SHARED = PROJECT_ROOT.parent / "shared" / "data"
FILES = {
    "btc_usd_perp_1m_2022-01.csv": ("BTCUSD", "1m"),
    "gbpusd_1m_bid_2012-02.csv": ("GBPUSD", "1m"),
    "eth_btc_5m_2018-01.csv": ("ETHBTC", "5m"),
    "ltc_btc_5m_2018-01.csv": ("LTCBTC", "5m"),
}
SAMPLES = [("SOLUSD", "1m"), ("EURUSD", "5m"), ("AAPL", "1h"), ("^TNX", "1d")]
PRICES = ("open", "high", "low", "close")
# So far apart that no defect is the neighbour of another, for which a spike's score looks three bars far.
APART = 40
Row = dict[str, Any]


def real_bars(name: str, most: int | None = None) -> list[Row]:
    """The bars of a real file, as the edge would make them."""
    asset, timeframe = FILES[name]
    frame = pd.read_csv(SHARED / name, nrows=most)
    frame["timestamp"] = pd.to_datetime(frame["timestamp" if "timestamp" in frame else "date"], utc=True)
    return _rows(frame.to_dict("records"), asset, timeframe, "files")


def sample_bars(asset: str, timeframe: str, count: int) -> list[Row]:
    """Synthetic bars of a series."""
    length = Timeframe(timeframe)
    # Of a market that opens for six hours on five days, more time has to pass for as many bars.
    span = length.step * count * (2 if length is Timeframe.D1 else 7)
    end = datetime(2024, 3, 4, tzinfo=UTC)
    maker = BarMaker(20_240_101, load_registry().resolve(asset))
    rows = maker.table(length, end - span, end).slice(0, count).to_pylist()
    return _rows(rows, asset, timeframe, "sample")


def _rows(rows: Sequence[Row], asset: str, timeframe: str, provider: str) -> list[Row]:
    return [
        {
            "asset_pair": asset,
            "timeframe": timeframe,
            "timestamp": row["timestamp"],
            **{name: float(row[name]) for name in PRICES},
            "volume": float(row["volume"]) if row.get("volume") is not None else None,
            "provider": provider,
            "price_side": "trade",
            "is_adjusted": False,
            "is_derived": False,
        }
        for row in rows
    ]


def table_of(rows: Sequence[Row]) -> pa.Table:
    """The rows in an Arrow table of the contract's types; columns of no contract keep theirs."""
    kinds = {column.name: column.arrow_type for column in load_contracts()["raw_market_data"].columns}
    return pa.table({name: pa.array([row[name] for row in rows], kinds.get(name)) for name in rows[0]})


def _set(**values: Any) -> Callable[[Row], Row]:
    return lambda row: {**row, **values}


# Each with what the row is told.
REFUSED: dict[str, Callable[[Row], Row]] = {
    "high < low; open not in range; close not in range": lambda row: {**row, "low": row["high"] * 1.001},
    "open not in range": lambda row: {**row, "open": row["high"] * 1.01},
    "close not in range": lambda row: {**row, "close": row["low"] * 0.99},
    **{
        f"null {name}": _set(**{name: None})
        for name in ("asset_pair", "timeframe", "timestamp", *PRICES, "provider", "price_side", "is_derived")
    },
    "NaN open": _set(open=float("nan")),
    "NaN close": _set(close=float("nan")),
    "infinite high": _set(high=float("inf")),
    "infinite low": _set(low=float("-inf")),
    "price out of bounds": _set(high=2e6),
    "negative volume": _set(volume=-1.0),
    "unknown asset": _set(asset_pair="NO SUCH ASSET"),
    "unknown timeframe": _set(timeframe="7m"),
    "unknown price_side": _set(price_side="last"),
    "bar not closed yet": lambda row: {**row, "timestamp": row["timestamp"].replace(year=2096, day=1)},
}
SPIKE, STALE, BACK = "price spike", "stale price", "time goes back"


@dataclass
class Planted:
    """Rows with a `number` each; the reasons of those to be refused, and the numbers of those to be warned of."""

    rows: list[Row] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    warned: dict[str, set[int]] = field(default_factory=lambda: {SPIKE: set(), STALE: set(), BACK: set()})

    def add(self, row: Row, reason: str | None = None, *, warning: str | None = None) -> None:
        """Append a row, and what is wrong with it."""
        number = len(self.rows)
        self.rows.append({**row, "number": number})
        if reason is not None:
            self.refused[number] = reason
        if warning is not None:
            self.warned[warning].add(number)

    @property
    def table(self) -> pa.Table:
        """All rows."""
        return table_of(self.rows)


def plant(series: Sequence[Row], into: Planted, seed: int, *, ordered: bool = True) -> None:
    """Plant every kind of defect at random places of a series of sound bars."""
    draw = random.Random(seed)
    kinds = [*REFUSED, "repeated version", SPIKE, STALE, "short stand", "nothing traded", "restated"]
    kinds += [BACK] * ordered
    room = range(APART, len(series) - APART, APART)
    places = dict(zip((at + draw.randrange(5) for at in draw.sample(room, len(room))), _for_ever(kinds), strict=False))
    index = 0
    while index < len(series):
        kind = places.get(index)
        index += 1 if kind is None else _put(series[index : index + APART // 2], kind, into, draw)
        if kind is None:
            into.add(series[index - 1])


def _for_ever(kinds: list[str]) -> Iterator[str]:
    while True:
        yield from kinds


def _put(bars: Sequence[Row], kind: str, into: Planted, draw: random.Random) -> int:
    """Add a defect that begins with the first of the bars; returns how many of them it used."""
    first = bars[0]
    if kind in REFUSED:
        into.add(REFUSED[kind](first), kind)
    elif kind == "repeated version":
        into.add(first)
        into.add(first, kind)
    elif kind == "restated":
        into.add(first)
        into.add({**first, "volume": (first["volume"] or 0.0) + 1.0})
    elif kind == SPIKE:
        into.add(spiked(first, draw.choice((-1, 1))), warning=SPIKE)
    elif kind == BACK:
        for bar in bars[1:5]:
            into.add(bar)
        into.add(first, warning=BACK)
        return 5
    else:
        return _put_still(bars, kind, into)
    return 1


# Longer bars do move as far as is beyond belief within a minute.
_SPIKES = {"1m": 0.06, "5m": 0.25, "1h": 0.25, "1d": 0.9}


def spiked(bar: Row, sign: int) -> Row:
    """A bar whose close leaves the market, up or down, as far as none does."""
    close = bar["close"] * (1 + sign * _SPIKES[bar["timeframe"]])
    return {**bar, "close": close, "high": max(bar["high"], close), "low": min(bar["low"], close)}


def _put_still(bars: Sequence[Row], kind: str, into: Planted) -> int:
    price = bars[0]["close"]
    into.add(bars[0])
    length = 8 if kind == "short stand" else 12
    volume = 0.0 if kind == "nothing traded" else 7.5
    for bar in bars[1 : 1 + length]:
        flat = {**bar, **dict.fromkeys(PRICES, price), "volume": volume}
        into.add(flat, warning=STALE if kind == STALE else None)
    return 1 + length
