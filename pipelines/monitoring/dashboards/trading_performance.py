"""The dashboard of how trading did: the figures of the gold marts on their newest day, and how they came about."""

from __future__ import annotations

from pipelines.monitoring.dashboards.panels import Board, Choice, Limits, Panel, Query, Row

_EMPTY = "no gold marts yet: lakehouse transform makes them"
_UNDEFINED = "not defined yet, or no gold marts: lakehouse transform makes them"
_DEFINED = "docs/marts.md defines it to the last rule"
_BOOK = 'book=~"$book",currency=~"$currency"'
_WHOLE = f'{_BOOK},asset_pair="ALL"'
_KEY = "by (book, currency, asset_pair)"
_OF_WHOLE = "{{book}}, {{currency}}"
_RATIO = "percentunit"
# Labels that a variable chooses values of.
_CHOSEN = (("asset_pair", "asset"), ("currency", "currency"))


def _whole(metric: str) -> str:
    """Return a figure of whole books."""
    return f"max by (book, currency) ({metric}{{{_WHOLE}}})"


def _book(metric: str) -> str:
    return f"max by (book, currency) ({metric}{{{_BOOK}}})"


def _by_asset(metric: str) -> str:
    """Return a figure of whole books and of each instrument in them."""
    return f'max {_KEY} ({metric}{{{_BOOK},asset_pair=~"ALL|$asset"}})'


def _by(labels: str, metric: str) -> str:
    chosen = "{" + ",".join(f'{name}=~"${each}"' for name, each in _CHOSEN if name in labels) + "}"
    return f"max by ({labels}) ({metric}{chosen})"


_BOOKS = (
    Panel(
        title="Equity and balance",
        kind="timeseries",
        queries=(
            Query(_book("trading_equity"), f"equity, {_OF_WHOLE}"),
            Query(_book("trading_balance"), f"balance, {_OF_WHOLE}"),
        ),
        shows="What each book owns, in each currency: balance and open positions at their marks, and the balance alone",
        act=f"an equity that does not move with open positions lacks new bars: see Pipeline health; {_DEFINED}",
        empty=_EMPTY,
        unit="none",
        decimals=2,
    ),
    Panel(
        title="P&L",
        kind="timeseries",
        queries=(
            Query(_book("trading_open_pnl"), f"open, {_OF_WHOLE}"),
            Query(_book("trading_realised_pnl"), f"realised on the day, {_OF_WHOLE}"),
            Query(_whole("trading_pnl"), f"to date, {_OF_WHOLE}"),
        ),
        shows="P&L of open positions, what the newest day realised, and all to date, by book and currency",
        act=f"`lakehouse query` over gold.mart_daily_portfolio_summary has every day; {_DEFINED}",
        empty=_EMPTY,
        unit="none",
        decimals=2,
    ),
    Panel(
        title="Positions and trades",
        kind="stat",
        queries=(
            Query(_book("trading_positions"), f"open positions, {_OF_WHOLE}"),
            Query(_whole("trading_trades"), f"trades, {_OF_WHOLE}"),
        ),
        shows="Instruments with an open position, and trades closed to date, by book and currency",
        act=f"`lakehouse query` over silver.trade_lifecycle has each lot; {_DEFINED}",
        empty=_EMPTY,
        unit="none",
        width=16,
        height=5,
    ),
    Panel(
        title="Age of the marts",
        kind="stat",
        queries=(Query("time() - min (trading_day_timestamp_seconds)", "since the newest day began"),),
        shows="Time since the newest day of the marts began: by the day's end they are a day old",
        act="`lakehouse transform` brings them up to date; its `--dry-run` says what is stale, DAGs whether it ran",
        empty=_EMPTY,
        unit="s",
        limits=Limits(2 * 86_400, 3 * 86_400),
        width=8,
        height=5,
    ),
)

