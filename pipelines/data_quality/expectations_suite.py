"""The data quality framework: contract suites on pandas, Arrow and Spark frames; failed rows go to the dead letters."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import pyarrow as pa

from pipelines.config import Settings, load_settings
from pipelines.contracts import Contract, load_contracts
from pipelines.data_quality.check_results import CheckResult
from pipelines.data_quality.dlq import DeadLetterQueue
from pipelines.data_quality.frames import CheckableFrame, Failures, LocalFrame
from pipelines.data_quality.signals import SignalSettings
from pipelines.errors import ContractError
from pipelines.frames import arrow_from_pandas
from pipelines.monitoring.metrics import data_quality_checks_total

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations import ExpectationSuite
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult
    from great_expectations.data_context.data_context.ephemeral_data_context import EphemeralDataContext
    from pyspark.sql import DataFrame

    CheckedFrame: TypeAlias = pd.DataFrame | pa.Table | DataFrame

logger = logging.getLogger(__name__)

MARKET_DATA_SUITE = "market_data_quality"
_LIVE = "_live"


@dataclass(frozen=True, slots=True)
class ValidationOutcome:
    """What a suite found in a frame; true when no error check failed.

    `failed_rows` of `total_rows` broke an error check, `reasons` counts why (a row may have several), and `dlq_file`
    holds them. Checks of severity warning are told in `checks` alone. `results` is Great Expectations' own account.
    """

    suite: str
    success: bool
    total_rows: int
    failed_rows: int
    reasons: Mapping[str, int] = field(default_factory=dict)
    checks: tuple[CheckResult, ...] = ()
    dlq_file: Path | None = None
    results: Sequence[ExpectationValidationResult] = field(default=(), repr=False)

    def __bool__(self) -> bool:
        return self.success


class DataQualityFramework:
    """Builds Great Expectations suites from the contracts and runs them.

    A suite is its contract's checks, and what a user added by hand to the stored suite of that name in `quality.path`.
    Its context lives in memory: it writes no file and calls nobody. The first suite takes some seconds, as Great
    Expectations is slow to import.
    """

    def __init__(self, settings: Settings | None = None, dlq: DeadLetterQueue | None = None) -> None:
        """Set up.

        Args:
            settings: the settings; loaded from config/ by default.
            dlq: where failed rows go; the queue of the settings by default.
        """
        settings = settings or load_settings()
        self._dlq = dlq or DeadLetterQueue(settings.resolve(settings.dlq.path))
        self._signals = SignalSettings.of(settings.quality)
        self._path = Path(settings.resolve(settings.quality.path))

    @cached_property
    def context(self) -> EphemeralDataContext:
        """The Great Expectations context that holds the suites."""
        from pipelines.data_quality.expectations import ephemeral_context  # noqa: PLC0415 - takes 5 to 12 s

        return ephemeral_context()

    def create_market_data_suite(self) -> ExpectationSuite:
        """Create the suite `market_data_quality` from the contract of the bars."""
        return self.create_suite("raw_market_data")

    def create_suite(self, contract_id: str, *, live: bool = False) -> ExpectationSuite:
        """Create a contract's suite, or create it anew, and keep it in the context.

        Args:
            contract_id: the contract.
            live: with the check that the newest rows are there; the suite's name then ends in `_live`.

        Raises:
            ContractError: no such contract, one of its rules can never work, or the stored suite cannot be read.
        """
        contracts = load_contracts()
        if contract_id not in contracts:
            raise ContractError(f"no contract {contract_id!r}{_nearest(contract_id, list(contracts))}")
        from pipelines.data_quality.expectations import build_suite  # noqa: PLC0415 - takes 5 to 12 s
        from pipelines.data_quality.stored_suites import by_hand  # noqa: PLC0415 - imports it as well

        name = suite_name(contract_id, live=live)
        suite = build_suite(contracts[contract_id], name, live=live, by_hand=by_hand(self._path, contract_id))
        return self.context.suites.add_or_update(suite)

    def validate_dataframe(
        self, df: CheckedFrame, suite_name: str = MARKET_DATA_SUITE, *, live: bool = False
    ) -> ValidationOutcome:
        """Run a suite over a frame and write the rows that fail to the dead letter queue.

        Args:
            df: a pandas, Arrow or Spark frame with the contract's columns; those that storage adds may be absent.
                Columns of another type are read as the contract's type, and values that cannot be are failures.
            suite_name: `market_data_quality`, or another contract's suite.
            live: whether the newest rows have to be there, as long after they were due as the contract allows.

        Raises:
            ContractError: no such suite, the frame lacks required columns, or a check cannot be run.
            TypeError: the frame is of no known kind.
            OSError: the failed rows could not be written.
        """
        outcome = self.check(df, _contract_of(suite_name), live=live)
        data_quality_checks_total.labels(suite=outcome.suite, status="passed" if outcome else "failed").inc()
        if not outcome:
            logger.warning(
                "%s: %d of %d rows failed (%s); see %s",
                outcome.suite,
                outcome.failed_rows,
                outcome.total_rows,
                ", ".join(f"{reason}: {count}" for reason, count in outcome.reasons.items()),
                outcome.dlq_file,
            )
        return outcome

    def check(self, df: CheckedFrame, contract: Contract, *, live: bool = False) -> ValidationOutcome:
        """Do what `validate_dataframe` does for a contract's suite, but neither log nor count the outcome."""
        frame = _checkable(df, contract, self._signals, live=live)
        try:
            return self._validate(frame, self._suite(contract, live=live), contract, spark=_is_spark(df))
        finally:
            frame.close()

    def _validate(
        self, frame: CheckableFrame, suite: ExpectationSuite, contract: Contract, *, spark: bool
    ) -> ValidationOutcome:
        from pipelines.data_quality.expectations import check_result, run  # noqa: PLC0415 - takes 5 to 12 s

        results = run(self.context, suite, frame.native(), spark=spark)
        failures = frame.failures() if any(not result.success for result in results) else Failures()
        dlq_file = None
        if failures.rows:
            context = {"suite": suite.name, "dataset": contract.id, **failures.shared}
            dlq_file = self._dlq.write("schema_validation_failed", context, frame.refused())
        checks = tuple(check_result(result, failures.by_check) for result in results)
        return ValidationOutcome(
            suite=suite.name,
            success=not failures.rows and all(check.success for check in checks if check.severity == "critical"),
            total_rows=frame.total,
            failed_rows=failures.rows,
            reasons=failures.reasons,
            checks=checks,
            dlq_file=dlq_file,
            results=results,
        )

    def _suite(self, contract: Contract, *, live: bool) -> ExpectationSuite:
        """Return the suite in the context, with what a user added to it, or create it."""
        name = suite_name(contract.id, live=live)
        kept = next((suite for suite in self.context.suites.all() if suite.name == name), None)
        return kept or self.create_suite(contract.id, live=live)


