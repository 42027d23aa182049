"""Repairing gaps from a terminal, or only planning it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING

from pipelines.cli.failures import DONE, FAILED, INTERRUPTED
from pipelines.cli.gap_lines import missing_bars
from pipelines.cli.interrupt import run_stoppable
from pipelines.cli.outcome import passed_over
from pipelines.cli.progress import progress_display
from pipelines.cli.render import Heading, count, counted, duration, instant, say, show_json, show_table
from pipelines.cli.running import command_again
from pipelines.data_quality.gaps import MISSING
from pipelines.data_quality.repair import Repair, RepairResult, Scope
from pipelines.data_quality.repair_plan import RepairPlan, is_open

if TYPE_CHECKING:
    from collections.abc import Sequence

    import click

    from pipelines.cli.lakes import ChosenLake
    from pipelines.config import Settings
    from pipelines.data_quality.gaps import SeriesGaps

_MOST_ASKED, _MOST_ERRORS = 20, 5
_NOT_SERVED = "does not serve "


def show_repair_plan(chosen: ChosenLake, settings: Settings, scope: Scope, *, again: bool, as_json: bool) -> int:
    """Print what a repair would ask of whom; changes nothing and asks nobody; returns the exit code."""
    run = Repair(chosen.manager, settings, scope, again=again)
    found = run.gaps()
    planned = asyncio.run(run.plan(found))
    undone = is_open(found, planned)
    if as_json:
        show_json(
            chosen.as_dict()
            | {"dry_run": True, "missing": missing_bars(found), "bars": planned.bars, "requests": planned.requests}
            | {"asks": [ask.as_dict() for ask in planned.asks]}
        )
        return FAILED if undone else DONE
    chosen.show()
    say("Dry run: nobody is asked and nothing is changed\n")
    _show_asks(planned)
    for line in _passed_over(planned):
        say(line, "yellow")
    say(_to_do(found, planned))
    return FAILED if undone else DONE


def run_repair(
    ctx: click.Context,
    chosen: ChosenLake,
    settings: Settings,
    scope: Scope,
    *,
    again: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Repair the gaps and print what came of it; returns the exit code."""
    if not as_json:
        chosen.show()
    with progress_display(quiet=quiet or as_json) as display:
        run = Repair(chosen.manager, settings, scope, again=again, progress=display)
        result = run_stoppable(run.run, run.stop, display)
    if as_json:
        show_json(chosen.as_dict() | {"ok": not result.open} | result.as_dict())
    else:
        say()
        _show_repair(result, command_again(ctx))
    if result.interrupted:
        return INTERRUPTED
    return FAILED if result.open else DONE


def _show_asks(planned: RepairPlan) -> None:
    if not planned.asks:
        return
    headings = [Heading(name) for name in ("asset", "timeframe", "provider", "from (UTC)", "until")]
    rows = [
        [
            ask.series.asset_pair,
            ask.series.timeframe.value,
            ask.provider,
            instant(ask.interval.start),
            instant(ask.interval.end),
            count(ask.bars),
            count(ask.requests),
        ]
        for ask in planned.asks[:_MOST_ASKED]
    ]
    total = ["total", "", "", "", "", count(planned.bars), count(planned.requests)]
    show_table([*headings, Heading("missing bars", number=True), Heading("requests", number=True)], rows, total)
    if len(planned.asks) > _MOST_ASKED:
        say(f"and {count(len(planned.asks) - _MOST_ASKED)} more spans; --json lists them all")
    say()


def _passed_over(planned: RepairPlan) -> list[str]:
    """Say who is not asked and why; that one does not serve a series matters only where nobody else is asked."""
    asked = {ask.series for ask in planned.asks}
    told = []
    for series, reasons in planned.skipped.items():
        kept = {name: why for name, why in reasons.items() if series not in asked or not why.startswith(_NOT_SERVED)}
        told.append((f"{series.asset_pair} {series.timeframe.value}", series.asset_pair, kept))
    return passed_over(told)


def _to_do(found: Sequence[SeriesGaps], planned: RepairPlan) -> str:
    missing = missing_bars(found)
    if not missing:
        return "Nothing is missing: nobody would be asked."
    if not planned.asks:
        return f"{counted(missing, 'bars')} missing, but there is nobody left to ask for them."
    return (
        f"{counted(missing, 'bars')} missing; {count(planned.bars)} would be asked for with "
        f"{counted(planned.requests, 'requests')}, and of the next provider what the first has not."
    )


def _show_repair(result: RepairResult, again: str) -> None:
    if result.series:
        headings = ["missing before", "filled", "still missing", *(kind.value for kind in MISSING)]
        rows = [
            [
                each.before.asset_pair,
                each.before.timeframe.value,
                count(each.before.missing),
                count(each.filled),
                count(each.after.missing),
                *(count(each.after.by_kind[kind]) for kind in MISSING),
            ]
            for each in result.series
        ]
        show_table([Heading("asset"), Heading("timeframe"), *(Heading(name, number=True) for name in headings)], rows)
        say()
    for line in _passed_over(result.left):
        say(line, "yellow")
    for line in (*_served(result), *_errors(result)):
        say(line)
    say(_repaired(result))
    if result.interrupted:
        say("Interrupted; nothing is lost. Go on with the same command:", "yellow")
        say(f"  {again}")


def _served(result: RepairResult) -> list[str]:
    """Say how many rows each provider answered."""
    rows: dict[str, int] = defaultdict(int)
    for done in result.rounds:
        for series in done.series:
            for provider, number in series.served.items():
                rows[provider] += number
    files = [path for done in result.rounds for series in done.series for path in series.dlq_files]
    lines = [f"{provider} answered {counted(number, 'rows')}" for provider, number in sorted(rows.items())]
    return [*lines, *([f"rejected rows are in {files[0]}"] if files else [])]


def _errors(result: RepairResult) -> list[str]:
    errors = [(each.after, window) for each in result.series for window in each.errors]
    lines = [
        f"{gaps.asset_pair} {gaps.timeframe.value} {instant(window.interval.start)} → {instant(window.interval.end)} "
        f"{window.provider}: {window.error.removeprefix(f'{window.provider}: ')}"
        for gaps, window in errors[:_MOST_ERRORS]
    ]
    if len(errors) > _MOST_ERRORS:
        lines.append(f"and {count(len(errors) - _MOST_ERRORS)} more errors; --json lists them all")
    return lines


def _repaired(result: RepairResult) -> str:
    took = duration(result.seconds)
    left = sum(each.after.missing for each in result.series)
    if not result.requests and not result.filled:
        why = "nothing is missing" if not left else f"nobody is left to ask for the {counted(left, 'bars')} missing"
        return f"Nothing to do: {why}; no request was made ({took})."
    rest = f"{counted(left, 'bars')} still missing" if left else "nothing is missing any more"
    return f"{counted(result.filled, 'bars')} filled with {counted(result.requests, 'requests')} in {took}; {rest}."
