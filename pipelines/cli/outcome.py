"""What a run did, as a table by asset and timeframe, and what went wrong in it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipelines.cli.failures import DONE, FAILED, INTERRUPTED
from pipelines.cli.render import Heading, count, counted, duration, instant, listing, percent, say, show_table

if TYPE_CHECKING:
    from pipelines.batch import BackfillResult, FailedWindow, IngestResult

_COUNTS = ("fetched", "new", "restated", "repeated", "rejected")
_MOST_SHOWN = 5
_NOT_SERVED = "does not serve "


def exit_code_of(result: BackfillResult) -> int:
    """Return 130 for an interrupted run, 1 for one with failed windows, else 0."""
    if result.interrupted:
        return INTERRUPTED
    return DONE if result.ok else FAILED


def show_result(result: BackfillResult, again: str, *, unit: str = "requests", problems: Sequence[str] = ()) -> None:
    """Print the table, what was skipped, refused or failed, and the totals.

    Args:
        result: what to show.
        again: the command line to go on with.
        unit: what `result.requests` counts.
        problems: further lines on what failed.
    """
    series = in_order(result.series)
    if series:
        _table(result, series)
        say()
    for line in (*passed_over([(label(each), each.subject, each.skipped) for each in series]), *_dead_letters(series)):
        say(line, "yellow")
    for line in (*_failed(series), *problems):
        say(line, "red")
    say(_totals(result, unit))
    if result.interrupted:
        say("Interrupted; nothing is lost. Go on with the same command:", "yellow")
        say(f"  {again}")
    elif not result.ok:
        say("The same command asks again for what failed:" if not problems else "Mend the files and run it again:")
        say(f"  {again}")


def in_order(series: Sequence[IngestResult]) -> list[IngestResult]:
    """Return results by subject as they were asked for, then by length of bar."""
    first = {result.subject: place for place, result in reversed(list(enumerate(series)))}
    return sorted(series, key=lambda each: (first[each.subject], each.timeframe.seconds if each.timeframe else 0))


def label(result: IngestResult) -> str:
    """Return BTCUSD 1h, or the subject of another dataset."""
    return f"{result.subject} {result.timeframe.value}" if result.timeframe else result.subject


def _table(result: BackfillResult, series: Sequence[IngestResult]) -> None:
    timed = any(each.timeframe for each in series)
    headings = [Heading("asset" if timed else "subject"), *([Heading("timeframe")] if timed else [])]
    headings += [
        Heading("provider"),
        *(Heading(name, number=True) for name in _COUNTS),
        Heading("coverage", number=True),
    ]
    rows = [
        [
            each.subject,
            *([each.timeframe.value if each.timeframe else ""] if timed else []),
            _providers(each),
            *(count(getattr(each, name)) for name in _COUNTS),
            percent(each.coverage),
        ]
        for each in series
    ]
    total = ["total", *([""] if timed else []), "", *(count(result.total(name)) for name in _COUNTS), ""]
    show_table(headings, rows, total if len(rows) > 1 else None)


def _providers(result: IngestResult) -> str:
    if len(result.served) > 1:
        return " + ".join(f"{name} {count(rows)}" for name, rows in result.served.items())
    return next(iter(result.served), "-")


def passed_over(series: Sequence[tuple[str, str, Mapping[str, str]]]) -> list[str]:
    """Say which providers were passed over and why, once for all series with the same reason.

    Args:
        series: label, subject, and reason by provider.
    """
    by_reason: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, subject, skipped in series:
        for provider, reason in skipped.items():
            if reason.startswith(_NOT_SERVED):
                by_reason[provider, f"{_NOT_SERVED}{subject}"].append(name)
            else:
                by_reason[provider, reason.removeprefix(f"{provider}: ")].append(name)
    return [
        f"{provider} passed over: {reason}"
        + ("" if len(names) == len(series) or reason.startswith(_NOT_SERVED) else f" ({listing(names)})")
        for (provider, reason), names in by_reason.items()
    ]


def _dead_letters(series: Sequence[IngestResult]) -> list[str]:
    files = list(dict.fromkeys(path for each in series for path in each.dlq_files))
    if not files:
        return []
    rejected = sum(each.rejected for each in series)
    return [f"{counted(rejected, 'rows')} rejected; the reasons are in {listing(files, most=3)}"]


def _why(window: FailedWindow) -> str:
    """Return the provider and its error, which may begin with its name already."""
    prefix = f"{window.provider}: " if window.provider else ""
    return prefix + window.error.removeprefix(prefix)


def _failed(series: Sequence[IngestResult]) -> list[str]:
    failed = [(each, window) for each in series for window in each.failed]
    if not failed:
        return []
    lines = [f"{counted(len(failed), 'windows')} failed:"]
    lines += [f"  {label(each)} {_span(window)} {_why(window)}" for each, window in failed[:_MOST_SHOWN]]
    if len(failed) > _MOST_SHOWN:
        left = Counter(label(each) for each, _ in failed[_MOST_SHOWN:])
        rest = listing([f"{name} ({number})" for name, number in left.items()])
        lines.append(f"  and {count(len(failed) - _MOST_SHOWN)} more: {rest}; --json lists them all")
    return lines


def _span(window: FailedWindow) -> str:
    if not window.interval:
        return "(no readable times)"
    return f"{instant(window.interval.start)} → {instant(window.interval.end)}"


def _totals(result: BackfillResult, unit: str) -> str:
    landed = result.total("new") + result.total("restated")
    took = duration(result.seconds)
    if not result.requests and not any(each.missing for each in result.series):
        return f"Nothing was missing: all of it is covered already ({took})."
    rate = landed / result.seconds if result.seconds else 0.0
    what = "bars" if any(each.timeframe for each in result.series) else "rows"
    speed = f"{count(round(rate))} {what}/s"
    return f"{counted(landed, what)} landed in {took} ({speed}) from {counted(result.requests, unit)}."
