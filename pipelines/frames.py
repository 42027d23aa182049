"""Frames of pandas, Arrow or Spark as Arrow tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import pyarrow as pa

from pipelines.errors import ContractError

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

    Frame: TypeAlias = pd.DataFrame | pa.Table | pa.RecordBatch | DataFrame


def as_arrow(df: Frame) -> pa.Table:
    """Return a pandas, Arrow or Spark frame as an Arrow table; the rows are held in memory.

    Raises:
        ContractError: a column occurs twice.
        TypeError: the frame is of no known kind.
    """
    module = type(df).__module__
    if isinstance(df, pa.RecordBatch):
        table = pa.Table.from_batches([df])
    elif isinstance(df, pa.Table):
        table = df
    elif module.startswith("pyspark."):
        table = cast("DataFrame", df).toArrow()
    elif module.startswith("pandas."):
        frame = cast("pd.DataFrame", df)
        _refuse_twins([str(name) for name in frame.columns])
        table = arrow_from_pandas(frame)
    else:
        raise TypeError(f"cannot merge a {type(df).__name__}; give a pandas, Arrow or Spark frame")
    _refuse_twins(table.column_names)
    return table


def _refuse_twins(names: Sequence[str]) -> None:
    twins = sorted({name for name in names if list(names).count(name) > 1})
    if twins:
        raise ContractError(f"the rows have {', '.join(twins)} more than once")


def arrow_from_pandas(frame: pd.DataFrame) -> pa.Table:
    """Return a pandas frame as Arrow; a column of mixed types, or of loose times, becomes text."""
    return pa.table({str(name): _arrow_column(frame[name]) for name in frame.columns})


def _arrow_column(values: pd.Series[Any]) -> pa.Array:
    if values.dtype == object and any(isinstance(value, datetime) for value in values):
        # Arrow would take a zoneless time beside a zoned one for UTC.
        return _as_text(values)
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, TypeError, OverflowError):
        return _as_text(values)


def _as_text(values: pd.Series[Any]) -> pa.Array:
    def text(value: object) -> str:
        return value.isoformat() if isinstance(value, date) else str(value)

    absent = values.isna()
    return pa.array([None if gone else text(value) for value, gone in zip(values, absent, strict=True)], pa.string())
