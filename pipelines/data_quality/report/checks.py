"""Which checks failed when they were last run, by the log of quality results."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    import pyarrow as pa

# What the report finds out by itself is not told twice.
_KINDS = ("edge", "suite")
_SUBJECT = ("kind", "dataset", "table_name", "asset_pair", "timeframe")


def failed_last(log: pa.Table, since: datetime) -> list[dict[str, Any]]:
    """Return the failed checks of the newest run over each subject, recorded at or after an instant, newest first.

    Only the newest run counts: rows on their way in leave a row for a reason only where there was one.
    """
    frame = pl.DataFrame(log).filter(pl.col("kind").is_in(_KINDS), pl.col("checked_at") >= since)
    newest = frame.filter(pl.col("checked_at") == pl.col("checked_at").max().over(_SUBJECT))
    return newest.filter(~pl.col("success")).sort("checked_at", "rows_failed", descending=True).to_dicts()
