"""Log return, cumulative return and drawdown."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipelines.transform.indicators.bars import Bars, Results, Values
from pipelines.transform.indicators.windows import lagged


def log_returns(bars: Bars) -> Values:
    """Return ln(close / previous close); NaN unless both are above zero."""
    previous = lagged(bars.close, 1)
    defined = (previous > 0) & (bars.close > 0)
    change = np.divide(bars.close, previous, out=np.ones(len(bars)), where=defined)
    return np.where(defined, np.log(change), np.nan)


def cumulative_returns(bars: Bars, last: Mapping[str, float] | None) -> Results:
    """Return the return since the first bar, the highest close so far and the drawdown from it."""
    new = bars.close[bars.known :]
    first = float(bars.close[0]) if last is None else last["state_first_close"]
    high = np.maximum.accumulate(new if last is None else np.maximum(new, last["running_max"]))
    found = {
        "cumulative_return": new / first - 1 if first > 0 else np.full(new.size, np.nan),
        "running_max": high,
        "drawdown": np.divide(new, high, out=np.full(new.size, np.nan), where=high > 0) - 1,
        "state_first_close": np.full(new.size, first),
    }
    lead = np.full(bars.known, np.nan)
    return {name: np.concatenate([lead, values]) for name, values in found.items()}
