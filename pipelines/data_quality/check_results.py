"""How a check ended, whatever ran it."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.data_quality.checks import Severity


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How one check ended: its reason text, the expectation behind it, and the rows that broke it."""

    reason: str
    expectation: str
    severity: Severity
    success: bool
    failed_rows: int
