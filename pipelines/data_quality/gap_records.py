"""Gaps and repairs as rows of `quality_results`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pipelines.contracts import load_contracts
from pipelines.sources.base import MARKET_DATA
from pipelines.storage.quality_log import QualityResult

if TYPE_CHECKING:
    from pipelines.data_quality.gaps import SeriesGaps


def gap_result(gaps: SeriesGaps, provider: str | None = None) -> QualityResult:
    """Return the record of a series held against its calendar; `observed` is its completeness, 0 to 1."""
    return QualityResult(
        kind="gaps",
        dataset=MARKET_DATA,
        check_name="no bars missing",
        severity="warning",
        success=not gaps.missing,
        rows_checked=gaps.expected,
        rows_failed=gaps.missing,
        table_name=load_contracts()[MARKET_DATA].table_for(gaps.timeframe),
        asset_pair=gaps.asset_pair,
        timeframe=gaps.timeframe.value,
        provider=provider,
        observed=gaps.completeness,
        details=json.dumps(_span(gaps) | _missing(gaps) | {"runs": len(gaps.runs), "outside": gaps.outside}),
    )


def repair_result(before: SeriesGaps, after: SeriesGaps) -> QualityResult:
    """Return the record of a repaired series: what was missing and what still is; `observed` counts the filled bars."""
    filled = before.missing - after.missing
    return QualityResult(
        kind="repair",
        dataset=MARKET_DATA,
        check_name="missing bars repaired",
        severity="warning",
        success=not after.missing,
        rows_checked=before.missing,
        rows_failed=after.missing,
        table_name=load_contracts()[MARKET_DATA].table_for(after.timeframe),
        asset_pair=after.asset_pair,
        timeframe=after.timeframe.value,
        observed=float(filled),
        details=json.dumps(
            _span(before) | {"before": _missing(before), "filled": filled, "still_missing": _missing(after)}
        ),
    )


def _span(gaps: SeriesGaps) -> dict[str, object]:
    return {"start": gaps.interval.start.isoformat(), "end": gaps.interval.end.isoformat()}


def _missing(gaps: SeriesGaps) -> dict[str, object]:
    return {kind.value: bars for kind, bars in gaps.by_kind.items()}
