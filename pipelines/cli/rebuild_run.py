"""Running a rebuild, or only planning it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipelines.batch.rebuild import Rebuild, RebuildResult
from pipelines.cli.failures import DONE, FAILED, INTERRUPTED, WrongArguments
from pipelines.cli.interrupt import run_stoppable
from pipelines.cli.lakes import lake_for_reading
from pipelines.cli.outcome import show_result
from pipelines.cli.progress import progress_display
from pipelines.cli.render import Heading, count, counted, instant, say, show_json, show_table
from pipelines.cli.running import command_again
from pipelines.contracts import contract_for

if TYPE_CHECKING:
    from pipelines.config import Settings
    from pipelines.storage.recovery.rebuilds import Promise


def show_rebuild_plan(table: str, settings: Settings, lake: str | None, *, sample: bool, as_json: bool) -> None:
    """Print what a rebuild would fetch; changes nothing."""
    chosen = lake_for_reading(settings, lake, sample=sample)
    found = Rebuild(chosen.manager, settings, table)
    if as_json:
        show_json({**chosen.as_dict(), "dry_run": True, **found.plan.as_dict()})
        return
    chosen.show()
    say("Dry run: nothing is changed\n")
    _show_plan(found)


def run_rebuild(
    ctx: click.Context,
    table: str,
    settings: Settings,
    lake: str | None,
    *,
    sample: bool,
    yes: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Rebuild a table and print what came back; returns the exit code."""
    if as_json and not yes:
        raise WrongArguments("--json asks nothing: add --yes to set the table aside and rebuild it")
    chosen = lake_for_reading(settings, lake, sample=sample)
    planned = Rebuild(chosen.manager, settings, table)
    if not as_json:
        chosen.show()
        say()
        _show_plan(planned)
    if not yes and not planned.plan.started:
        click.confirm(f"\nSet {table} aside and rebuild it?", abort=True)
    with progress_display(quiet=quiet or as_json) as display:
        run = Rebuild(chosen.manager, settings, table, display)
        result = run_stoppable(run.run, run.stop, display)
    if as_json:
        show_json({**chosen.as_dict(), **result.as_dict()})
    else:
        say()
        show_result(result.backfill, command_again(ctx))
        _show_kept(result)
    if result.backfill.interrupted:
        return INTERRUPTED
    return DONE if result.ok else FAILED


def _show_plan(run: Rebuild) -> None:
    plan, rows = run.plan, run.plan.rows
    if plan.started:
        say(f"{plan.table} is under reconstruction already; what is missing of it is fetched.")
    else:
        held = "its log cannot be read" if rows is None else f"it holds {counted(sum(rows.values()), 'rows')}"
        say(f"{plan.table} goes to {plan.aside} ({held}); this is fetched or built again:")
    say()
    headings = [Heading(name) for name in ("subject", "provider", "from (UTC)", "until")]
    pieces = Heading("pieces", number=True), Heading("bars", number=True)
    show_table([*headings, *pieces], [_promise(plan.table, promise) for promise in plan.promises])
    if run.from_files:
        names = ", ".join(sorted({promise.subject for promise in run.from_files}))
        say(f"\n{names}: loaded from files, which no provider has; run `lakehouse load` again for them", "yellow")


def _promise(table: str, promise: Promise) -> list[str]:
    parts = list(promise.spans)
    frame = contract_for(table).timeframe_of(table)
    bars = count(sum(frame.bars_between(part.start, part.end) for part in parts)) if frame else "-"
    ends = instant(parts[0].start), instant(parts[-1].end)
    return [promise.subject, promise.provider, *ends, count(len(parts)), bars]


def _show_kept(result: RebuildResult) -> None:
    before, now = result.plan.rows, result.rows or {}
    say()
    headings = Heading("subject"), Heading("rows before", number=True), Heading("rows now", number=True)
    rows = [
        [name or "all", "unknown" if before is None else count(before.get(name, 0)), count(now.get(name, 0))]
        for name in sorted({*(before or {}), *now})
    ]
    show_table(headings, rows)
    say()
    lacking = [each for each in result.kept if not each.whole]
    if not lacking:
        say(f"All that was covered is covered again. The old table is in {result.plan.aside}; delete it when you like.")
        return
    say("Not back yet; the same command goes on:", "red")
    for each in lacking:
        parts = list(each.promise.spans - each.back)
        say(f"  {each.promise.subject} {each.promise.provider}: {instant(parts[0].start)} → {instant(parts[-1].end)}")
