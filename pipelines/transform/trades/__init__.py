"""Trades out of executions: FIFO lots, their profit and loss, and the time a book was exposed."""

from __future__ import annotations

from pipelines.transform.trades.exposure import exposed_days
from pipelines.transform.trades.lots import marked, trade_lots
from pipelines.transform.trades.spec import EXECUTIONS, EXPOSED, EXPOSURE, LOTS, ddl

__all__ = ["EXECUTIONS", "EXPOSED", "EXPOSURE", "LOTS", "ddl", "exposed_days", "marked", "trade_lots"]
