"""What docs/marts.md says, in plain pandas: each day is made from scratch, out of what was known when it ended.

Nothing of `pipelines.transform` is used. Matching works in another way: with lots first in, first out, the n-th unit
ever bought meets the n-th unit ever sold.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd

from pipelines.instruments import load_registry
from pipelines.timeframes import Timeframe

Row = dict[str, Any]

_SECOND = timedelta(seconds=1)
_NOW = pd.Timedelta(microseconds=1)
_NONE = float("nan")
PRIORITY = ("alpha_vantage", "coinbase", "oanda", "yfinance")
STRATEGIES = ("debate", "voting", "fallback", "none")
REGIMES = ("trend", "range", "volatile", "unknown")


@dataclass(frozen=True)
class Settings:
    """The settings of the marts, with their defaults."""

    initial_balances: Mapping[str, float] = field(default_factory=dict)
    initial_balance: float = 100_000.0
    risk_free: float = 0.0
    regime_timeframe: str = "1h"

    def initial(self, currency: str) -> float:
        return self.initial_balances.get(currency, self.initial_balance)


def marts(
    executions: pd.DataFrame, decisions: pd.DataFrame, bars: pd.DataFrame, settings: Settings | None = None
) -> dict[str, pd.DataFrame]:
    """Return all five marts, by name.

    Args:
        executions: columns of the contract, one version a provider.
        decisions: the same.
        bars: asset_pair, timeframe, timestamp, close, regime (null while unknown); one row per bar.
        settings: initial balances and so on.
    """
    world = World(executions, decisions, bars, settings or Settings())
    made: dict[str, list[Row]] = {name: [] for name in _MARTS}
    for day in world.days():
        then = world.as_of(day)
        for name, rows in _MARTS.items():
            made[name] += [{"day": day, "known_at": then.known_at} | row for row in rows(then)]
    tables = {name: pd.DataFrame(rows) for name, rows in made.items()}
    _add_history(tables, world)
    return tables


def lifecycle(executions: pd.DataFrame, closes: Mapping[str, tuple[float, datetime]]) -> pd.DataFrame:
    """Return `trade_lifecycle`; closes maps an asset pair to its last known close and the bar's closing instant."""
    rows: list[Row] = []
    for (book, pair), fills in executions.groupby(["provider", "asset_pair"]):
        for lot in _lots(fills):
            mark, mark_at = closes.get(str(pair), (_NONE, None))
            rows.append({"book": book, "asset_pair": pair} | lot | _marked(lot, mark, mark_at))
    lots = pd.DataFrame(rows)
    for name in ("opened_at", "closed_at", "mark_at") if rows else ():
        lots[name] = pd.to_datetime(lots[name], utc=True).dt.as_unit("us")
    return lots


def _marked(lot: Row, mark: float, mark_at: datetime | None) -> Row:
    if lot["status"] == "closed":
        return {"mark": _NONE, "mark_at": None, "open_gross_pnl": _NONE, "open_pnl": _NONE}
    gross = _sign(lot) * lot["quantity"] * (mark - lot["entry_price"])
    return {"mark": mark, "mark_at": mark_at, "open_gross_pnl": gross, "open_pnl": gross - lot["entry_fee"]}


def _lots(fills: pd.DataFrame) -> list[Row]:
    """Lots of one book and instrument: overlaps of what was bought with what was sold, both laid end to end."""
    ordered = fills.sort_values(["timestamp", "execution_id"]).reset_index(drop=True)
    spans: dict[str, list[tuple[Fraction, Fraction, int]]] = {"BUY": [], "SELL": []}
    ends = {"BUY": Fraction(0), "SELL": Fraction(0)}
    for number, fill in ordered.iterrows():
        start = ends[fill.side]
        ends[fill.side] = start + Fraction(f"{fill.quantity:.15g}")
        spans[fill.side].append((start, ends[fill.side], int(str(number))))
    found: list[tuple[int, int | None, Fraction]] = []
    for bought_from, bought_to, buy in spans["BUY"]:
        for sold_from, sold_to, sell in spans["SELL"]:
            common = min(bought_to, sold_to) - max(bought_from, sold_from)
            if common > 0:
                found.append((min(buy, sell), max(buy, sell), common))
    matched = min(ends.values())
    for side in spans.values():
        found += [(number, None, end - max(start, matched)) for start, end, number in side if end > matched]
    quantities = [Fraction(f"{quantity:.15g}") for quantity in ordered.quantity]
    rows = list(ordered.itertuples(index=False))
    ordering = sorted(found, key=lambda part: (part[0], math.inf if part[1] is None else part[1]))
    return [_lot(rows, quantities, *part) for part in ordering]