def suite_name(contract_id: str, *, live: bool = False) -> str:
    """Return the name of a contract's suite: raw_market_data has market_data_quality, and market_data_quality_live."""
    return f"{contract_id.removeprefix('raw_')}_quality{_LIVE if live else ''}"


def _contract_of(name: str) -> Contract:
    by_suite = {suite_name(contract.id): contract for contract in load_contracts().values()}
    if name not in by_suite:
        raise ContractError(f"no suite {name!r}{_nearest(name, list(by_suite))}")
    return by_suite[name]


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=2)
    return f"; did you mean {' or '.join(close)}?" if close else f"; known: {', '.join(known)}"


def _is_spark(df: object) -> bool:
    return type(df).__module__.startswith("pyspark.")


def _checkable(df: CheckedFrame, contract: Contract, signals: SignalSettings, *, live: bool) -> CheckableFrame:
    if _is_spark(df):
        from pipelines.data_quality.spark_frame import SparkFrame  # noqa: PLC0415 - only for a Spark frame

        return SparkFrame(cast("DataFrame", df), contract, live=live, signals=signals)
    if isinstance(df, pa.Table):
        return LocalFrame(df, contract, live=live, signals=signals)
    if type(df).__module__.startswith("pandas."):
        return LocalFrame(arrow_from_pandas(cast("pd.DataFrame", df)), contract, live=live, signals=signals)
    raise TypeError(f"cannot validate a {type(df).__name__}; give a pandas, Arrow or Spark frame")
