"""The Great Expectations side: a contract's checks as a suite, and how a frame is run against it. Slow to import."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import great_expectations as gx
from great_expectations.core.batch_definition import BatchDefinition
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.data_context.data_context.ephemeral_data_context import EphemeralDataContext
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)
from great_expectations.exceptions.exceptions import GreatExpectationsError
from great_expectations.expectations.core.expect_column_values_to_be_in_set import ExpectColumnValuesToBeInSet
from great_expectations.expectations.core.expect_column_values_to_not_be_null import ExpectColumnValuesToNotBeNull
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from great_expectations.validator.v1_validator import Validator

from pipelines.contracts import Contract
from pipelines.data_quality.check_results import CheckResult
from pipelines.data_quality.checks import Check, Severity, checks_for
from pipelines.data_quality.row_expectations import ExpectColumnValuesToBeFinite, ExpectRowsToSatisfyRule
from pipelines.errors import ContractError

# A generated expectation has it in its meta; one that a user added by hand has not.
CONTRACT = "contract"
# How many rows fail, and nothing of what is in them. Spark would run a job of its own for each expectation.
_COUNTS = {"result_format": "BASIC", "partial_unexpected_count": 0}


def ephemeral_context() -> EphemeralDataContext:
    """Return a context that lives in memory, writes no file and shows no progress."""
    # By default it makes a temporary folder for documents and leaves it behind.
    stores = InMemoryStoreBackendDefaults(init_temp_docs_sites=False)
    bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    return gx.get_context(
        mode="ephemeral",
        project_config=DataContextConfig(store_backend_defaults=stores, progress_bars=bars, analytics_enabled=False),
    )


def build_suite(
    contract: Contract, name: str, *, live: bool = False, by_hand: Iterable[Expectation] = ()
) -> gx.ExpectationSuite:
    """Return a contract's checks as a suite; each expectation's meta names the reason its rows are told.

    Args:
        contract: the contract.
        name: what the suite is called.
        live: whether the newest rows have to be fresh as well.
        by_hand: expectations that a user added, which come last.
    """
    checks = checks_for(contract, live=live)
    return gx.ExpectationSuite(
        name=name,
        expectations=[*(_expectation(check, contract) for check in checks), *by_hand],
        meta={CONTRACT: contract.id, "contract_version": contract.version},
    )


def added_by_hand(path: Path) -> list[Expectation]:
    """Return the expectations of a stored suite that no contract gave, as new ones; none if there is no such file.

    Raises:
        ContractError: the file cannot be read as a suite; names it.
    """
    if not path.is_file():
        return []
    try:
        listed: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["expectations"]
        # A suite made of them all would leave out what it does not understand.
        return [_as_new(each) for each in listed if CONTRACT not in (each.get("meta") or {})]
    except (ValueError, TypeError, LookupError, AttributeError, GreatExpectationsError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ContractError(f"{path} is no suite that can be read ({reason}); mend or remove it") from error


def run(
    context: EphemeralDataContext, suite: gx.ExpectationSuite, frame: object, *, spark: bool
) -> list[ExpectationValidationResult]:
    """Run a suite over a pandas or Spark frame and return the result of each expectation.

    Raises:
        ContractError: a check could not be run.
    """
    # A name of its own, so that frames of several threads are not taken for one another; deleted, it frees the frame.
    name = f"frame_{uuid4().hex}"
    sources = context.data_sources
    asset = (
        sources.add_spark(name, persist=False).add_dataframe_asset("frame")
        if spark
        else sources.add_pandas(name).add_dataframe_asset("frame")
    )
    try:
        definition: BatchDefinition[Any] = asset.add_batch_definition_whole_dataframe("whole")
        validator = Validator(
            batch_definition=definition,
            batch_parameters={"dataframe": frame},
            result_format="BOOLEAN_ONLY" if spark else _COUNTS,
        )
        outcome = validator.validate_expectation_suite(suite)
    finally:
        sources.delete(name)
    for result in outcome.results:
        for problem in _exceptions(result.exception_info or {}):
            raise ContractError(f"suite {suite.name}: the check {reason_of(result)!r} cannot be run: {problem}")
    return outcome.results


def reason_of(result: ExpectationValidationResult) -> str:
    """Return the reason of a check's result, or the expectation's type for one that was added by hand."""
    config = result.expectation_config
    if config is None:
        return "unknown"
    return str((config.meta or {}).get("reason", config.type))


def severity_of(result: ExpectationValidationResult) -> Severity:
    """Return how bad a failure of the check is."""
    config = result.expectation_config
    return config.severity.value if config and config.severity else "critical"


def check_result(result: ExpectationValidationResult, failed: Mapping[str, int]) -> CheckResult:
    """Return how a check ended.

    Args:
        result: Great Expectations' account of it.
        failed: how many rows broke a check, by its reason. Of an expectation that was added by hand only Great
            Expectations knows.
    """
    config, reason = result.expectation_config, reason_of(result)
    counted = failed.get(reason) or (result.result or {}).get("unexpected_count") or 0
    return CheckResult(
        reason=reason,
        expectation=config.type if config else "unknown",
        severity=severity_of(result),
        success=bool(result.success),
        failed_rows=int(counted),
    )


def _exceptions(info: Mapping[str, Any]) -> Iterator[str]:
    if info.get("raised_exception"):
        yield str(info.get("exception_message"))
    for part in info.values():
        if isinstance(part, Mapping):
            yield from _exceptions(part)


def _expectation(check: Check, contract: Contract) -> Expectation:
    shared: dict[str, Any] = {"severity": check.severity, "meta": {"reason": check.reason, CONTRACT: contract.id}}
    column = check.columns[0]
    if check.kind == "not_null":
        return ExpectColumnValuesToNotBeNull(column=column, **shared)
    if check.kind == "in_set":
        return ExpectColumnValuesToBeInSet(column=column, value_set=list(check.allowed), **shared)
    if check.kind == "finite":
        return ExpectColumnValuesToBeFinite(column=column, **shared)
    return ExpectRowsToSatisfyRule(column=column, rule=check.rule, **shared)


def _as_new(stored: Mapping[str, Any]) -> Expectation:
    """Return a stored expectation without its id, which belongs to the suite that it came from."""
    config = ExpectationConfiguration(**{name: value for name, value in stored.items() if name != "id"})
    return config.to_domain_obj()