def _lot(fills: list[Any], quantities: list[Fraction], first: int, last: int | None, size: Fraction) -> Row:
    entry, quantity = fills[first], float(size)
    row: Row = {
        "side": "LONG" if entry.side == "BUY" else "SHORT",
        "quote_currency": _instrument(entry.asset_pair).quote,
        "decision_id": entry.decision_id,
        "entry_execution_id": entry.execution_id,
        "entry_order_id": entry.order_id,
        "opened_at": entry.timestamp,
        "quantity": quantity,
        "entry_price": entry.price,
        "entry_fee": _fee(entry) * float(size / quantities[first]),
        "status": "open",
        "lot_id": f"{entry.execution_id} > open",
    }
    empty = dict.fromkeys(("exit_price", "exit_fee", "gross_pnl", "net_pnl", "net_return", "holding_seconds"), _NONE)
    row |= empty | dict.fromkeys(("trade_id", "exit_decision_id", "exit_execution_id", "exit_order_id"))
    row["closed_at"] = pd.NaT
    if last is None:
        return row
    out = fills[last]
    gross = _sign(row) * quantity * (out.price - entry.price)
    fee = _fee(out) * float(size / quantities[last])
    net = gross - row["entry_fee"] - fee
    return row | {
        "status": "closed",
        "lot_id": f"{entry.execution_id} > {out.execution_id}",
        "trade_id": f"{entry.order_id} > {out.order_id} @ {out.timestamp:%Y-%m-%d}",
        "exit_decision_id": out.decision_id,
        "exit_execution_id": out.execution_id,
        "exit_order_id": out.order_id,
        "closed_at": out.timestamp,
        "exit_price": out.price,
        "exit_fee": fee,
        "gross_pnl": gross,
        "net_pnl": net,
        "net_return": net / (quantity * entry.price),
        "holding_seconds": (out.timestamp - entry.timestamp) / _SECOND,
    }


def _sign(lot: Mapping[str, Any]) -> float:
    return 1.0 if lot["side"] == "LONG" else -1.0


def _instrument(pair: str) -> Any:
    return load_registry().resolve(pair)


def _fee(fill: Any) -> float:
    """A fill's fee in quote currency; NaN if it was paid in a third one."""
    instrument = _instrument(fill.asset_pair)
    if pd.isna(fill.fee) or fill.fee == 0:
        return 0.0
    if pd.isna(fill.fee_currency) or fill.fee_currency.upper() == instrument.quote:
        return float(fill.fee)
    return float(fill.fee * fill.price) if fill.fee_currency.upper() == instrument.base else _NONE


@dataclass
class Then:
    """What was known when a day ended: frames of executions, decisions, bars, and of lots and trades made of them."""

    day: date
    end: pd.Timestamp
    known_at: pd.Timestamp
    settings: Settings
    executions: pd.DataFrame
    decisions: pd.DataFrame
    bars: pd.DataFrame
    lots: pd.DataFrame = field(init=False)
    trades: pd.DataFrame = field(init=False)

    def __post_init__(self) -> None:
        self.lots = lifecycle(self.executions, self._closes())
        self.trades = _trades(self.lots, self)

    def _closes(self) -> dict[str, tuple[float, datetime]]:
        ordered = self.bars.sort_values(["closed_at", "seconds"], ascending=[True, False])
        newest = ordered.groupby("asset_pair").tail(1)
        return {bar.asset_pair: (bar.close, bar.closed_at) for bar in newest.itertuples()}


