"""What each section of the report's page shows, as headings and rows of text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pipelines.data_quality.gaps import MISSING, GapKind
from pipelines.data_quality.report.words import basis_points, lasting, moment, price, share
from pipelines.wording import count, counted

if TYPE_CHECKING:
    from pipelines.data_quality.agreement import Agreement
    from pipelines.data_quality.dlq_reading import DlqStatistics
    from pipelines.data_quality.freshness import SeriesFreshness
    from pipelines.data_quality.gaps import SeriesGaps
    from pipelines.data_quality.restatements import Restatements

_MOST_RUNS, _MOST_ROWS = 15, 25

Section = dict[str, Any]


def gaps_section(series: Sequence[SeriesGaps]) -> Section:
    """Return the series that lack bars, and their longest runs."""
    lacking = [each for each in series if each.missing]
    runs = [(each, run) for each in lacking for run in each.runs if run.kind is not GapKind.CLOSED]
    runs.sort(key=lambda found: found[1].bars, reverse=True)
    return {
        "headings": ["asset", "bars", "expected", "missing", *(kind.value for kind in MISSING), "complete"],
        "numbers": list(range(2, 8)),
        "series": [
            [
                each.asset_pair,
                each.timeframe.value,
                count(each.expected),
                count(each.missing),
                *(count(each.by_kind.get(kind, 0)) for kind in MISSING),
                share(each.completeness),
            ]
            for each in lacking
        ],
        "run_headings": ["asset", "bars", "from (UTC)", "to (UTC)", "missing", "why", "who answered"],
        "runs": [
            [
                each.asset_pair,
                each.timeframe.value,
                moment(run.interval.start),
                moment(run.interval.end),
                count(run.bars),
                run.kind.value,
                ", ".join(run.providers),
            ]
            for each, run in runs[:_MOST_RUNS]
        ],
        "more": count(len(runs) - _MOST_RUNS) if len(runs) > _MOST_RUNS else "",
    }


def freshness_section(series: Sequence[SeriesFreshness], now: datetime) -> Section:
    """Return how far each series is behind what is due, the latest first."""
    ordered = sorted(series, key=lambda each: each.lag, reverse=True)
    return {
        "note": f"The newest bar against the newest that the calendar had due at {moment(now)}, with the time that the "
        "contract allows.",
        "headings": ["series", "bars", "newest close (UTC)", "due (UTC)", "behind", ""],
        "rows": [
            [
                each.asset_pair or each.dataset,
                each.timeframe.value if each.timeframe else each.dataset,
                moment(each.newest_close),
                moment(each.due_close),
                lasting(each.lag) if each.lag else "-",
                "" if each.fresh else "behind",
            ]
            for each in ordered
        ],
    }


def refused_section(found: DlqStatistics) -> Section:
    """Return the dead letters by reason."""
    most = max(found.by_reason.values(), default=1)
    return {
        "note": f"{counted(found.rows, 'rows')} in {counted(found.files, 'files')} wait in the dead letter queue; "
        "a row may have several reasons.",
        "rows": [
            (reason, count(rows), round(100 * rows / most))
            for reason, rows in list(found.by_reason.items())[:_MOST_ROWS]
        ],
        "unreadable": [each.error for each in found.unreadable],
    }


def restated_section(found: Restatements) -> Section:
    """Return the latest changes of bars, with before and after."""
    return {
        "note": f"{counted(found.total, 'changes')} of bars after they had first been served"
        + (f"; the latest {len(found.rows)} of them:" if found.total > len(found.rows) else ":"),
        "headings": ["asset", "bars", "open of bar (UTC)", "provider", "close before", "after", "moved", "known (UTC)"],
        "numbers": [4, 5, 6],
        "rows": [
            [
                each.asset_pair,
                each.timeframe,
                moment(each.timestamp),
                each.provider,
                price(each.before["close"]),
                price(each.after["close"]),
                f"{basis_points(each.moved_bp)} bp",
                moment(each.known_after),
            ]
            for each in found.rows
        ],
    }


def agreement_section(found: Sequence[Agreement]) -> Section:
    """Return how far two providers are apart where both have a bar, and their worst bars."""
    worst = sorted(((each, bar) for each in found for bar in each.worst), key=lambda pair: -pair[1].bp)
    return {
        "note": " ".join(
            [
                "Deviation of the close in basis points (0.01 %), newest version of each.",
                *dict.fromkeys(remark for each in found for remark in each.remarks),
            ]
        ),
        "headings": ["asset", "bars", "providers", "shared bars", "median", "95 %", "99 %", "most", "beyond tolerance"],
        "numbers": list(range(3, 9)),
        "rows": [
            [
                each.asset_pair,
                each.timeframe,
                f"{each.provider} / {each.other}",
                count(each.bars),
                *(basis_points(getattr(each, name)) for name in ("median_bp", "p95_bp", "p99_bp", "max_bp")),
                count(each.beyond),
            ]
            for each in found
        ],
        "worst_headings": ["asset", "bars", "open of bar (UTC)", "providers", "close", "close", "apart"],
        "worst_numbers": [4, 5, 6],
        "worst": [
            [
                each.asset_pair,
                each.timeframe,
                moment(bar.timestamp),
                f"{each.provider} / {each.other}",
                price(bar.close),
                price(bar.other_close),
                basis_points(bar.bp),
            ]
            for each, bar in worst[:_MOST_RUNS]
        ],
    }


def checks_section(rows: Sequence[dict[str, Any]]) -> Section:
    """Return the checks that failed when they were last run."""
    return {
        "note": "None.",
        "headings": ["when (UTC)", "severity", "what", "check", "failed", "of"],
        "numbers": [4, 5],
        "rows": [
            [
                moment(row["checked_at"]),
                row["severity"],
                " ".join(str(row[name]) for name in ("table_name", "asset_pair") if row[name]) or row["dataset"],
                row["check_name"],
                count(row["rows_failed"]),
                count(row["rows_checked"]),
            ]
            for row in rows[:_MOST_ROWS]
        ],
    }
