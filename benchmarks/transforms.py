"""The transform benchmarks: a full refresh beside a hand-written job, and what one more day costs a long history."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import PYTHON, BenchmarkError, Run, run, say

BASE = "applyInArrow + TA-Lib"


@dataclass(frozen=True, slots=True)
class Transformed:
    """One contestant: what it did to how many rows, in seconds, and what it is compared with."""

    task: str
    who: str
    rows: int
    seconds: float
    base: float
    run: Run


def measure(days: int, history: int) -> list[Transformed]:
    """Measure a full refresh over `days` days of ten assets, then one day more after `history` days and ten times that.

    Raises:
        BenchmarkError: a contestant failed.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        return [*_refreshes(Path(scratch) / "refresh", days), *_increments(Path(scratch), history)]


def _refreshes(lake: Path, days: int) -> list[Transformed]:
    rows = int(_run("seed", lake, days).answer["rows"])
    reference, refresh = (_run(task, lake, days) for task in ("reference", "refresh"))
    base, seconds = (float(done.answer["seconds"]) for done in (reference, refresh))
    if {reference.answer["rows"], refresh.answer["rows"]} != {rows}:
        raise BenchmarkError(f"{reference.answer} and {refresh.answer}, not {rows:,} rows")
    say(f"  {BASE}: {base:.1f} s; market_data_enriched: {seconds:.1f} s")
    return [
        Transformed("full refresh", BASE, rows, base, base, reference),
        Transformed("full refresh", "market_data_enriched", rows, seconds, base, refresh),
    ]


def _increments(scratch: Path, history: int) -> list[Transformed]:
    found: list[Transformed] = []
    for days in (history, 10 * history):
        lake = scratch / str(days)
        made = _run("history", lake, days)
        say(f"  {made.answer['rows']:,} bars built in {made.answer['seconds']:.0f} s")
        more, again = _run("increment", lake, days), _run("nothing", lake, days)
        base = found[0].seconds if found else float(more.answer["seconds"])
        for task, done in ((f"one day after {days} days", more), (f"nothing new after {days + 1} days", again)):
            seconds = float(done.answer["seconds"])
            say(f"  {task}: {seconds:.1f} s")
            found.append(Transformed(task, "lakehouse transform", int(done.answer["rows"]), seconds, base, done))
    return found


def _run(task: str, lake: Path, days: int) -> Run:
    done = run([PYTHON, "-m", "benchmarks.transforming", task, "--lake", lake, "--days", str(days)])
    if done.answer.get("wrong"):
        raise BenchmarkError(f"{task}: {done.answer['wrong']}")
    return done