class World:
    """Everything there is."""

    def __init__(
        self, executions: pd.DataFrame, decisions: pd.DataFrame, bars: pd.DataFrame, settings: Settings
    ) -> None:
        self.settings = settings
        self.executions, self.decisions = _once(executions, "execution_id"), _once(decisions, "decision_id")
        seconds = [Timeframe(name).seconds for name in bars.timeframe]
        closed_at = bars.timestamp + pd.to_timedelta(seconds, unit="s").as_unit("us")
        self.bars = bars.assign(seconds=seconds, closed_at=closed_at)

    def days(self) -> list[date]:
        events = pd.concat([self.executions.timestamp, self.decisions.timestamp, self.bars.closed_at - _NOW])
        return [stamp.date() for stamp in pd.date_range(events.min().normalize(), events.max(), freq="D")]

    def as_of(self, day: date) -> Then:
        end = pd.Timestamp(day, tz="UTC") + pd.Timedelta(days=1)
        known = max(self.executions.timestamp.max(), self.decisions.timestamp.max(), self.bars.closed_at.max())
        return Then(
            day, end, min(end, known), self.settings,
            self.executions[self.executions.timestamp < end],
            self.decisions[self.decisions.timestamp < end],
            self.bars[self.bars.closed_at <= end],
        )  # fmt: skip


def _once(events: pd.DataFrame, key: str) -> pd.DataFrame:
    rank = events.provider.map(lambda name: PRIORITY.index(name) if name in PRIORITY else len(PRIORITY))
    ordered = events.assign(rank=rank).sort_values(["rank", "provider"]).drop_duplicates(key).drop(columns="rank")
    return ordered.assign(currency=[_instrument(pair).quote for pair in ordered.asset_pair])


def _trades(lots: pd.DataFrame, then: Then) -> pd.DataFrame:
    rows: list[Row] = []
    closed = lots[lots.status == "closed"] if len(lots) else lots
    keys = ["book", "asset_pair", "trade_id"]
    for (book, pair, _), parts in closed.groupby(keys) if len(closed) else ():
        first = parts.sort_values(["opened_at", "entry_execution_id"]).iloc[0]
        decision = _decision(first, then.decisions)
        notional = (parts.quantity * parts.entry_price).sum()
        net = parts.net_pnl.sum(skipna=False)
        rows.append(
            {
                "book": book,
                "asset_pair": pair,
                "currency": first.quote_currency,
                "side": first.side,
                "day": parts.closed_at.max().date(),
                "net": net,
                "notional": notional,
                "return": net / notional,
                "held": (parts.closed_at.max() - parts.opened_at.min()) / _SECOND,
                "strategy": "none" if decision is None else decision.strategy,
                "votes": {} if decision is None else _votes(decision.votes),
                "regime": _regime(first, then),
            }
        )
    columns = [
        "book",
        "asset_pair",
        "currency",
        "side",
        "day",
        "net",
        "notional",
        "return",
        "held",
        "strategy",
        "votes",
        "regime",
    ]
    return pd.DataFrame(rows, columns=columns)


def _decision(lot: Any, decisions: pd.DataFrame) -> Any:
    named = decisions[(decisions.decision_id == lot.decision_id) & (decisions.asset_pair == lot.asset_pair)]
    named = named[named.timestamp <= lot.opened_at]
    return None if named.empty else named.iloc[0]


def _votes(votes: Any) -> dict[str, tuple[str, float]]:
    """The one vote of each AI provider: action and confidence."""
    if votes is None or isinstance(votes, float):
        return {}
    one: dict[str, tuple[str, float]] = {}
    for vote in sorted(votes, key=lambda vote: (-(vote["confidence"] or 0.0), vote["action"])):
        one.setdefault(vote["provider"], (vote["action"], vote["confidence"] or 0.0))
    return one


def _regime(lot: Any, then: Then) -> str:
    bars = then.bars
    known = bars[
        (bars.asset_pair == lot.asset_pair)
        & (bars.timeframe == then.settings.regime_timeframe)
        & (bars.closed_at <= lot.opened_at)
    ].sort_values("closed_at")
    regime = None if known.empty else known.iloc[-1].regime
    return "unknown" if regime is None or pd.isna(regime) else str(regime)


