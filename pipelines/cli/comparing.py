"""What providers disagree about, with one another and with themselves, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.cli.lakes import lake_for_reading
from pipelines.cli.recording import keep_results
from pipelines.cli.render import Heading, cell, count, counted, instant, say, show_json, show_table
from pipelines.config import load_settings
from pipelines.data_quality.agreement import Agreement, agreement
from pipelines.data_quality.restatements import RestatedSeries, Restatement, restatements
from pipelines.sources.base import MARKET_DATA
from pipelines.storage.quality_log import QualityResult

if TYPE_CHECKING:
    from pipelines.cli.series_choice import SeriesChoice

_CHECK = "providers agree"
_CHANGED = ("open", "high", "low", "close", "volume")


def show_agreement(
    choice: SeriesChoice,
    tolerance_bp: float | None,
    limit: int,
    lake: str | None,
    *,
    sample: bool,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Print how far providers agree, and keep it in the lake."""
    settings = load_settings(config_file)
    chosen = lake_for_reading(settings, lake, sample=sample)
    tolerance = settings.quality.tolerance_bp if tolerance_bp is None else tolerance_bp
    found = agreement(
        chosen.manager,
        assets=choice.pairs,
        timeframes=choice.frames,
        interval=choice.interval,
        tolerance_bp=tolerance,
        worst=limit,
    )
    keep_results(chosen, quality_results(found, tolerance))
    if as_json:
        pairs = [each.as_dict() for each in found]
        show_json({**chosen.as_dict(), "tolerance_bp": tolerance, "agreement": pairs})
        return
    chosen.show()
    say()
    if not found:
        say("No two providers have a bar of the same series and instant.")
        return
    _show_pairs(found, tolerance)
    for each in found:
        _show_worst(each)


def show_restatements(
    choice: SeriesChoice, limit: int | None, lake: str | None, *, sample: bool, config_file: Path | None, as_json: bool
) -> None:
    """Print which bars were restated."""
    chosen = lake_for_reading(load_settings(config_file), lake, sample=sample)
    found = restatements(
        chosen.manager, assets=choice.pairs, timeframes=choice.frames, interval=choice.interval, limit=limit
    )
    if as_json:
        show_json({**chosen.as_dict(), **found.as_dict()})
        return
    chosen.show()
    say()
    if not found.total:
        say("No bar has more than one version.")
        return
    _show_series(found.series)
    say()
    names = ["asset", "timeframe", "bar (UTC)", "provider", "known before", "known after"]
    headings = [*map(Heading, names), Heading("close bp", number=True), Heading("changed", fold=True)]
    show_table(headings, [_change(each) for each in found.rows])
    if len(found.rows) < found.total:
        say(f"\n{count(found.total - len(found.rows))} more; --limit 0 shows all")


def quality_results(found: Sequence[Agreement], tolerance_bp: float) -> list[QualityResult]:
    """Return comparisons as results of checks; `observed` is the 99th percentile in basis points."""
    return [
        QualityResult(
            kind="agreement",
            dataset=MARKET_DATA,
            check_name=_CHECK,
            severity="warning",
            success=not each.beyond,
            rows_checked=each.bars,
            rows_failed=each.beyond,
            table_name=f"{MARKET_DATA}_{each.timeframe}",
            asset_pair=each.asset_pair,
            timeframe=each.timeframe,
            observed=each.p99_bp,
            details=json.dumps(
                {
                    "providers": [each.provider, each.other],
                    "tolerance_bp": tolerance_bp,
                    "median_bp": each.median_bp,
                    "p95_bp": each.p95_bp,
                    "max_bp": each.max_bp,
                    "remarks": list(each.remarks),
                }
            ),
        )
        for each in found
    ]


def _show_pairs(found: Sequence[Agreement], tolerance_bp: float) -> None:
    names = ("bars", "median bp", "p95", "p99", "max", "max of OHLC", f"beyond {tolerance_bp:g} bp")
    headings = [Heading("asset"), Heading("timeframe"), Heading("providers")]
    rows = [
        [
            each.asset_pair,
            each.timeframe,
            f"{each.provider}, {each.other}",
            count(each.bars),
            *map(_bp, (each.median_bp, each.p95_bp, each.p99_bp, each.max_bp, each.ohlc_max_bp)),
            count(each.beyond),
        ]
        for each in found
    ]
    show_table([*headings, *(Heading(name, number=True) for name in names)], rows)
    for remark in dict.fromkeys(remark for each in found for remark in each.remarks):
        say(remark, "yellow")


def _show_worst(each: Agreement) -> None:
    if not each.beyond:
        return
    say(f"\n{each.asset_pair} {each.timeframe}: {counted(each.beyond, 'bars')} beyond the tolerance", "bold")
    prices = (f"close {each.provider}", f"close {each.other}", "bp", "worst of OHLC")
    rows = [
        [instant(bar.timestamp), cell(bar.close), cell(bar.other_close), _bp(bar.bp), _bp(bar.worst_bp)]
        for bar in each.worst
    ]
    show_table([Heading("bar (UTC)"), *(Heading(name, number=True) for name in prices)], rows)
    if len(rows) < each.beyond:
        say(f"{count(each.beyond - len(rows))} more; --limit shows more")


def _show_series(series: Sequence[RestatedSeries]) -> None:
    names = ("bars", "changes", "median bp", "max bp")
    headings = [*map(Heading, ("asset", "timeframe", "provider")), *(Heading(name, number=True) for name in names)]
    rows = [
        [
            each.asset_pair,
            each.timeframe,
            each.provider,
            count(each.bars),
            count(each.changes),
            _bp(each.median_bp),
            _bp(each.max_bp),
            f"{instant(each.first)} → {instant(each.last)}",
        ]
        for each in series
    ]
    show_table([*headings, Heading("bars from (UTC) → to")], rows)


def _change(each: Restatement) -> list[str]:
    changed = [name for name in _CHANGED if each.before[name] != each.after[name]]
    values = ", ".join(
        f"{name} {cell(each.before[name]) or 'none'} → {cell(each.after[name]) or 'none'}" for name in changed
    )
    known = [instant(each.known_before), instant(each.known_after)]
    moved = "-" if each.moved_bp is None else f"{each.moved_bp:+,.2f}"
    return [each.asset_pair, each.timeframe, instant(each.timestamp), each.provider, *known, moved, values]


def _bp(number: float) -> str:
    return f"{number:,.2f}"
