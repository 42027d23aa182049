"""All indicator columns of a run of bars, from the beginning or from a stored row on, as Arrow."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from pipelines.transform.indicators import momentum, returns, trend, volatility, volume
from pipelines.transform.indicators.bars import Bars, Results, Values
from pipelines.transform.indicators.series import SeriesContext
from pipelines.transform.indicators.spec import COLUMNS, IndicatorColumn


def compute_columns(bars: Bars, series: SeriesContext, last: Mapping[str, float] | None = None) -> list[pa.Array]:
    """Return the columns of `COLUMNS` for the bars after the known ones.

    Args:
        bars: at least one bar; the known ones in front reach as far back as the longest window.
        series: the bars' instrument and timeframe.
        last: the stored values at the last known bar, null as NaN; None to begin.
    """
    log_return = returns.log_returns(bars)
    hist_volatility = volatility.historical_volatility(log_return, series.bars_per_year)
    results: Results = {
        **trend.simple_averages(bars),
        **trend.exponential_averages(bars, last),
        **momentum.relative_strength(bars, last),
        **volatility.bollinger_bands(bars),
        **trend.directional_movement(bars, last),
        **volatility.average_true_range(bars, last),
        **momentum.rates_of_change(bars),
        "hist_volatility_20": hist_volatility,
        **volume.volume_lines(bars, last),
        **volume.session_vwap(bars, series, last),
        "log_return": log_return,
        **returns.cumulative_returns(bars, last),
    }
    results["market_regime"] = volatility.market_regime(hist_volatility, results["adx_14"])
    return [_as_arrow(column, results[column.name][bars.known :]) for column in COLUMNS]


def _as_arrow(column: IndicatorColumn, values: Values) -> pa.Array:
    # Not one value may be NaN or infinite: SQL takes both for numbers.
    undefined = ~np.isfinite(values)
    if column.name == "market_regime":
        codes = pa.array(np.where(undefined, 0, values).astype(np.int8), mask=undefined)
        return pa.DictionaryArray.from_arrays(codes, list(volatility.REGIMES)).cast(pa.string())
    return pa.array(values, mask=undefined)