def _outcomes(trades: pd.DataFrame) -> Row:
    priced = trades[trades.net.notna()]
    won = priced[priced.net > 1e-12 * priced.notional]
    lost = priced[priced.net < -1e-12 * priced.notional]
    return {
        "trades": len(trades),
        "wins": len(won),
        "losses": len(lost),
        "ties": len(priced) - len(won) - len(lost),
        "unpriced_trades": len(trades) - len(priced),
        "win_rate": _ratio(len(won), len(won) + len(lost)),
        "gross_profit": float(won.net.sum()),
        "gross_loss": abs(float(lost.net.sum())),
        "profit_factor": _ratio(won.net.sum(), -lost.net.sum()),
        "net_pnl": float(priced.net.sum()),
        "mean_return": float(priced["return"].mean()) if len(priced) else _NONE,
        "mean_holding_seconds": float(trades.held.mean()) if len(trades) else _NONE,
    }


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else _NONE


def _equity(executions: pd.DataFrame, lots: pd.DataFrame, initial: float) -> Row:
    """Figures of a book, or of one instrument of it, at the end of a day: cash by its flow, equity by the position."""
    flow = sum(
        (fill.quantity * fill.price * (1 if fill.side == "SELL" else -1) - np.nan_to_num(_fee(fill)))
        for fill in executions.itertuples()
    )
    closed, still = lots[lots.status == "closed"], lots[lots.status == "open"]
    realised = (closed.gross_pnl - closed.entry_fee.fillna(0) - closed.exit_fee.fillna(0)).sum()
    value = still.quantity * still.mark.fillna(still.entry_price)
    sign = pd.Series([_sign(lot) for lot in still.to_dict("records")], index=still.index, dtype=float)
    open_pnl = (sign * still.quantity * (still.mark.fillna(still.entry_price) - still.entry_price)).sum()
    open_pnl -= still.entry_fee.fillna(0).sum()
    cash = initial + flow
    return {
        "initial_balance": initial,
        "balance": initial + realised,
        "cash": cash,
        "market_value": (sign * value).sum(),
        "gross_exposure": value.sum(),
        "equity": cash + (sign * value).sum(),
        "open_pnl": open_pnl,
        "_pnl": realised + open_pnl,
    }


def _books(then: Then) -> Iterator[tuple[str, str, pd.DataFrame, pd.DataFrame, pd.DataFrame]]:
    for (book, currency), fills in then.executions.groupby(["provider", "currency"]):
        lots = then.lots[(then.lots.book == book) & (then.lots.quote_currency == currency)]
        trades = then.trades[(then.trades.book == book) & (then.trades.currency == currency)]
        yield str(book), str(currency), fills, lots, trades


def _performance(then: Then) -> Iterator[Row]:
    for book, currency, fills, lots, trades in _books(then):
        for pair in ["ALL", *sorted(fills.asset_pair.unique())]:
            own, held, done = (
                frame if pair == "ALL" else frame[frame.asset_pair == pair] for frame in (fills, lots, trades)
            )
            figures = _equity(own, held, then.settings.initial(currency))
            always = any(_instrument(name).calendar == "24/7" for name in own.asset_pair)
            yield {
                "book": book, "quote_currency": currency, "asset_pair": pair, "executions": len(own), **_outcomes(done),
                "pnl": figures["_pnl"], "_pnl": figures["_pnl"], "equity": figures["equity"],
                "periods_per_year": 365 if always else 252,
                "exposure_time": _exposed(held, own.timestamp.min(), then.known_at),
                "_leverage": figures["gross_exposure"] / figures["equity"] if figures["equity"] > 0 else _NONE,
            }  # fmt: skip


def _exposed(lots: pd.DataFrame, since: pd.Timestamp, until: pd.Timestamp) -> float:
    """Share of the time with an open lot, by sweeping over all instants at which that may change."""
    ends = lots.closed_at.fillna(until)
    instants = sorted({since, until, *lots.opened_at, *ends})
    held = pd.Timedelta(0)
    for low, high in itertools.pairwise(instants):
        if ((lots.opened_at <= low) & (ends >= high)).any():
            held += high - low
    return _ratio(held / _SECOND, (until - since) / _SECOND)


