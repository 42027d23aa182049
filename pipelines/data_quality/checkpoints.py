"""Checkpoints over tables that memory does not hold: validated part by part, the results added up by check."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import great_expectations as gx
from great_expectations import __version__ as gx_version
from great_expectations.core.expectation_validation_result import (
    ExpectationSuiteValidationResult,
    ExpectationValidationResult,
)
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.core.suite_parameters import SuiteParameterDict
from great_expectations.data_context.types.resource_identifiers import (
    ExpectationSuiteIdentifier,
    ValidationResultIdentifier,
)
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from great_expectations.validator.validation_statistics import calc_validation_statistics
from typing_extensions import override

from pipelines.data_quality.expectations import severity_of

PARTS = "parts"
RULE = "expect_rows_to_satisfy_rule"


@dataclass(frozen=True, slots=True)
class CheckedPart:
    """Some rows of a table, and what each expectation said of them."""

    rows: int
    results: Sequence[ExpectationValidationResult]


class PartedValidation(gx.ValidationDefinition):
    """Takes a table in parts, as an iterator of `CheckedPart` named `parts`, and stores one result for all of them."""

    @override
    def run(
        self,
        *,
        checkpoint_id: str | None = None,
        batch_parameters: dict[str, Any] | None = None,
        expectation_parameters: SuiteParameterDict[str, Any] | None = None,
        result_format: object = None,
        run_id: RunIdentifier | None = None,
    ) -> ExpectationSuiteValidationResult:
        """Take the parts one by one and return what they amount to; warnings do not make it a failure."""
        parts: Iterator[CheckedPart] = (batch_parameters or {})[PARTS]
        sums, rows, count = _Sums(self.suite), 0, 0
        for part in parts:
            sums.add(part.results)
            rows, count = rows + part.rows, count + 1
        results = sums.results()
        statistics = calc_validation_statistics(results)
        batch = f"{self.data_source.name}-{self.asset.name}"
        found = ExpectationSuiteValidationResult(
            success=all(each.success for each in results if severity_of(each) == "critical"),
            results=results,
            suite_name=self.suite.name,
            statistics={name: value for name, value in statistics._asdict().items() if name != "success"},
            meta={
                "great_expectations_version": gx_version,
                "validation_id": self.id,
                "checkpoint_id": checkpoint_id,
                "run_id": run_id,
                "validation_time": run_id.run_time if run_id else None,
                "batch_parameters": {"rows": rows, PARTS: count},
                "batch_spec": {"data_asset_name": self.asset.name},
                "active_batch_definition": {
                    "datasource_name": self.data_source.name,
                    "data_asset_name": self.asset.name,
                },
            },
            batch_id=batch,
        )
        suite = ExpectationSuiteIdentifier(name=self.suite.name)
        self._validation_results_store.store_validation_results(
            suite_validation_result=found,
            suite_validation_result_identifier=ValidationResultIdentifier(
                batch_identifier=batch, expectation_suite_identifier=suite, run_id=run_id
            ),
            expectation_suite_identifier=suite,
        )
        return found


@dataclass(slots=True)
class _Sum:
    config: ExpectationConfiguration
    success: bool = True
    elements: int = 0
    missing: int = 0
    unexpected: int | None = None
    observed: list[Any] = field(default_factory=list)

    def add(self, result: ExpectationValidationResult) -> None:
        self.success = self.success and bool(result.success)
        found = result.result
        self.elements += int(found.get("element_count") or 0)
        # A rule judges rows; the column that carries it may well be null in a good one.
        if self.config.type != RULE:
            self.missing += int(found.get("missing_count") or 0)
        if found.get("unexpected_count") is not None:
            self.unexpected = (self.unexpected or 0) + int(found["unexpected_count"])
        # A number says no more than a number; a list may hold what is in rows.
        if isinstance(value := found.get("observed_value"), bool | int | float):
            self.observed.append(value)

    def result(self) -> ExpectationValidationResult:
        success, told = self.success, dict[str, Any]()
        if self.unexpected is not None:
            present = self.elements - self.missing
            # A share of rows may fail: it is the table's, not each part's.
            success = self.unexpected <= (1 - float(self.config.kwargs.get("mostly") or 1)) * present + 1e-9
            told = {
                "element_count": self.elements,
                "unexpected_count": self.unexpected,
                "unexpected_percent": 100 * self.unexpected / present if present else 0.0,
                "partial_unexpected_list": [],
            }
        elif self.observed:
            least, most = min(self.observed), max(self.observed)
            told = {"observed_value": least if least == most else f"{least} to {most}"}
        return ExpectationValidationResult(success=success, expectation_config=self.config, result=told)


class _Sums:
    """The results of a suite's expectations over parts, in the order of the suite."""

    def __init__(self, suite: gx.ExpectationSuite) -> None:
        self._sums = {identity(config): _Sum(config) for config in suite.expectation_configurations}

    def add(self, results: Iterable[ExpectationValidationResult]) -> None:
        for result in results:
            if result.expectation_config is not None:
                self._sums[identity(result.expectation_config)].add(result)

    def results(self) -> list[ExpectationValidationResult]:
        return [each.result() for each in self._sums.values()]


def identity(config: ExpectationConfiguration) -> str:
    """Return what is expected, whatever its id, batch and severity."""
    kwargs = {name: value for name, value in config.kwargs.items() if name != "batch_id"}
    return json.dumps([config.type, kwargs], sort_keys=True, default=str)
