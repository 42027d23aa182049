"""Runs the benchmarks: `python -m benchmarks [--only NAME] [--quick] [--write]`."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from benchmarks import (
    backfill,
    gaps,
    longlog,
    monitoring,
    orchestrating,
    pruning,
    quality,
    report,
    startup,
    streaming,
    tables,
    transforms,
    volume,
)
from benchmarks.measure import say

_NAMES = (
    "startup",
    "longlog",
    "backfill",
    "volume",
    "tables",
    "pruning",
    "gaps",
    "quality",
    "transform",
    "stream",
    "orchestration",
    "monitoring",
)


def main() -> None:
    """Measure, print the tables, and with --write put them into docs/benchmarks.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=_NAMES, action="append", help="just this one; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a tenth of the data, to see that it runs")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    given = parser.parse_args()
    sections = {}
    for name in _NAMES:
        if name in (given.only or _NAMES):
            say(f"{name}:")
            sections[name] = _table(name, quick=given.quick)
    for name, table in sections.items():
        print(f"{table}\n")
        if given.write:
            report.write(name, table)


def _table(name: str, *, quick: bool) -> str:
    """Run one benchmark and return its table."""
    messages, seconds = (200_000, 30) if quick else (2_000_000, 300)
    quarter, months, year = (9, 14, 36) if quick else (90, 139, 365)
    makers: dict[str, Callable[[], str]] = {
        "startup": lambda: report.startup_table(startup.measure()),
        "backfill": lambda: report.backfill_table(backfill.measure(quarter), quarter),
        "volume": lambda: report.volume_table(volume.measure(year), year),
        "longlog": lambda: report.startup_table(longlog.measure()),
        "tables": lambda: report.tables_table(tables.measure(months)),
        "pruning": lambda: report.pruning_table(pruning.measure(year), year),
        "gaps": lambda: report.gaps_table(gaps.measure(year), year),
        "quality": lambda: report.quality_table(quality.measure(months)),
        "stream": lambda: report.stream_table(*streaming.measure(messages, seconds)),
        "orchestration": lambda: report.orchestration_table(orchestrating.measure(quarter // 9), quarter // 9),
        "monitoring": lambda: report.monitoring_table(*monitoring.measure(quarter // 3), quarter // 3),
        "transform": lambda: report.transform_table(transforms.measure(months, quarter // 9)),
    }
    return makers[name]()


if __name__ == "__main__":
    main()
