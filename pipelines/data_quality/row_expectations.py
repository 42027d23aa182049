"""Expectations of our own, which Great Expectations counts in one pass with its own ones. Slow to import."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from great_expectations.core.metric_domain_types import MetricDomainTypes
from great_expectations.core.metric_function_types import MetricPartialFunctionTypes
from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine
from great_expectations.execution_engine.sparkdf_execution_engine import SparkDFExecutionEngine
from great_expectations.expectations.expectation import ColumnMapExpectation
from great_expectations.expectations.metadata_types import FailureSeverity
from great_expectations.expectations.metrics.map_metric_provider.column_condition_partial import (
    column_condition_partial,
)
from great_expectations.expectations.metrics.map_metric_provider.column_map_metric_provider import (
    ColumnMapMetricProvider,
)
from great_expectations.expectations.metrics.metric_provider import metric_partial
from great_expectations.render.components import LegacyRendererType, RenderedStringTemplateContent
from great_expectations.render.renderer.renderer import renderer

from pipelines.data_quality.checks import holds
from pipelines.rules import rule_columns

if TYPE_CHECKING:
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
    from pyspark.sql import Column as SparkColumn
    from pyspark.sql import DataFrame


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

    @classmethod
    @renderer(renderer_type=LegacyRendererType.PRESCRIPTIVE)
    def _prescriptive_renderer(
        cls,
        configuration: ExpectationConfiguration | None = None,
        result: ExpectationValidationResult | None = None,  # noqa: ARG003
        runtime_configuration: dict[str, object] | None = None,  # noqa: ARG003
    ) -> list[RenderedStringTemplateContent]:
        if configuration is None:
            return []
        reason = (configuration.meta or {}).get("reason")
        told = "no row is blamed for “$reason”: $rule" if reason else "$rule"
        grave = configuration.severity == FailureSeverity.CRITICAL
        return _sentence(
            told if grave else f"$severity: {told}",
            reason=reason,
            rule=configuration.kwargs["rule"],
            severity=configuration.severity.value,
        )


class ValuesAreFinite(ColumnMapMetricProvider):
    """Says of each number whether it is neither NaN nor infinite; a null is no number.

    Great Expectations' own bounds ask a Python function about each value: five seconds for two million of them.
    """

    condition_metric_name = "column_values.finite"

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series[float], **_: object) -> pd.Series[bool]:  # noqa: N805
        finite: pd.Series[bool] = pd.Series(
            np.isfinite(column.to_numpy(dtype="float64")), index=column.index, dtype=bool
        )
        return finite

    @column_condition_partial(engine=SparkDFExecutionEngine)
    def _spark(cls, column: SparkColumn, **_: object) -> SparkColumn:  # noqa: N805
        from pyspark.sql import functions as F  # noqa: N812, PLC0415 - only for Spark frames

        return F.abs(column) < F.lit(float("inf"))


class ExpectColumnValuesToBeFinite(ColumnMapExpectation):
    """Expect each number of a column to be neither NaN nor infinite."""

    map_metric: ClassVar[str | None] = "column_values.finite"
    success_keys: ClassVar[tuple[str, ...]] = ("mostly",)
    args_keys: ClassVar[tuple[str, ...]] = ("column",)

    @classmethod
    @renderer(renderer_type=LegacyRendererType.PRESCRIPTIVE)
    def _prescriptive_renderer(
        cls,
        configuration: ExpectationConfiguration | None = None,
        result: ExpectationValidationResult | None = None,  # noqa: ARG003
        runtime_configuration: dict[str, object] | None = None,  # noqa: ARG003
    ) -> list[RenderedStringTemplateContent]:
        if configuration is None:
            return []
        return _sentence("$column holds finite numbers.", column=configuration.kwargs["column"])


def _sentence(template: str, **params: object) -> list[RenderedStringTemplateContent]:
    """Return a line of Data Docs; values stand out, and are escaped by Great Expectations."""
    styling = {"default": {"classes": ["value"]}}
    return [
        RenderedStringTemplateContent(
            content_block_type="string_template",
            string_template={"template": template, "params": params, "styling": styling},
        )
    ]
