"""The indicator columns of silver bars: names, types, meanings and warm-up; docs and SQL types derive from it."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from pipelines.contracts import arrow_type

# How many stored rows a resumed computation reads: SMA 200 looks at 199 earlier closes, everything else at fewer.
STATE_BARS = 199


@dataclass(frozen=True, slots=True)
class IndicatorColumn:
    """One computed column.

    Attributes:
        name: the column.
        type: Spark DDL.
        description: formula, source and when it is null, beyond the warm-up.
        warm_up: bars before the first row that can have a value.
        is_state: kept only so that a later run can go on from the row.
    """

    name: str
    type: str
    description: str
    warm_up: int
    is_state: bool = False

    @property
    def arrow_type(self) -> pa.DataType:
        """The column's Arrow type."""
        return arrow_type(self.type)


def _number(name: str, warm_up: int, description: str) -> IndicatorColumn:
    return IndicatorColumn(name, "double", description, warm_up)


def _state(name: str, warm_up: int, description: str) -> IndicatorColumn:
    return IndicatorColumn(name, "double", description, warm_up, is_state=True)


COLUMNS: tuple[IndicatorColumn, ...] = (
    _number("sma_20", 19, "Mean of the last 20 closes."),
    _number("sma_50", 49, "Mean of the last 50 closes."),
    _number("sma_200", 199, "Mean of the last 200 closes."),
    _number("ema_12", 11, "Exponential mean of closes, weight 2/13, from the mean of the first 12 on."),
    _number("ema_26", 25, "Exponential mean of closes, weight 2/27, from the mean of the first 26 on."),
    _number(
        "rsi_14",
        14,
        "Relative strength index, Wilder 1978: 100 G / (G + L), with G and L the averages of gains and losses over 14 "
        "bars by Wilder's smoothing; null where nothing moved (0/0).",
    ),
    _number(
        "macd",
        33,
        "MACD line, Appel 1979: EMA 12 less EMA 26, both seeded at the 26th bar, in price units; as in TA-Lib, only "
        "from the bar on that has a signal.",
    ),
    _number("macd_signal", 33, "EMA 9 of the MACD line, from the mean of its first 9 values on."),
    _number("macd_hist", 33, "MACD line less its signal."),
    _number("bb_upper", 19, "Bollinger 2001: middle band plus two population standard deviations of 20 closes."),
    _number("bb_middle", 19, "Mean of the last 20 closes."),
    _number("bb_lower", 19, "Bollinger 2001: middle band less two population standard deviations of 20 closes."),
    _number("bb_width", 19, "(upper - lower) / middle, a fraction; null unless the middle band is above zero."),
    _number("percent_b", 19, "(close - lower) / (upper - lower); null where the 20 closes are one price (0/0)."),
    _number(
        "adx_14",
        27,
        "Average directional index, Wilder 1978: the smoothed DX = 100 |+DM - -DM| / (+DM + -DM). It starts at the "
        "mean of 14; a bar whose DX is 0/0 adds nothing to that mean, later leaves the index as it is, and shows null.",
    ),
    _number(
        "plus_di_14",
        14,
        "+DI, Wilder 1978: 100 +DM / TR, both Wilder sums over 14 bars; null where the range is nothing (0/0).",
    ),
    _number(
        "minus_di_14",
        14,
        "-DI, Wilder 1978: 100 -DM / TR, both Wilder sums over 14 bars; null where the range is nothing (0/0).",
    ),
    _number("atr_14", 14, "Average true range, Wilder 1978: Wilder's average of 14, in price units."),
    _number(
        "roc_10", 10, "Rate of change, percent: 100 (close / close 10 bars ago - 1); null unless that was above zero."
    ),
    _number("mom_10", 10, "Momentum: close less the close 10 bars ago."),
    _number(
        "hist_volatility_20",
        20,
        "Annualised historical volatility, a fraction (Hull): the sample standard deviation of the last 20 log returns "
        "times the root of the bars in a year: 365 days where trading never stops, 260 days of 24 h on forex, 252 "
        "sessions of the calendar's usual length on an exchange; a daily bar counts as one day or session. Null if one "
        "of the returns is.",
    ),
    _number(
        "obv",
        0,
        "On-balance volume, Granville 1963: the running sum of the volume, signed by the change of the close, from the "
        "first bar's volume on. A bar without volume adds nothing; null until the first that has one.",
    ),
    _number(
        "ad_line",
        0,
        "Accumulation/distribution line, Chaikin: the running sum of volume times ((close - low) - (high - close)) / "
        "(high - low). A bar without range or volume adds nothing; null until the first bar that has a volume.",
    ),
    _number(
        "session_vwap",
        0,
        "Volume-weighted mean of (high + low + close) / 3 since the session began: the UTC day where trading never "
        "stops, the week on forex, the exchange's session (lunch break included), and each daily bar for itself. A bar "
        "that overlaps two sessions is the first one's. Null outside sessions and while the session has no volume.",
    ),
    _number("log_return", 1, "ln(close / previous close); null unless both are above zero."),
    _number("cumulative_return", 0, "close / first close - 1, a fraction; null unless the first close is above zero."),
    _number("running_max", 0, "Highest close so far."),
    _number("drawdown", 0, "close / highest close so far - 1, never above zero; null unless that is above zero."),
    IndicatorColumn(
        "market_regime",
        "string",
        "volatile: hist_volatility_20 is above that of at least 90 of the 99 bars before, by more than a part in 10^9; "
        "else trend: adx_14 is at least 25, Wilder's mark of a trend; else range. Null while one of the 100 "
        "volatilities or adx_14 is.",
        119,
    ),
    _state("state_avg_gain_14", 14, "Wilder's average gain behind rsi_14."),
    _state("state_avg_loss_14", 14, "Wilder's average loss behind rsi_14."),
    _state("state_true_range_14", 13, "Wilder's sum of true ranges behind plus_di_14 and minus_di_14."),
    _state("state_plus_dm_14", 13, "Wilder's sum of upward directional movement behind plus_di_14."),
    _state("state_minus_dm_14", 13, "Wilder's sum of downward directional movement behind minus_di_14."),
    _state("state_adx_14", 27, "adx_14, also where that shows null."),
    _state("state_first_close", 0, "Close of the series' first bar, behind cumulative_return."),
    _state("state_session_value", 0, "Sum of typical price times volume in the session, behind session_vwap."),
    _state("state_session_volume", 0, "Sum of the volume in the session, behind session_vwap."),
)


def ddl() -> str:
    """Return the columns as Spark DDL, for the result type of a table function: "sma_20 double, ..."."""
    return ", ".join(f"{column.name} {column.type}" for column in COLUMNS)


def arrow_schema() -> pa.Schema:
    """Return the columns as an Arrow schema; all may be null."""
    return pa.schema([pa.field(column.name, column.arrow_type) for column in COLUMNS])
