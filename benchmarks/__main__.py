"""Runs the benchmarks: `python -m benchmarks [--only NAME] [--quick] [--write]`."""

from __future__ import annotations

import argparse

from benchmarks import backfill, longlog, pruning, report, startup, tables, volume
from benchmarks.measure import say

_NAMES = ("startup", "longlog", "backfill", "volume", "tables", "pruning")


def main() -> None:
    """Measure, print the tables, and with --write put them into docs/benchmarks.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=_NAMES, action="append", help="just this one; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a tenth of the data, to see that it runs")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    given = parser.parse_args()
    wanted = given.only or _NAMES
    sections = {}
    if "startup" in wanted:
        say("start-up:")
        sections["startup"] = report.startup_table(startup.measure())
    if "backfill" in wanted:
        days = 9 if given.quick else 90
        say(f"backfill, {days} days:")
        sections["backfill"] = report.backfill_table(backfill.measure(days), days)
    if "volume" in wanted:
        days = 36 if given.quick else 365
        say(f"volume, {days} days:")
        sections["volume"] = report.volume_table(volume.measure(days), days)
    if "longlog" in wanted:
        say("a long log:")
        sections["longlog"] = report.startup_table(longlog.measure())
    if "tables" in wanted:
        say("writes, merges, compactions:")
        sections["tables"] = report.tables_table(tables.measure(14 if given.quick else 139))
    if "pruning" in wanted:
        days = 36 if given.quick else 365
        say("queries:")
        sections["pruning"] = report.pruning_table(pruning.measure(days), days)
    for name, table in sections.items():
        print(f"{table}\n")
        if given.write:
            report.write(name, table)


if __name__ == "__main__":
    main()
