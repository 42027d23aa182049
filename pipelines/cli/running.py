"""Running a backfill, or only planning it."""

from __future__ import annotations

import asyncio
import math
import shlex
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.batch.engine import Backfill
from pipelines.batch.plan import PlannedSeries, plan
from pipelines.cli.interrupt import run_stoppable
from pipelines.cli.lakes import lake_for_writing
from pipelines.cli.lazy import ARGUMENTS
from pipelines.cli.outcome import exit_code_of, passed_over, show_result
from pipelines.cli.progress import progress_display
from pipelines.cli.render import Heading, count, duration, instant, say, show_json, show_table
from pipelines.timeframes import utc_now

if TYPE_CHECKING:
    import click

    from pipelines.cli.request import Request
    from pipelines.config import Settings


def run_backfill(
    ctx: click.Context, request: Request, settings: Settings, lake: str | None, *, as_json: bool, quiet: bool
) -> int:
    """Run a request and print what came of it; returns the exit code."""
    now = utc_now()
    jobs = request.jobs(now)
    chosen = lake_for_writing(settings, lake, synthetic=request.synthetic)
    if not as_json:
        chosen.show()
        say(f"{', '.join(dict.fromkeys(job.subject for job in jobs))}: {request.range_text()}, {len(jobs)} series\n")
    with progress_display(quiet=quiet or as_json) as display:
        run = Backfill(chosen.manager, settings, display)
        result = run_stoppable(lambda: run.run(jobs), run.stop, display)
    if as_json:
        show_json(chosen.as_dict() | result.as_dict())
    else:
        show_result(result, command_again(ctx))
    return exit_code_of(result)


def command_again(ctx: click.Context) -> str:
    """Return the command line that runs the same thing again."""
    return shlex.join([ctx.find_root().info_name or "lakehouse", *ctx.meta[ARGUMENTS]])


def show_plan(request: Request, settings: Settings, lake: str | None, *, as_json: bool) -> None:
    """Print what a run would do; asks no provider and writes nothing."""
    jobs = request.jobs(utc_now())
    chosen = lake_for_writing(settings, lake, synthetic=request.synthetic)
    planned = asyncio.run(plan(jobs, chosen.manager, settings))
    if as_json:
        totals = {"bars": sum(p.bars for p in planned), "requests": sum(p.requests for p in planned)}
        series = [each.as_dict() for each in planned]
        show_json(
            {**chosen.as_dict(), "dry_run": True, **totals, "minutes": round(minutes(planned), 2), "series": series}
        )
        return
    chosen.show()
    say("Dry run: nothing is fetched or written\n")
    _show_series(planned)
    for line in _unserved(planned):
        say(line, "yellow")


def minutes(planned: Sequence[PlannedSeries]) -> float:
    """Return the minutes all of it takes: providers work side by side, each at its own rate limit."""
    by_provider: dict[str, float] = defaultdict(float)
    for each in planned:
        by_provider[each.provider or ""] += each.minutes
    return max(by_provider.values(), default=0.0)


def _show_series(planned: Sequence[PlannedSeries]) -> None:
    timed = any(each.job.timeframe for each in planned)
    headings = [
        Heading("asset" if timed else "subject"),
        *([Heading("timeframe")] if timed else []),
        Heading("provider"),
        Heading("missing"),
        *([Heading("bars", number=True)] if timed else []),
        Heading("requests", number=True),
        Heading("time", number=True),
    ]
    rows = [
        [
            each.job.subject,
            *([each.job.timeframe.value if each.job.timeframe else ""] if timed else []),
            each.provider or "-",
            _missing(each),
            *([count(each.bars)] if timed else []),
            count(each.requests),
            _time(each.minutes),
        ]
        for each in _in_order(planned)
    ]
    bars = [count(sum(each.bars for each in planned))] if timed else []
    requests = count(sum(each.requests for each in planned))
    total = ["total", *([""] if timed else []), "", "", *bars, requests, _time(minutes(planned))]
    show_table(headings, rows, total if len(rows) > 1 else None)
    say()
    if any(each.bars for each in planned):
        say("Bars are the most there can be: closed markets and quiet minutes have none.")


def _in_order(planned: Sequence[PlannedSeries]) -> list[PlannedSeries]:
    first = {each.job.subject: place for place, each in reversed(list(enumerate(planned)))}
    return sorted(
        planned, key=lambda each: (first[each.job.subject], each.job.timeframe.seconds if each.job.timeframe else 0)
    )


def _missing(each: PlannedSeries) -> str:
    parts = list(each.missing)
    if not parts:
        return "nothing"
    text = f"{instant(parts[0].start)} → {instant(parts[-1].end)}"
    return text if len(parts) == 1 else f"{text} in {len(parts)} pieces"


def _time(spent: float) -> str:
    return duration(math.ceil(spent * 60)) if spent else "-"


def _unserved(planned: Sequence[PlannedSeries]) -> list[str]:
    """Say why providers are passed over, and which series nobody serves."""
    lines = passed_over([(each.job.label, each.job.subject, each.skipped) for each in planned])
    nobody = [each.job.label for each in planned if each.provider is None and each.missing]
    return lines + ([f"no provider serves {', '.join(nobody)}"] if nobody else [])
