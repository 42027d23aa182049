"""Gaps, for people and for programs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.cli.failures import DONE, FAILED
from pipelines.cli.recording import keep_results
from pipelines.cli.render import Heading, count, counted, instant, percent, say, show_json, show_table
from pipelines.data_quality.gap_records import gap_result
from pipelines.data_quality.gaps import MISSING, GapKind, GapRun, SeriesGaps, find_gaps
from pipelines.data_quality.repair import Repair, Scope
from pipelines.data_quality.repair_plan import RepairPlan, is_open
from pipelines.sources.registry import source_class

if TYPE_CHECKING:
    from pipelines.cli.lakes import ChosenLake
    from pipelines.cli.series_choice import SeriesChoice
    from pipelines.config import Settings


def scope_of(choice: SeriesChoice, provider: str | None) -> Scope:
    """Return which gaps are meant.

    Raises:
        ConfigError: there is no such provider, or the options contradict each other.
        InvalidRangeError: an unknown timeframe, or a span that is empty or cannot be read.
        UnknownAssetError: an unknown asset pair.
    """
    if provider is not None:
        source_class(provider)
    return Scope(choice.pairs, choice.frames, choice.interval, provider)


def show_gaps(chosen: ChosenLake, settings: Settings, scope: Scope, limit: int, *, closed: bool, as_json: bool) -> int:
    """Print the gaps and note them in the lake; returns the exit code."""
    found = find_gaps(
        chosen.manager,
        assets=scope.assets,
        timeframes=scope.timeframes,
        interval=scope.interval,
        provider=scope.provider,
        closed=closed,
    )
    left = asyncio.run(Repair(chosen.manager, settings, scope).plan(found))
    keep_results(chosen, [gap_result(gaps, scope.provider) for gaps in found])
    undone = is_open(found, left)
    if as_json:
        show_json(
            chosen.as_dict()
            | {"ok": not undone, "missing": missing_bars(found), "can_be_asked_for": left.bars}
            | {"series": [gaps.as_dict() for gaps in found]}
        )
        return FAILED if undone else DONE
    chosen.show()
    say()
    _show_series(found)
    _show_runs(found, limit)
    say()
    _show_summary(chosen, found, left)
    return FAILED if undone else DONE


def missing_bars(found: Sequence[SeriesGaps]) -> int:
    """Return how many bars are missing of all series."""
    return sum(gaps.missing for gaps in found)


def _show_series(found: Sequence[SeriesGaps]) -> None:
    headings = [Heading("asset"), Heading("timeframe"), Heading("from (UTC)"), Heading("until")]
    numbers = ("expected", "present", "missing", *MISSING, GapKind.CLOSED, "unexpected", "complete")
    rows = [
        [
            gaps.asset_pair,
            gaps.timeframe.value,
            instant(gaps.interval.start),
            instant(gaps.interval.end),
            *(count(number) for number in _numbers(gaps)),
            percent(gaps.completeness),
        ]
        for gaps in found
    ]
    sums = [sum(column) for column in zip(*(_numbers(gaps) for gaps in found), strict=True)]
    total = ["total", "", "", "", *(count(number) for number in sums), ""]
    show_table([*headings, *(Heading(name, number=True) for name in numbers)], rows, total if len(rows) > 1 else None)


def _numbers(gaps: SeriesGaps) -> list[int]:
    kinds = gaps.by_kind
    return [
        gaps.expected,
        gaps.present,
        gaps.missing,
        *(kinds[kind] for kind in MISSING),
        gaps.closed_bars,
        gaps.outside,
    ]


def _show_runs(found: Sequence[SeriesGaps], limit: int) -> None:
    runs = [(gaps, run) for gaps in found for run in gaps.runs]
    if not runs or not limit:
        return
    runs.sort(key=lambda each: (-each[1].interval.length, each[1].interval.start, each[0].asset_pair))
    headings = [Heading(name) for name in ("asset", "timeframe", "from (UTC)", "until")]
    say()
    show_table(
        [*headings, Heading("bars", number=True), Heading("why"), Heading("who answered")],
        [_run(gaps, run) for gaps, run in runs[:limit]],
    )
    if len(runs) > limit:
        say(f"and {counted(len(runs) - limit, 'runs')} more; --limit shows more, --json all of them")


def _run(gaps: SeriesGaps, run: GapRun) -> list[str]:
    ends = instant(run.interval.start), instant(run.interval.end)
    return [gaps.asset_pair, gaps.timeframe.value, *ends, count(run.bars), run.kind.value, ", ".join(run.providers)]


def _show_summary(chosen: ChosenLake, found: Sequence[SeriesGaps], left: RepairPlan) -> None:
    missing, expected = missing_bars(found), sum(gaps.expected for gaps in found)
    where = f"{counted(expected, 'bars')} that the calendars expect of {count(len(found))} series"
    if not missing:
        say(f"Nothing is missing of the {where}.")
        return
    runs = sum(1 for gaps in found for run in gaps.runs if run.kind is not GapKind.CLOSED)
    say(f"{counted(missing, 'bars')} missing in {counted(runs, 'runs')}, of the {where}.", "bold")
    if left.asks:
        say(f"{count(left.bars)} of them can be asked for: {chosen.command('lakehouse gaps --repair')}")
    if any(gaps.by_kind[GapKind.REJECTED] for gaps in found):
        say("Rejected rows are in the dead letter queue: lakehouse dlq list")
    if not is_open(found, left):
        say("Nobody is left to ask for them; --repair --again asks those who answered once more.")
