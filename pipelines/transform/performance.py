"""How well a book does: ratios of its trades, and of its equity day by day, each to date.

Every row of a result is made from its own and earlier rows alone. What is not defined is null: NaN in the functions of
numpy arrays, null in `performance_to_date`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.transform.trades.spec import columns

Floats = NDArray[np.float64]

CALENDAR_DAYS = 365
TRADING_DAYS = 252
# A deviation of daily returns below this is rounding.
_STILL = 1e-12
# A trade whose net P&L is below this share of its notional has none but rounding.
_TIE = 1e-12
_SATURDAY = 5

DAYS = columns(
    ("day", "date", "Day, UTC; each day once, without gaps."),
    ("initial_balance", "double", "What the book began with, above 0. The same on all rows."),
    ("pnl", "double", "P&L to date at the end of the day, open positions included: equity - initial_balance."),
    ("gross_exposure", "double", "Value of all open positions at the end of the day, shorts counted as positive."),
    ("exposed_seconds", "double", "Time of the day with an open position."),
    ("elapsed_seconds", "double", "From the first execution to the end of what is known of the day."),
    ("round_the_clock", "boolean", "Whether an instrument traded so far trades round the clock."),
)

PERFORMANCE = columns(
    ("day", "date", "Day, UTC."),
    ("daily_return", "double", "P&L of the day over equity of the day before; null if that was not positive."),
    ("sharpe", "double", "Annualised Sharpe ratio to date."),
    ("sortino", "double", "Annualised Sortino ratio to date."),
    ("drawdown", "double", "Highest equity to date minus equity."),
    ("drawdown_fraction", "double", "drawdown as a fraction of the highest equity to date."),
    ("max_drawdown", "double", "Largest drawdown to date."),
    ("max_drawdown_fraction", "double", "Largest drawdown_fraction to date."),
    ("exposure_time", "double", "Share of the time since the first execution with an open position."),
    ("exposure_notional", "double", "Mean of gross_exposure / equity over the days to date."),
)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Closed trades by how they ended; profit and loss are sums of net P&L, both as positive numbers."""

    wins: int
    losses: int
    ties: int
    gross_profit: float
    gross_loss: float

    @classmethod
    def of(cls, net_pnl: Floats, notional: Floats) -> Outcomes:
        """Sort trades: below 1e-12 of its entry notional a net P&L is rounding, and the trade neither won nor lost.

        Trades whose net P&L is NaN are not counted.
        """
        won, lost = net_pnl > _TIE * notional, net_pnl < -_TIE * notional
        ties = int(np.isfinite(net_pnl).sum() - won.sum() - lost.sum())
        return cls(int(won.sum()), int(lost.sum()), ties, float(net_pnl[won].sum()), float(-net_pnl[lost].sum()))

    @property
    def win_rate(self) -> float | None:
        """Wins over wins + losses; None if there is neither."""
        decided = self.wins + self.losses
        return self.wins / decided if decided else None

    @property
    def profit_factor(self) -> float | None:
        """Gross profit over gross loss; None without losses: infinity would outshine every real figure."""
        return self.gross_profit / self.gross_loss if self.losses else None


def daily_returns(pnl: Floats, initial: float) -> Floats:
    """Return each day's P&L over the equity of the day before, at first the initial balance; NaN if not positive.

    Made from P&L to date rather than from equity, where a small P&L would drown in the digits of the balance.
    """
    before = np.concatenate([[0.0], pnl[:-1]])
    return _ratio(pnl - before, initial + before)


def daily_rate(annual: float, periods: int) -> float:
    """Return the rate that compounds to an annual one: (1 + annual)^(1 / periods) - 1."""
    return float((1.0 + annual) ** (1.0 / periods) - 1.0)


def sharpe_to_date(returns: Floats, periods: int, risk_free: float = 0.0) -> Floats:
    """Annualised Sharpe ratio of the returns up to each one: sqrt(periods) mean(r - f) / std(r - f).

    Sharpe, "The Sharpe Ratio", Journal of Portfolio Management 21(1), 1994; the deviation is the sample's (ddof=1), its
    running sums are Welford's (Technometrics 4(3), 1962). NaN for fewer than two returns, for a deviation below 1e-12,
    and from a return on that is NaN.

    Args:
        returns: one per period, fractions.
        periods: periods a year.
        risk_free: annual rate, a fraction.
    """
    excess = returns - daily_rate(risk_free, periods)
    ratios = np.full(returns.size, np.nan)
    mean = squares = 0.0
    for count, value in enumerate(excess.tolist(), start=1):
        delta = value - mean
        mean += delta / count
        squares += delta * (value - mean)
        if count > 1 and (deviation := (squares / (count - 1)) ** 0.5) >= _STILL:
            ratios[count - 1] = periods**0.5 * mean / deviation
    return ratios


