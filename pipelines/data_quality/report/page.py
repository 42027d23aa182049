"""The report as one HTML page: styles and drawings are in it, no script, nothing from outside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipelines.data_quality.report.heatmap import CLASSES, CLOSED, NOTHING, heat_maps
from pipelines.data_quality.report.sections import (
    agreement_section,
    checks_section,
    freshness_section,
    gaps_section,
    refused_section,
    restated_section,
)
from pipelines.data_quality.report.words import moment, share
from pipelines.wording import SYNTHETIC, count, counted

if TYPE_CHECKING:
    from pipelines.data_quality.report import QualityReport

_TEMPLATE = Path(__file__).with_name("page.html.j2")

State = Literal["ok", "warning", "critical", "unknown"]


@dataclass(frozen=True, slots=True)
class Headline:
    """One figure of the summary: what it is about, how much, of what, and how bad."""

    label: str
    value: str
    detail: str
    state: State


def headlines(report: QualityReport) -> list[Headline]:
    """Return the summary, a line for each section."""
    return [
        _completeness(report),
        _freshness(report),
        _refused(report),
        _restated(report),
        _agreement(report),
        _checks(report),
    ]


def page(report: QualityReport) -> str:
    """Return the report as an HTML document."""
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - only where a page is made

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["share"] = share
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(**_context(report))


def _context(report: QualityReport) -> dict[str, Any]:
    return {
        "lake": report.lake,
        "synthetic": SYNTHETIC if report.synthetic else "",
        "span": f"{moment(report.interval.start)} to {moment(report.interval.end)} UTC",
        "made": moment(report.made_at),
        "tiles": headlines(report),
        "maps": heat_maps(report.gaps),
        "legend": [*((name, text) for _, name, text in CLASSES), (NOTHING, "none"), (CLOSED, "market closed")],
        "kinds": [*(name for _, name, _ in CLASSES), NOTHING, CLOSED],
        "gaps": gaps_section(report.gaps),
        "freshness": freshness_section(report.freshness, report.made_at),
        "refused": refused_section(report.refused),
        "restated": restated_section(report.restated),
        "agreement": agreement_section(report.agreement),
        "checks": checks_section(report.checks),
    }


def _completeness(report: QualityReport) -> Headline:
    expected = sum(each.expected for each in report.gaps)
    missing = sum(each.missing for each in report.gaps)
    if not expected:
        return Headline("completeness", "-", "no bars", "unknown")
    detail = f"{counted(missing, 'bars')} missing"
    return Headline("completeness", share((expected - missing) / expected), detail, "warning" if missing else "ok")


def _freshness(report: QualityReport) -> Headline:
    stale, known = sum(not each.fresh for each in report.freshness), len(report.freshness)
    detail = f"of {counted(known, 'series')} behind"
    return Headline("freshness", count(stale), detail, "warning" if stale else "ok" if known else "unknown")


def _refused(report: QualityReport) -> Headline:
    found = report.refused
    if found.unreadable:
        detail = f"rows refused, {counted(len(found.unreadable), 'files')} unreadable"
        return Headline("dead letters", count(found.rows), detail, "critical")
    return Headline("dead letters", count(found.rows), "rows refused", "warning" if found.rows else "ok")


def _restated(report: QualityReport) -> Headline:
    return Headline("restatements", count(report.restated.total), "changes of bars", "ok")


def _agreement(report: QualityReport) -> Headline:
    bars, beyond = (sum(getattr(each, name) for each in report.agreement) for name in ("bars", "beyond"))
    if not bars:
        return Headline("providers", "-", "no bar served by two", "unknown")
    return Headline(
        "providers", count(beyond), f"of {counted(bars, 'shared bars')} apart", "warning" if beyond else "ok"
    )


def _checks(report: QualityReport) -> Headline:
    critical = sum(row["severity"] == "critical" for row in report.checks)
    detail = f"checks failed, {counted(len(report.checks) - critical, 'warnings')}"
    state: State = "critical" if critical else "warning" if report.checks else "ok"
    return Headline("checks", count(critical), detail, state)
