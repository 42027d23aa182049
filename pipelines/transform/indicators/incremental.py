"""Indicators of new bars, continued from stored rows: equal to those of the whole history, at the new bars' cost."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from pipelines.errors import ContractError
from pipelines.transform.indicators.bars import Bars, numbers
from pipelines.transform.indicators.columns import compute_columns
from pipelines.transform.indicators.full import compute, with_columns
from pipelines.transform.indicators.series import SeriesContext
from pipelines.transform.indicators.spec import COLUMNS, STATE_BARS

# Null as long as no bar had a volume.
_MAY_BE_NULL = frozenset({"obv", "ad_line"})
_LAST = tuple(
    column.name
    for column in COLUMNS
    if column.is_state
    or column.name in {"ema_12", "ema_26", "macd", "macd_signal", "atr_14", "obv", "ad_line", "running_max"}
)


def resume(before: pa.Table, bars: pa.Table, series: SeriesContext) -> pa.Table:
    """Return new bars with the columns of `COLUMNS`, as `compute` of the whole history would give them.

    Windows look at the last `STATE_BARS` stored bars; recursions go on from the values stored with the last, never
    from a warm-up, so that no history is too flat or too long. Values differ from those of `compute` by no more than
    1e-9 max(1, |value|), which is rounding.

    Args:
        before: the last `STATE_BARS` rows, or more, of what `compute` or `resume` returned for the bars before; all of
            them if they are fewer.
        bars: what comes after, without a bar left out: columns as for `compute`.
        series: the bars' instrument and timeframe.

    Raises:
        ContractError: as for `compute`; or a stored row lacks the state to go on from.
        ConfigError: the instrument names an unknown calendar.
    """
    absent = [name for name in (*bars.column_names, *_LAST) if name not in before.column_names]
    if absent:
        raise ContractError(f"the stored rows lack {', '.join(absent)}; compute the whole history again")
    if before.num_rows < STATE_BARS:
        return compute(pa.concat_tables([_plain(before, bars), bars]), series).slice(before.num_rows)
    if not bars.num_rows:
        return compute(bars, series)
    tail = before.slice(before.num_rows - STATE_BARS)
    joined = Bars.of(pa.concat_tables([_plain(tail, bars), bars]), known=STATE_BARS)
    return with_columns(bars, compute_columns(joined, series, _last_values(tail)))


def _plain(stored: pa.Table, bars: pa.Table) -> pa.Table:
    return stored.select(bars.column_names).cast(bars.schema)


def _last_values(tail: pa.Table) -> Mapping[str, float]:
    last = {name: float(numbers(tail.slice(tail.num_rows - 1), name)[0]) for name in _LAST}
    lost = [name for name, value in last.items() if np.isnan(value) and name not in _MAY_BE_NULL]
    if lost:
        when = tail.column("timestamp")[-1]
        raise ContractError(f"{', '.join(lost)} is null in the stored bar of {when}; compute the whole history again")
    return last
