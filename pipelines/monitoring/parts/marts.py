"""The gold marts' figures of the latest day, as gauges; null figures have no sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from typing import Any

from prometheus_client.core import Metric

from pipelines.errors import LakehouseError
from pipelines.monitoring.labels import Bounded
from pipelines.monitoring.lake_tables import LookedAt
from pipelines.monitoring.parts.base import Look, gauge
from pipelines.storage.scan import quoted

_MOST_VALUES = 200


@dataclass(frozen=True, slots=True)
class Mart:
    """Which columns of a mart become labels, and which become metrics."""

    table: str
    labels: Mapping[str, str]
    figures: Mapping[str, str]


_BOOK = {"book": "book", "quote_currency": "currency"}
MARTS = (
    Mart(
        "mart_trading_performance",
        _BOOK | {"asset_pair": "asset_pair"},
        {
            "trades": "trading_trades",
            "win_rate": "trading_win_rate",
            "profit_factor": "trading_profit_factor",
            "sharpe": "trading_sharpe",
            "sortino": "trading_sortino",
            "max_drawdown_fraction": "trading_max_drawdown",
            "exposure_time": "trading_exposure",
            "pnl": "trading_pnl",
        },
    ),
    Mart(
        "mart_daily_portfolio_summary",
        _BOOK,
        {
            "realised_pnl": "trading_realised_pnl",
            "balance": "trading_balance",
            "equity": "trading_equity",
            "open_pnl": "trading_open_pnl",
            "open_positions": "trading_positions",
        },
    ),
    Mart(
        "mart_provider_attribution",
        {"ai_provider": "provider", "asset_pair": "asset_pair"},
        {
            "attributed_pnl": "trading_provider_pnl",
            "decisions": "trading_provider_decisions",
            "win_rate": "trading_provider_win_rate",
            "agreement_rate": "trading_provider_agreement_rate",
        },
    ),
    Mart(
        "mart_ensemble_effectiveness",
        {"strategy": "strategy", "quote_currency": "currency"},
        {
            "decisions": "trading_ensemble_decisions",
            "trades": "trading_ensemble_trades",
            "win_rate": "trading_ensemble_win_rate",
            "net_pnl": "trading_ensemble_pnl",
            "mean_agreement": "trading_ensemble_agreement",
        },
    ),
    Mart(
        "mart_market_regime_stats",
        {"asset_pair": "asset_pair", "regime": "regime"},
        {
            "bar_share": "trading_regime_bar_share",
            "trades": "trading_regime_trades",
            "win_rate": "trading_regime_win_rate",
            "net_pnl": "trading_regime_pnl",
        },
    ),
)


@dataclass(slots=True)
class _Known:
    table: LookedAt
    rows: list[dict[str, Any]] = field(default_factory=list)


class Marts:
    """Reads a mart again once it has another version."""

    name = "marts"

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._bounded = {(mart.table, column): Bounded(_MOST_VALUES) for mart in MARTS for column in mart.labels}

    def collect(self, look: Look) -> Iterable[Metric]:
        """Return the families of all marts that are there."""
        found: list[Metric] = []
        day = gauge("trading_day_timestamp_seconds", "Begin of a mart's latest day.", ["mart"])
        for mart in MARTS:
            table = look.tables.get(f"gold.{mart.table}")
            if table is None:
                continue
            try:
                rows = self._rows(mart, table)
            except LakehouseError as error:
                look.problem(table.name, error)
                continue
            if rows:
                begin = datetime.combine(rows[0]["day"], time(), UTC)
                day.add_metric([mart.table], begin.timestamp())
            found += self._families(mart, rows)
        return [*found, day]

    def _rows(self, mart: Mart, table: LookedAt) -> list[dict[str, Any]]:
        known = self._known.get(mart.table)
        if known is None or known.table is not table:
            columns = ", ".join(map(quoted, ["day", *mart.labels, *mart.figures]))
            order = ", ".join(map(quoted, mart.labels))
            latest = "SELECT max(day) FROM source"
            sql = f"SELECT {columns} FROM source WHERE day = ({latest}) ORDER BY {order}"  # noqa: S608 - our own names
            known = self._known[mart.table] = _Known(table, table.query(sql).to_pylist())
        return known.rows

    def _families(self, mart: Mart, rows: list[dict[str, Any]]) -> list[Metric]:
        labelled = [tuple(self._bounded[mart.table, name](row[name]) for name in mart.labels) for row in rows]
        families: list[Metric] = []
        for column, name in mart.figures.items():
            text = f"{column} of gold.{mart.table} on its latest day."
            family = gauge(name, text, mart.labels.values())
            for labels, row in zip(labelled, rows, strict=True):
                if row[column] is not None:
                    family.add_metric(labels, float(row[column]))
            families.append(family)
        return families
