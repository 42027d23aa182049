"""The Great Expectations side: a contract's checks as a suite, and how a frame is run against it. Slow to import."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

import great_expectations as gx
import pandas as pd
import polars as pl
import pyarrow as pa
from great_expectations.core.batch_definition import BatchDefinition
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.core.metric_domain_types import MetricDomainTypes
from great_expectations.core.metric_function_types import MetricPartialFunctionTypes
from great_expectations.data_context.data_context.ephemeral_data_context import EphemeralDataContext
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)
from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine
from great_expectations.execution_engine.sparkdf_execution_engine import SparkDFExecutionEngine
from great_expectations.expectations.core.expect_column_values_to_be_between import ExpectColumnValuesToBeBetween
from great_expectations.expectations.core.expect_column_values_to_be_in_set import ExpectColumnValuesToBeInSet
from great_expectations.expectations.core.expect_column_values_to_not_be_null import ExpectColumnValuesToNotBeNull
from great_expectations.expectations.expectation import ColumnMapExpectation, Expectation
from great_expectations.expectations.metrics.map_metric_provider.column_condition_partial import (
    column_condition_partial,
)
from great_expectations.expectations.metrics.map_metric_provider.column_map_metric_provider import (
    ColumnMapMetricProvider,
)
from great_expectations.expectations.metrics.metric_provider import metric_partial

from pipelines.contracts import Contract
from pipelines.data_quality.checks import Check, checks_for, holds, rule_columns
from pipelines.errors import ContractError

if TYPE_CHECKING:
    from pyspark.sql import Column as SparkColumn
    from pyspark.sql import DataFrame

_LARGEST = 1.7976931348623157e308


class RowsSatisfyRule(ColumnMapMetricProvider):
    """Says of each row whether an SQL rule holds; a rule that is null for a row holds.

    As a metric of one column it is counted together with all others in one pass; Great Expectations counts metrics of
    several columns one by one.
    """

    condition_metric_name = "column_values.satisfy_row_rule"
    condition_value_keys = ("rule",)
    filter_column_isnull = False

    @metric_partial(
        engine=PandasExecutionEngine,
        partial_fn_type=MetricPartialFunctionTypes.MAP_CONDITION_SERIES,
        domain_type=MetricDomainTypes.COLUMN,
    )
    def _pandas(
        cls,  # noqa: N805 - a class method by its decorator
        execution_engine: PandasExecutionEngine,
        metric_domain_kwargs: dict[str, object],
        metric_value_kwargs: dict[str, str],
        metrics: dict[str, object],  # noqa: ARG002
        runtime_configuration: dict[str, object],  # noqa: ARG002
    ) -> tuple[pd.Series[bool], dict[str, object], dict[str, object]]:
        rows, compute, accessor = execution_engine.get_compute_domain(metric_domain_kwargs, MetricDomainTypes.COLUMN)
        rule = metric_value_kwargs["rule"]
        read = rows[rule_columns(rule)]
        frame = pl.DataFrame(pa.Table.from_pandas(read, preserve_index=False))
        floats = [name for name, dtype in frame.schema.items() if dtype.is_float()]
        good = frame.select(pl.sql_expr(holds(rule, floats)).fill_null(value=True)).to_series()
        return pd.Series(~good.to_numpy(), index=rows.index), compute, accessor

    @column_condition_partial(engine=SparkDFExecutionEngine)
    def _spark(cls, column: SparkColumn, rule: str, _table: DataFrame, **_: object) -> SparkColumn:  # noqa: ARG002, N805
        from pyspark.sql import functions as F  # noqa: N812, PLC0415 - only for Spark frames

        read = set(rule_columns(rule))
        floats = [name for name, kind in _table.dtypes if kind == "double" and name in read]
        return F.coalesce(F.expr(holds(rule, floats)), F.lit(True))


class ExpectRowsToSatisfyRule(ColumnMapExpectation):
    """Expect each row to satisfy an SQL rule, which Spark, pandas and Delta constraints read alike."""

    rule: str
    map_metric: ClassVar[str | None] = "column_values.satisfy_row_rule"
    success_keys: ClassVar[tuple[str, ...]] = ("rule", "mostly")
    args_keys: ClassVar[tuple[str, ...]] = ("column", "rule")


def ephemeral_context() -> EphemeralDataContext:
    """Return a context that lives in memory, writes no file and shows no progress."""
    # By default it makes a temporary folder for documents and leaves it behind.
    stores = InMemoryStoreBackendDefaults(init_temp_docs_sites=False)
    bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    return gx.get_context(
        mode="ephemeral", project_config=DataContextConfig(store_backend_defaults=stores, progress_bars=bars)
    )


def build_suite(contract: Contract, name: str) -> gx.ExpectationSuite:
    """Return a contract's checks as a suite; each expectation's meta names the reason its rows are told."""
    return gx.ExpectationSuite(
        name=name,
        expectations=[_expectation(check) for check in checks_for(contract)],
        meta={"contract": contract.id, "contract_version": contract.version},
    )


def run(
    context: EphemeralDataContext, suite: gx.ExpectationSuite, frame: object, *, spark: bool
) -> list[ExpectationValidationResult]:
    """Run a suite over a pandas or Spark frame and return the result of each expectation.

    Raises:
        ContractError: a check could not be run.
    """
    name = f"frame_{uuid4().hex}"
    sources = context.data_sources
    asset = (
        sources.add_spark(name, persist=False).add_dataframe_asset("frame")
        if spark
        else sources.add_pandas(name).add_dataframe_asset("frame")
    )
    try:
        definition: BatchDefinition[Any] = asset.add_batch_definition_whole_dataframe("whole")
        batch = definition.get_batch({"dataframe": frame})
        outcome = batch.validate(suite, result_format="BOOLEAN_ONLY")
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


def _exceptions(info: Mapping[str, Any]) -> Iterator[str]:
    if info.get("raised_exception"):
        yield str(info.get("exception_message"))
    for part in info.values():
        if isinstance(part, Mapping):
            yield from _exceptions(part)


def _expectation(check: Check) -> Expectation:
    shared: dict[str, Any] = {"severity": check.severity, "meta": {"reason": check.reason}}
    if check.kind == "not_null":
        return ExpectColumnValuesToNotBeNull(column=check.columns[0], **shared)
    if check.kind == "in_set":
        return ExpectColumnValuesToBeInSet(column=check.columns[0], value_set=list(check.allowed), **shared)
    if check.kind == "finite":
        # NaN lies above every number in both engines, so the bounds catch it as they catch infinity.
        return ExpectColumnValuesToBeBetween(column=check.columns[0], min_value=-_LARGEST, max_value=_LARGEST, **shared)
    return ExpectRowsToSatisfyRule(column=check.columns[0], rule=check.rule, **shared)
