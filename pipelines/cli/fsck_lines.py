"""What a check found in a lake's tables, and what a repair did, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.cli.lakes import ChosenLake, NoLakeError, lake_for_reading, option_of
from pipelines.cli.render import count, counted, say, show_json
from pipelines.cli.restored import show_retractions
from pipelines.config import Settings, load_settings
from pipelines.storage import DeltaLakeManager

if TYPE_CHECKING:
    from pipelines.storage.recovery.findings import Finding, FsckReport
    from pipelines.storage.recovery.repair import RepairResult

_STYLES = {"error": "red", "warning": "yellow", "info": ""}
_MOST_SHOWN = 20


def show_fsck(
    tables: Sequence[str],
    lake: str | None,
    *,
    sample: bool,
    config_file: Path | None,
    deep: bool,
    repair: bool,
    as_json: bool,
) -> bool:
    """Check tables, mend them if asked to, and print what there is to say; returns whether something is left to do."""
    chosen = _lake(load_settings(config_file), lake, sample=sample)
    names = tables or chosen.manager.known_tables()
    if not as_json:
        chosen.show()
        say()
    repaired: list[RepairResult] = []
    reports: list[FsckReport] = []
    for name in names:
        if repair:
            repaired.append(chosen.manager.repair(name, deep=deep))
            reports.append(repaired[-1].left)
        else:
            reports.append(chosen.manager.fsck(name, deep=deep))
        if not as_json:
            _show(chosen, reports[-1], repaired[-1].done if repair else ())
    left = any(not report.ok for report in reports)
    if as_json:
        results = [each.as_dict() for each in repaired] if repair else [each.as_dict() for each in reports]
        show_json({**chosen.as_dict(), "ok": not left, "deep": deep, "tables": results})
        return left
    show_retractions([each for result in repaired for each in result.retracted])
    _summary(chosen, reports, repaired)
    return left


def _lake(settings: Settings, lake: str | None, *, sample: bool) -> ChosenLake:
    """Return the lake to look at: also one that has lost its coverage log, by which others know a lake."""
    try:
        return lake_for_reading(settings, lake, sample=sample)
    except NoLakeError:
        paths = settings.delta_lake
        named = lake or settings.resolve(paths.sample_storage_path if sample else paths.storage_path)
        manager = DeltaLakeManager(named, settings)
        if not manager.known_tables():
            raise
        return ChosenLake(manager, sample, option=option_of(lake, sample=sample))


def _show(chosen: ChosenLake, report: FsckReport, done: Sequence[str]) -> None:
    at = "cannot be read" if report.version is None else f"version {report.version}, {counted(report.files, 'files')}"
    say(f"{report.table}: {at}, {'ok' if report.ok else 'NOT OK'}", None if report.ok else "bold red")
    for line in done:
        say(f"  {line}", "green")
    for finding in report.findings[:_MOST_SHOWN]:
        _show_finding(chosen, finding)
    if len(report.findings) > _MOST_SHOWN:
        say(f"  and {count(len(report.findings) - _MOST_SHOWN)} more; --json lists them all")


def _show_finding(chosen: ChosenLake, finding: Finding) -> None:
    say(f"  {finding.severity} {finding.code.value}: {finding.what}", _STYLES[finding.severity])
    if finding.where:
        say(f"    {finding.where}")
    if finding.remedy:
        say(f"    {chosen.command(finding.remedy)}")
    elif finding.severity != "info":
        say("    No contract declares this table: make it anew with what makes it, as dbt")


def _summary(chosen: ChosenLake, reports: Sequence[FsckReport], repaired: Sequence[RepairResult]) -> None:
    findings = [finding for report in reports for finding in report.findings if finding.severity != "info"]
    remedies = dict.fromkeys(finding.remedy for finding in findings if finding.remedy)
    say()
    if repaired:
        say(f"{counted(sum(len(each.done) for each in repaired), 'repairs')} in {counted(len(reports), 'tables')}.")
    if not findings:
        say(f"{counted(len(reports), 'tables')} checked; nothing is wrong.")
        return
    say(f"{counted(len(reports), 'tables')} checked; {counted(len(findings), 'faults')} to mend:", "bold")
    for remedy in remedies:
        say(f"  {chosen.command(remedy)}")
