"""What panels must show, found without our own code: delta-rs, DuckDB, the files themselves, and Kafka."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from pipelines.monitoring.dashboards import probe
from pipelines.monitoring.dashboards.panels import Board
from tests.monitoring.oracle import rows_of

Key = frozenset[str]

# Which column of which mart each figure is, and what of the mart's key labels are called.
MARTS = {
    "mart_trading_performance": {
        "trading_trades": "trades", "trading_win_rate": "win_rate", "trading_profit_factor": "profit_factor",
        "trading_sharpe": "sharpe", "trading_sortino": "sortino", "trading_max_drawdown": "max_drawdown_fraction",
        "trading_exposure": "exposure_time", "trading_pnl": "pnl",
    },
    "mart_daily_portfolio_summary": {
        "trading_equity": "equity", "trading_balance": "balance", "trading_open_pnl": "open_pnl",
        "trading_realised_pnl": "realised_pnl", "trading_positions": "open_positions",
    },
    "mart_provider_attribution": {
        "trading_provider_pnl": "attributed_pnl", "trading_provider_decisions": "decisions",
        "trading_provider_win_rate": "win_rate", "trading_provider_agreement_rate": "agreement_rate",
    },
    "mart_ensemble_effectiveness": {
        "trading_ensemble_decisions": "decisions", "trading_ensemble_trades": "trades",
        "trading_ensemble_win_rate": "win_rate", "trading_ensemble_pnl": "net_pnl",
        "trading_ensemble_agreement": "mean_agreement",
    },
    "mart_market_regime_stats": {
        "trading_regime_bar_share": "bar_share", "trading_regime_trades": "trades",
        "trading_regime_win_rate": "win_rate", "trading_regime_pnl": "net_pnl",
    },
}  # fmt: skip
KEYS = {
    "mart_trading_performance": {"book": "book", "quote_currency": "currency", "asset_pair": "asset_pair"},
    "mart_daily_portfolio_summary": {"book": "book", "quote_currency": "currency"},
    "mart_provider_attribution": {"ai_provider": "provider", "asset_pair": "asset_pair"},
    "mart_ensemble_effectiveness": {"strategy": "strategy", "quote_currency": "currency"},
    "mart_market_regime_stats": {"asset_pair": "asset_pair", "regime": "regime"},
}


class Shown:
    """What all panels show at one instant."""

    def __init__(self, boards: tuple[Board, ...], url: str, **values: str) -> None:
        self.answers = probe.ask(boards, url, values)

    def series(self, panel: str, legend: str) -> dict[Any, float]:
        """Return the values of one query, by the values of their labels in the order of the labels' names."""
        (found,) = [each.values for each in self.answers if (each.panel, each.query.legend) == (panel, legend)]
        by = {tuple(label.partition("=")[2] for label in labels): value for labels, value in found.items()}
        return {key[0] if len(key) == 1 else key: value for key, value in by.items()}

    def one(self, panel: str, legend: str) -> float:
        """Return the only value of a query."""
        (value,) = self.series(panel, legend).values()
        return value


def tables(lake: Path) -> dict[str, DeltaTable]:
    """Return all tables of a lake and of its layers, by the names that queries use."""
    logs = [*lake.glob("*/_delta_log"), *lake.glob("*/*/_delta_log")]
    found = [log.parent.relative_to(lake) for log in logs]
    return {".".join(each.parts): DeltaTable(str(lake / each)) for each in found}


def table_bytes(lake: Path) -> dict[str, int]:
    """Return the bytes of the live files of each table, as the disk has them."""
    return {name: sum(Path(uri).stat().st_size for uri in table.file_uris()) for name, table in tables(lake).items()}


def dead_letters(folder: Path) -> Counter[str]:
    """Return how many refused rows there are, by each of their reasons."""
    found: Counter[str] = Counter()
    for path in folder.glob("dlq_*.json"):
        for record in json.loads(path.read_text(encoding="utf-8"))["records"]:
            found.update(record["reason"].split("; "))
    return found


def failures(lake: Path) -> dict[str, tuple[int, int]]:
    """Return failed checks and all checks of the runs after the first, by suite."""
    sql = """
        select if(kind in ('edge', 'suite'), dataset, kind) as suite,
               count(*) filter (not success and severity = 'critical'), count(*)
        from rows where run_id <> (select arg_min(run_id, checked_at) from rows) group by 1
    """
    return {str(suite): (int(failed), int(ran)) for suite, failed, ran in rows_of(lake, "quality_results", sql)}


def figures(lake: Path, metric: str) -> dict[Key, float]:
    """Return a figure of the latest day of its mart, by `label=value`; nulls are left out."""
    mart = next(name for name, known in MARTS.items() if metric in known)
    keys, column = KEYS[mart], MARTS[mart][metric]
    sql = f"select {', '.join(keys)}, {column} from rows where day = (select max(day) from rows)"
    return {
        frozenset(f"{label}={value}" for label, value in zip(keys.values(), row[:-1], strict=True)): float(row[-1])
        for row in rows_of(lake / "gold", mart, sql)
        if row[-1] is not None
    }