_PERFORMANCE = (
    Panel(
        title="Win rate",
        kind="timeseries",
        queries=(Query(_whole("trading_win_rate"), _OF_WHOLE),),
        shows="Wins as a share of wins and losses to date, by book and currency",
        act=f"see Performance by asset for where it comes from; {_DEFINED}",
        empty=_UNDEFINED,
        unit=_RATIO,
        width=6,
    ),
    Panel(
        title="Profit factor",
        kind="timeseries",
        queries=(Query(_whole("trading_profit_factor"), _OF_WHOLE),),
        shows="Gross profit over gross loss to date, by book and currency; nothing without a loss",
        act=f"below 1 more was lost than won: see Performance by asset; {_DEFINED}",
        empty=_UNDEFINED,
        unit="none",
        decimals=2,
        limits=Limits(1.2, 1),
        width=6,
    ),
    Panel(
        title="Sharpe and Sortino",
        kind="timeseries",
        queries=(
            Query(_whole("trading_sharpe"), f"Sharpe, {_OF_WHOLE}"),
            Query(_whole("trading_sortino"), f"Sortino, {_OF_WHOLE}"),
        ),
        shows="Annual Sharpe and Sortino ratios of daily returns to date, by book and currency",
        act=f"few days make them swing: look at trades too; {_DEFINED}",
        empty=_UNDEFINED,
        unit="none",
        decimals=2,
        limits=Limits(1, 0),
        width=6,
    ),
    Panel(
        title="Max drawdown",
        kind="timeseries",
        queries=(Query(_whole("trading_max_drawdown"), _OF_WHOLE),),
        shows="The largest fall of equity from a peak to date, as a share of that peak, by book and currency",
        act=f"see Performance by asset for what fell, and Exposure; {_DEFINED}",
        empty=_EMPTY,
        unit=_RATIO,
        limits=Limits(0.1, 0.2),
        width=6,
    ),
    Panel(
        title="Performance by asset",
        kind="table",
        queries=(
            Query(_by_asset("trading_trades"), "trades", "none"),
            Query(_by_asset("trading_pnl"), "P&L", "none"),
            Query(_by_asset("trading_win_rate"), "win rate", _RATIO),
            Query(_by_asset("trading_profit_factor"), "profit factor", "none", Limits(1.2, 1)),
            Query(_by_asset("trading_sharpe"), "Sharpe", "none", Limits(1, 0)),
            Query(_by_asset("trading_sortino"), "Sortino", "none"),
            Query(_by_asset("trading_max_drawdown"), "max drawdown", _RATIO, Limits(0.1, 0.2)),
            Query(_by_asset("trading_exposure"), "exposure", _RATIO),
        ),
        columns={"book": "book", "currency": "currency", "asset_pair": "asset"},
        shows="Figures to date, of each book as a whole (ALL) and by instrument; exposure is the share of time in it",
        act=f"`lakehouse query` over gold.mart_trading_performance has every day; {_DEFINED}",
        empty=_EMPTY,
        decimals=3,
        width=16,
    ),
    Panel(
        title="Exposure",
        kind="bargauge",
        queries=(
            Query(
                f'max {_KEY} (trading_exposure{{{_BOOK},asset_pair=~"$asset",asset_pair!="ALL"}})',
                "{{asset_pair}}, {{book}}, {{currency}}",
            ),
        ),
        shows="Share of the time from the first execution on in which an instrument was held, by book",
        act=f"a share near 1 of many instruments at once is one large position; {_DEFINED}",
        empty=_UNDEFINED,
        unit=_RATIO,
        width=8,
    ),
)

_DECIDED = (
    Panel(
        title="AI provider attribution",
        kind="table",
        queries=(
            Query(_by("provider, asset_pair", "trading_provider_decisions"), "decisions", "none"),
            Query(_by("provider, asset_pair", "trading_provider_agreement_rate"), "agreement", _RATIO),
            Query(_by("provider, asset_pair", "trading_provider_win_rate"), "win rate", _RATIO),
            Query(_by("provider, asset_pair", "trading_provider_pnl"), "attributed P&L", "none"),
        ),
        columns={"provider": "AI provider", "asset_pair": "asset"},
        shows="What each AI provider voted in, how often the ensemble agreed, and its share of the P&L it supported",
        act=f"a provider that rarely agrees and loses is worth leaving out; {_DEFINED}",
        empty=_EMPTY,
        decimals=2,
    ),
    Panel(
        title="Attributed P&L",
        kind="bargauge",
        queries=(Query(_by("provider, asset_pair", "trading_provider_pnl"), "{{provider}}, {{asset_pair}}"),),
        shows="Each AI provider's share of the net P&L of the trades it supported, by instrument, in quote currency",
        act=f"compare it with the number of decisions beside it; {_DEFINED}",
        empty=_EMPTY,
        unit="none",
        decimals=2,
    ),
    Panel(
        title="Ensemble effectiveness",
        kind="table",
        queries=(
            Query(_by("strategy, currency", "trading_ensemble_decisions"), "decisions", "none"),
            Query(_by("strategy, currency", "trading_ensemble_agreement"), "agreement", _RATIO),
            Query(_by("strategy, currency", "trading_ensemble_trades"), "trades", "none"),
            Query(_by("strategy, currency", "trading_ensemble_win_rate"), "win rate", _RATIO),
            Query(_by("strategy, currency", "trading_ensemble_pnl"), "net P&L", "none"),
        ),
        columns={"strategy": "strategy", "currency": "currency"},
        shows="By strategy: what the ensemble decided by debate, voting or fallback, and how the trades of it did",
        act=f"many decisions by fallback say that AI providers did not answer; {_DEFINED}",
        empty=_EMPTY,
        decimals=2,
    ),
    Panel(
        title="Market regimes",
        kind="table",
        queries=(
            Query(_by("asset_pair, regime", "trading_regime_bar_share"), "share of bars", _RATIO),
            Query(_by("asset_pair, regime", "trading_regime_trades"), "trades", "none"),
            Query(_by("asset_pair, regime", "trading_regime_win_rate"), "win rate", _RATIO),
            Query(_by("asset_pair, regime", "trading_regime_pnl"), "net P&L", "none"),
        ),
        columns={"asset_pair": "asset", "regime": "regime"},
        shows="How often each instrument was in each regime, and how the trades that were entered in it did",
        act=f"many bars of unknown regime say that history is too short for indicators; {_DEFINED}",
        empty=_EMPTY,
        decimals=2,
    ),
)

TRADING_PERFORMANCE = Board(
    uid="trading-performance",
    title="Trading performance",
    description="How trading did, to the newest day of the gold marts. Money is in quote currency, never added across.",
    hours=24 * 7,
    choices=(
        Choice("book", "Book", "trading_trades", "book"),
        Choice("currency", "Currency", "trading_trades", "currency"),
        Choice("asset", "Asset", 'trading_trades{asset_pair!="ALL"}', "asset_pair"),
    ),
    rows=(Row("Books", _BOOKS), Row("Performance", _PERFORMANCE), Row("What it was decided by", _DECIDED)),
)