def sortino_to_date(returns: Floats, periods: int, risk_free: float = 0.0) -> Floats:
    """Annualised Sortino ratio of the returns up to each one: sqrt(periods) mean(r - f) / sqrt(mean(min(r - f, 0)^2)).

    Sortino and Price, "Performance Measurement in a Downside Risk Framework", Journal of Investing 3(3), 1994: the
    downside deviation is taken from the target and over all returns. NaN as in `sharpe_to_date`.
    """
    excess = returns - daily_rate(risk_free, periods)
    count = np.arange(1, returns.size + 1)
    downside = np.sqrt(np.cumsum(np.minimum(excess, 0.0) ** 2) / count)
    defined = (count > 1) & (downside >= _STILL)
    return np.where(defined, periods**0.5 * np.cumsum(excess) / count / np.where(defined, downside, 1.0), np.nan)


def drawdowns(pnl: Floats, initial: float) -> tuple[Floats, Floats]:
    """Return how far equity is below its highest value to date, the initial balance included: amount and fraction."""
    peak = np.maximum(np.maximum.accumulate(pnl), 0.0)
    return peak - pnl, (peak - pnl) / (initial + peak)


def performance_to_date(days: pa.Table, risk_free: float = 0.0) -> pa.Table:
    """Return the performance of one book to date, for each of its days.

    A book of anything that trades round the clock earns on all days, and its ratios are annualised by sqrt(365); others
    on Monday to Friday, by sqrt(252), a weekend's change of equity being part of Monday's. Once equity is not positive,
    exposure_notional is null from that day on, Sharpe and Sortino from the next.

    Args:
        days: `DAYS`, in any order.
        risk_free: annual rate, a fraction.

    Returns:
        `PERFORMANCE`, by day.
    """
    if not days.num_rows:
        return PERFORMANCE.empty_table()
    days = days.sort_by("day")
    initial = float(days["initial_balance"][0].as_py())
    pnl, gross, exposed, elapsed = (
        np.asarray(days[name].to_numpy(), dtype=np.float64)
        for name in ("pnl", "gross_exposure", "exposed_seconds", "elapsed_seconds")
    )
    always = np.asarray(days["round_the_clock"].to_numpy(), dtype=np.bool_)
    weekdays = np.array([day.weekday() < _SATURDAY for day in days["day"].to_pylist()])
    drawdown, fraction = drawdowns(pnl, initial)
    leverage = _ratio(gross, initial + pnl)
    values = {
        "daily_return": daily_returns(pnl, initial),
        "drawdown": drawdown,
        "drawdown_fraction": fraction,
        "max_drawdown": np.maximum.accumulate(drawdown),
        "max_drawdown_fraction": np.maximum.accumulate(fraction),
        "exposure_time": _ratio(np.cumsum(exposed), elapsed),
        "exposure_notional": np.cumsum(leverage) / np.arange(1, pnl.size + 1),
    }
    for name, ratio in (("sharpe", sharpe_to_date), ("sortino", sortino_to_date)):
        daily = ratio(daily_returns(pnl, initial), CALENDAR_DAYS, risk_free)
        working = ratio(daily_returns(pnl[weekdays], initial), TRADING_DAYS, risk_free)
        # A weekend says what Friday said.
        latest = np.cumsum(weekdays)
        values[name] = np.where(always, daily, np.concatenate([[np.nan], working])[latest])
    arrays = [pa.array(values[field.name], from_pandas=True) for field in PERFORMANCE if field.name != "day"]
    return pa.table([days["day"].combine_chunks(), *arrays], schema=PERFORMANCE)


def _ratio(part: Floats, whole: Floats) -> Floats:
    """Divide; NaN where the whole is not positive."""
    found = np.full(part.size, np.nan)
    np.divide(part, whole, out=found, where=whole > 0)
    return found
