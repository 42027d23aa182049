"""Validates tables of a lake against their contracts' suites, as checkpoints of the quality project. No JVM."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.contracts import Contract, contract_for, load_contracts
from pipelines.data_quality.check_results import CheckResult
from pipelines.data_quality.expectations_suite import DataQualityFramework, suite_name
from pipelines.data_quality.table_parts import Part, parts_of
from pipelines.errors import StorageError
from pipelines.storage.quality_log import QualityResult

if TYPE_CHECKING:
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult

    from pipelines.data_quality.checkpoints import CheckedPart
    from pipelines.data_quality.quality_project import QualityProject
    from pipelines.storage import DeltaLakeManager
    from pipelines.storage.scan import Selection


@dataclass(slots=True)
class TableValidation:
    """What a table's suite found.

    `failed_rows` of `rows` broke an error check and are in `dlq_files`; a row may break several. `parts` says in how
    many pieces the table was read.
    """

    table: str
    suite: str
    contract: str
    version: int
    rows: int = 0
    failed_rows: int = 0
    parts: int = 0
    seconds: float = 0.0
    checks: tuple[CheckResult, ...] = ()
    failed_by_check: dict[str, int] = field(default_factory=dict)
    dlq_files: list[Path] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether no error check failed; warnings do not count."""
        return not self.failed_rows and all(check.success for check in self.checks if check.severity == "critical")

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        return {
            "table": self.table,
            "suite": self.suite,
            "version": self.version,
            "ok": self.ok,
            "rows": self.rows,
            "failed_rows": self.failed_rows,
            "parts": self.parts,
            "seconds": round(self.seconds, 3),
            "checks": [
                {
                    "check": check.reason,
                    "expectation": check.expectation,
                    "severity": check.severity,
                    "success": check.success,
                    "failed_rows": check.failed_rows,
                }
                for check in self.checks
            ],
            "dlq_files": [str(path) for path in self.dlq_files],
        }


def tables_to_validate(manager: DeltaLakeManager, names: Sequence[str], wanted: Selection) -> list[tuple[str, int]]:
    """Return tables and their versions: those named, or all that have a contract, are no log and can be selected from.

    Raises:
        TableNotFoundError: a named table is not in the lake; names the nearest.
        ContractError: no contract declares a named table.
        StorageError: a named table has no event time or no assets to select by.
    """
    for name in names:
        # For what it says of a table that is not there.
        manager.get_table_history(name)
        if not _selectable(contract_for(name), wanted):
            raise StorageError(f"{name} has no event time or no assets to select by; validate it as a whole")
    declared = {table: each for each in load_contracts().values() for table in each.tables}
    usual = (table for table, each in declared.items() if not each.is_log and _selectable(each, wanted))
    versions = {info.name: info.version for info in manager.tables()}
    return [(name, versions[name]) for name in dict.fromkeys(names or usual) if name in versions]


def validate_table(
    manager: DeltaLakeManager,
    project: QualityProject,
    table_name: str,
    version: int,
    wanted: Selection,
    run_name: str,
    *,
    live: bool = False,
    on_part: Callable[[int, int], None] = lambda _done, _all: None,
) -> TableValidation:
    """Validate a selection of a table's version; failed rows go to the dead letter queue, the result to the project.

    Args:
        manager: the lake.
        project: where the checkpoint is kept and its result stored.
        table_name: a table that a contract declares.
        version: its version.
        wanted: assets and range.
        run_name: names the run in the project.
        live: whether the newest rows have to be there.
        on_part: is told the rows done and all rows, after each part.

    Raises:
        ContractError: a check cannot be run, or the stored suite cannot be read.
        StorageError: the table cannot be read.
        OSError: the project or the dead letter queue cannot be written.
    """
    started, contract = time.monotonic(), contract_for(table_name)
    framework = DataQualityFramework(manager.settings)
    found = TableValidation(table_name, suite_name(contract.id, live=live), contract.id, version)
    parts = parts_of(manager, table_name, contract, wanted, version, manager.settings.quality.rows_per_part)
    total = sum(part.rows for part in parts)

    def checked() -> Iterator[CheckedPart]:
        for part in parts:
            yield _check_part(manager, framework, part, found, live=live)
            on_part(found.rows, total)
            # Great Expectations' objects refer to one another in circles, and to the rows.
            gc.collect()

    result = project.check(table_name, contract, found.suite, checked(), run_name, live=live)
    found.checks = tuple(_checks(result, found))
    found.seconds = time.monotonic() - started
    return found


def quality_results(found: TableValidation, wanted: Selection) -> Iterator[QualityResult]:
    """Yield how each check of a table ended, for the log of quality results."""
    timeframe = load_contracts()[found.contract].timeframe_of(found.table)
    about = {
        "suite": found.suite,
        "version": found.version,
        "assets": wanted.assets,
        "start": wanted.start.isoformat() if wanted.start else None,
        "end": wanted.end.isoformat() if wanted.end else None,
    }
    for check in found.checks:
        yield QualityResult(
            kind="suite",
            dataset=found.contract,
            check_name=check.reason,
            severity=check.severity,
            success=check.success,
            rows_checked=found.rows,
            # A row whose type is wrong in two columns is told twice.
            rows_failed=min(check.failed_rows, found.rows),
            table_name=found.table,
            asset_pair=wanted.assets[0] if wanted.assets and len(wanted.assets) == 1 else None,
            timeframe=timeframe.value if timeframe else None,
            details=json.dumps({name: value for name, value in about.items() if value is not None}),
        )


def _check_part(
    manager: DeltaLakeManager, framework: DataQualityFramework, part: Part, found: TableValidation, *, live: bool
) -> CheckedPart:
    from pipelines.data_quality.checkpoints import CheckedPart  # noqa: PLC0415 - imports Great Expectations

    rows = manager.read_arrow(found.table, part.start, part.end, part.assets, version=found.version)
    # Only the part that ends a series can say whether its newest rows are there.
    outcome = framework.check(rows, load_contracts()[found.contract], live=live and part.newest)
    found.rows += outcome.total_rows
    found.failed_rows += outcome.failed_rows
    found.parts += 1
    for check in outcome.checks:
        found.failed_by_check[check.reason] = found.failed_by_check.get(check.reason, 0) + check.failed_rows
    if outcome.dlq_file is not None:
        found.dlq_files.append(outcome.dlq_file)
    return CheckedPart(outcome.total_rows, outcome.results)


def _checks(result: ExpectationSuiteValidationResult, found: TableValidation) -> Iterator[CheckResult]:
    """Yield the checks of the whole table, from the checkpoint's result."""
    from pipelines.data_quality.expectations import check_result  # noqa: PLC0415 - imports Great Expectations

    for each in result.results:
        yield check_result(each, found.failed_by_check)


def _selectable(contract: Contract, wanted: Selection) -> bool:
    by_time = wanted.start is not None or wanted.end is not None
    return (contract.event_time is not None or not by_time) and (
        wanted.assets is None or any(column.name == "asset_pair" for column in contract.columns)
    )