def _portfolio(then: Then) -> Iterator[Row]:
    for book, currency, fills, lots, trades in _books(then):
        today = fills[fills.timestamp >= then.end - pd.Timedelta(days=1)]
        still = lots[lots.status == "open"]
        yield {
            "book": book, "quote_currency": currency, **_equity(fills, lots, then.settings.initial(currency)),
            "fees": float(np.nansum([_fee(fill) for fill in today.itertuples()])),
            "executions": len(today), "trades": int((trades.day == then.day).sum()),
            "open_positions": still.asset_pair.nunique(),
            "long_positions": still[still.side == "LONG"].asset_pair.nunique(),
            "short_positions": still[still.side == "SHORT"].asset_pair.nunique(),
            "open_lots": still.entry_execution_id.nunique(),
            "unmarked_positions": still[still.mark.isna()].asset_pair.nunique(),
            "unconverted_fees": sum(math.isnan(_fee(fill)) for fill in fills.itertuples()),
        }  # fmt: skip


def _attribution(then: Then) -> Iterator[Row]:
    votes = [
        {"ai": name, "pair": made.asset_pair, "action": action, "confidence": sure, "agreed": action == made.action}
        for made in then.decisions.itertuples()
        for name, (action, sure) in _votes(made.votes).items()
    ]
    for (ai, pair), given in pd.DataFrame(votes).groupby(["ai", "pair"]) if votes else ():
        own = then.trades[then.trades.asset_pair == pair]
        wanted = own.side.map({"LONG": "BUY", "SHORT": "SELL"})
        voted = own.votes.map(lambda cast, ai=ai: cast.get(ai, ("", 0.0))[0])
        supported, opposed = own[voted == wanted], own[(voted != wanted) & voted.isin(["BUY", "SELL"])]
        priced = supported[supported.net.notna()]
        yield {
            "ai_provider": ai, "asset_pair": pair, "quote_currency": _instrument(str(pair)).quote,
            "decisions": len(given),
            **{f"{name.lower()}_votes": int((given.action == name).sum()) for name in ("BUY", "SELL", "HOLD")},
            "agreed": int(given.agreed.sum()), "agreement_rate": float(given.agreed.mean()),
            "mean_confidence": float(given.confidence.mean()), **_outcomes(supported),
            "attributed_pnl": float(sum(_share(trade, str(ai)) for trade in priced.itertuples())),
            "opposed_trades": len(opposed), "opposed_pnl": float(opposed.net.sum()),
        }  # fmt: skip


def _share(trade: Any, ai: str) -> float:
    wanted = "BUY" if trade.side == "LONG" else "SELL"
    sure = {name: confidence for name, (action, confidence) in trade.votes.items() if action == wanted}
    total = sum(sure.values())
    return float(trade.net * (sure[ai] / total if total else 1 / len(sure)))


def _ensemble(then: Then) -> Iterator[Row]:
    for currency in sorted({*then.executions.currency, *then.decisions.currency}):
        for strategy in STRATEGIES:
            made = then.decisions[(then.decisions.currency == currency) & (then.decisions.strategy == strategy)]
            votes = [(row.action, _votes(row.votes)) for row in made.itertuples()]
            agreement = [np.mean([vote == action for vote, _ in cast.values()]) for action, cast in votes if cast]
            counts = {f"{name.lower()}_decisions": int((made.action == name).sum()) for name in ("BUY", "SELL", "HOLD")}
            acted = sum(_acted(row, then.executions) for row in made.itertuples() if row.action != "HOLD")
            trades = then.trades[(then.trades.currency == currency) & (then.trades.strategy == strategy)]
            yield {
                "strategy": strategy, "quote_currency": currency, "decisions": len(made), **counts,
                "mean_confidence": float(made.confidence.mean()) if len(made) else _NONE,
                "mean_agreement": float(np.mean(agreement)) if agreement else _NONE,
                "acted_decisions": acted,
                "action_rate": _ratio(acted, counts["buy_decisions"] + counts["sell_decisions"]), **_outcomes(trades),
            }  # fmt: skip


def _acted(decision: Any, executions: pd.DataFrame) -> bool:
    named = executions[
        (executions.decision_id == decision.decision_id) & (executions.asset_pair == decision.asset_pair)
    ]
    return bool((named.timestamp >= decision.timestamp).any())


