"""What a check of a table can find, and what the user is told to do about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from pipelines.storage.undeclared import is_declared

Severity = Literal["error", "warning", "info"]


def mend(table: str, *, deep: bool = False) -> str:
    """Return the command that mends a table."""
    return f"lakehouse fsck {table} --deep --repair" if deep else f"lakehouse fsck {table} --repair"


def anew(table: str) -> str:
    """Return the command that makes a table anew; none for one that nothing here makes."""
    return f"lakehouse rebuild {table}" if is_declared(table) else ""


class Code(StrEnum):
    """What is wrong."""

    MISSING_FILE = "missing-file"
    WRONG_SIZE = "wrong-size"
    UNREADABLE_FILE = "unreadable-file"
    WRONG_ROWS = "wrong-rows"
    TRUNCATED_COMMIT = "truncated-commit"
    BROKEN_COMMIT = "broken-commit"
    LOG_GAP = "log-gap"
    BAD_LAST_CHECKPOINT = "bad-last-checkpoint"
    BAD_CHECKPOINT = "bad-checkpoint"
    NO_CHECKPOINT = "no-checkpoint"
    LOST_TABLE = "lost-table"
    UNREADABLE_LOG = "unreadable-log"
    ORPHANS = "orphans"
    TEMPORARY_FILES = "temporary-files"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found; `where` is a path in the table's folder, `remedy` a command to paste, or empty."""

    code: Code
    severity: Severity
    what: str
    where: str = ""
    remedy: str = ""
    version: int | None = None

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        names = ("code", "severity", "what", "where", "remedy", "version")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class FsckReport:
    """What a check found in one table; `version` is its newest one, None where its log cannot be read."""

    table: str
    version: int | None
    files: int
    findings: tuple[Finding, ...] = field(default_factory=tuple)

    @property
    def ok(self) -> bool:
        """Whether there is nothing to be done."""
        return all(finding.severity == "info" for finding in self.findings)

    def of(self, *codes: Code) -> list[Finding]:
        """Return the findings of some kinds."""
        return [finding for finding in self.findings if finding.code in codes]

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        found = [finding.as_dict() for finding in self.findings]
        return {"table": self.table, "version": self.version, "files": self.files, "ok": self.ok, "findings": found}