def _regimes(then: Then) -> Iterator[Row]:
    known = then.bars[then.bars.timeframe == then.settings.regime_timeframe].sort_values("closed_at")
    for pair in sorted({*known.asset_pair, *then.executions.asset_pair}):
        bars = known[known.asset_pair == pair]
        returns = np.log(bars.close / bars.close.shift())
        regimes = bars.regime.fillna("unknown")
        own = then.trades[then.trades.asset_pair == pair]
        for regime in REGIMES:
            inside = regimes == regime
            yield {
                "asset_pair": pair, "regime": regime, "quote_currency": _instrument(pair).quote,
                "bars": int(inside.sum()), "bar_share": _ratio(int(inside.sum()), len(bars)),
                "mean_log_return": float(returns[inside].mean()), **_outcomes(own[own.regime == regime]),
            }  # fmt: skip


_MARTS = {
    "mart_trading_performance": _performance,
    "mart_daily_portfolio_summary": _portfolio,
    "mart_provider_attribution": _attribution,
    "mart_ensemble_effectiveness": _ensemble,
    "mart_market_regime_stats": _regimes,
}
KEYS = {
    "mart_trading_performance": ["book", "quote_currency", "asset_pair", "day"],
    "mart_daily_portfolio_summary": ["book", "quote_currency", "day"],
    "mart_provider_attribution": ["ai_provider", "asset_pair", "day"],
    "mart_ensemble_effectiveness": ["strategy", "quote_currency", "day"],
    "mart_market_regime_stats": ["asset_pair", "regime", "day"],
}


def _add_history(tables: dict[str, pd.DataFrame], world: World) -> None:
    """Add what needs the days before: returns, drawdowns and ratios, from the equity of each day to date."""
    for name, keys in KEYS.items():
        table = tables[name]
        if table.empty or "equity" not in table:
            continue
        table = table.sort_values(keys).reset_index(drop=True)
        for _, rows in table.groupby(keys[:-1]):
            initial = world.settings.initial(rows.quote_currency.iloc[0])
            for count in range(1, len(rows) + 1):
                for column, value in _history(rows.iloc[:count], initial, world.settings.risk_free).items():
                    table.loc[rows.index[count - 1], column] = value
        tables[name] = table.drop(columns=["_leverage", "_pnl"], errors="ignore")


def _history(rows: pd.DataFrame, initial: float, risk_free: float) -> dict[str, float]:
    profit = [0.0, *rows._pnl]
    peaks = [max(profit[: n + 1]) for n in range(len(profit))]
    amounts = [peak - now for peak, now in zip(peaks, profit, strict=True)]
    fractions = [amount / (initial + peak) for amount, peak in zip(amounts, peaks, strict=True)]
    before = initial + profit[-2]
    figures = {
        "daily_return": (profit[-1] - profit[-2]) / before if before > 0 else _NONE,
        "drawdown": amounts[-1],
        "drawdown_fraction": fractions[-1],
    }
    if "balance" in rows:
        return figures | {"realised_pnl": rows.balance.iloc[-1] - [initial, *rows.balance][-2]}
    periods = int(rows.periods_per_year.iloc[-1])
    counted = [value for day, value in zip(rows.day, rows._pnl, strict=True) if periods == 365 or day.weekday() < 5]
    return figures | {
        "max_drawdown": max(amounts),
        "max_drawdown_fraction": max(fractions),
        "exposure_notional": float(np.mean(rows._leverage.to_numpy())),
        **sharpe_and_sortino([0.0, *counted], initial, periods, risk_free),
    }


def sharpe_and_sortino(profit: list[float], initial: float, periods: int, risk_free: float) -> dict[str, float]:
    """Return both ratios of a curve of P&L to date, which begins with 0, by the book."""
    returns = [
        (now - before) / (initial + before) if initial + before > 0 else _NONE
        for before, now in itertools.pairwise(profit)
    ]
    excess = [value - ((1 + risk_free) ** (1 / periods) - 1) for value in returns]
    count = len(excess)
    ratios = {"sharpe": _NONE, "sortino": _NONE}
    if count < 2 or any(math.isnan(value) for value in excess):
        return ratios
    mean = math.fsum(excess) / count
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in excess) / (count - 1))
    below = math.sqrt(math.fsum(min(value, 0) ** 2 for value in excess) / count)
    if spread >= 1e-12:
        ratios["sharpe"] = math.sqrt(periods) * mean / spread
    if below >= 1e-12:
        ratios["sortino"] = math.sqrt(periods) * mean / below
    return ratios
