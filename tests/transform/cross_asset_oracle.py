"""Cross-asset models in plain pandas and NumPy, written from the columns' descriptions: one window after the other.

No rolling sums: every figure is of its own window alone, by two passes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

WINDOWS = (30, 90)
LONGEST_SPAN = pd.Timedelta(days=7)
DAY = pd.Timedelta(days=1)
STILL = 1e-12
SERIES = {"DGS3MO": "3m", "DGS2": "2y", "DGS5": "5y", "DGS10": "10y", "DGS30": "30y"}
INDICES = {"^IRX": "3m", "^FVX": "5y", "^TNX": "10y", "^TYX": "30y"}
SLOPES = (("10y", "2y"), ("10y", "3m"), ("30y", "5y"))

Floats = np.ndarray[Any, np.dtype[np.float64]]


def cross_asset_pairs(bars: pd.DataFrame, classes: Mapping[str, str]) -> pd.DataFrame:
    """The model's rows.

    Args:
        bars: daily ones, `asset_pair`, `timestamp` and `close`, each once.
        classes: asset class by asset pair.
    """
    closes = {str(name): rows.set_index("timestamp")["close"] for name, rows in bars.groupby("asset_pair")}
    found = [_pair(one, other, closes, classes) for one, other in itertools.combinations(sorted(closes), 2)]
    return pd.concat([rows for rows in found if len(rows)], ignore_index=True)


def _pair(one: str, other: str, closes: Mapping[str, pd.Series], classes: Mapping[str, str]) -> pd.DataFrame:
    both = pd.concat([closes[one], closes[other]], axis=1, join="inner", keys=["close", "other_close"]).sort_index()
    days = pd.Series(both.index, index=both.index)
    before = days.shift().where(days - days.shift() <= LONGEST_SPAN)
    yields = [classes[name] == "bond" for name in (one, other)]
    change = _changes(both["close"], is_yield=yields[0])
    other_change = _changes(both["other_close"], is_yield=yields[1])
    defined = before.notna() & change.notna() & other_change.notna()
    spread = pd.Series(np.nan, index=both.index)
    if all(yields):
        spread = both["close"] - both["other_close"]
    elif not any(yields):
        spread = _log_ratio(both["close"], both["other_close"])
    rows = both.assign(
        asset_pair=one, other_pair=other, timestamp=both.index, closed_at=both.index + DAY,
        changed_since=before.where(defined), change=change.where(defined), other_change=other_change.where(defined),
        spread=spread,
    ).reset_index(drop=True)  # fmt: skip
    values = rows[["change", "other_change", "spread"]].to_numpy()
    figures = [
        pd.DataFrame([_pair_figures(window, days) for window in _windows(rows["timestamp"], values, days)])
        for days in WINDOWS
    ]
    named = [each.add_suffix(f"_{days}d") for each, days in zip(figures, WINDOWS, strict=True)]
    return pd.concat([rows, *named], axis=1)


def _changes(close: pd.Series, *, is_yield: bool) -> pd.Series:
    return close - close.shift() if is_yield else _log_ratio(close, close.shift())


def _log_ratio(price: pd.Series, base: pd.Series) -> pd.Series:
    defined = (price > 0) & (base > 0)
    return pd.Series(np.log((price / base).where(defined)), index=price.index)


def _windows(times: pd.Series, values: Floats, days: int) -> Iterator[Floats]:
    """For each instant the values of its days, its own last."""
    for number, day in enumerate(times):
        yield values[int(times.searchsorted(day - days * DAY, side="right")) : number + 1]


def _pair_figures(window: Floats, days: int) -> dict[str, float]:
    one, other = window[~np.isnan(window[:, 0]), :2].T
    spreads = window[~np.isnan(window[:, 2]), 2]
    zscore = np.nan
    if len(spreads) >= days // 2 and np.std(spreads, ddof=1) >= STILL:
        zscore = (window[-1, 2] - np.mean(spreads)) / np.std(spreads, ddof=1)
    return {
        "observations": len(one), "spread_observations": len(spreads), "spread_zscore": zscore,
        "correlation": _correlation(one, other, days),
        "beta": _slope(one, other, days), "other_beta": _slope(other, one, days),
    }  # fmt: skip


def _correlation(one: Floats, other: Floats, days: int) -> float:
    if len(one) < days // 2 or min(np.std(one, ddof=1), np.std(other, ddof=1)) < STILL:
        return np.nan
    return float(np.corrcoef(one, other)[0, 1])


def _slope(of: Floats, on: Floats, days: int) -> float:
    if len(of) < days // 2 or np.std(on, ddof=1) < STILL:
        return np.nan
    return float(np.polyfit(on, of, 1)[0])


def crypto_equity_correlation(
    bars: pd.DataFrame, classes: Mapping[str, str], quotes: Mapping[str, str]
) -> pd.DataFrame:
    """The model's rows; `quotes` has the quote currency by asset pair."""
    bars = bars[bars["close"] > 0]
    bars = bars.assign(side=bars["asset_pair"].map(classes), quote_currency=bars["asset_pair"].map(quotes))
    bars = bars[bars["side"].isin(["crypto", "equity"])]
    found = []
    for currency, of_currency in bars.groupby("quote_currency"):
        table = of_currency.pivot_table(index="timestamp", columns="asset_pair", values="close")
        sides = {side: sorted(set(rows["asset_pair"])) for side, rows in of_currency.groupby("side")}
        if len(sides) < 2:
            continue
        table = table[table[sides["crypto"]].notna().any(axis=1) & table[sides["equity"]].notna().any(axis=1)]
        rows = pd.DataFrame(list(_index_days(table, sides)))
        figures: dict[str, list[float]] = {}
        for days in WINDOWS:
            values = rows[["crypto_return", "equity_return"]].to_numpy()
            pairs = [window[~np.isnan(window[:, 0])] for window in _windows(rows["timestamp"], values, days)]
            figures[f"observations_{days}d"] = [len(pair) for pair in pairs]
            figures[f"correlation_{days}d"] = [_correlation(pair[:, 0], pair[:, 1], days) for pair in pairs]
        found.append(rows.assign(quote_currency=currency, **figures))
    return pd.concat(found, ignore_index=True)


def _index_days(table: pd.DataFrame, sides: Mapping[str, list[str]]) -> Iterator[dict[str, Any]]:
    previous = None
    for day, closes in table.iterrows():
        row: dict[str, Any] = {"timestamp": day, "closed_at": day + DAY, "crypto_assets": 0, "equity_assets": 0,
                               "changed_since": pd.NaT, "crypto_return": np.nan, "equity_return": np.nan}  # fmt: skip
        if previous is not None and day - previous <= LONGEST_SPAN:
            ratios = {side: (closes[names] / table.loc[previous, names]).dropna() for side, names in sides.items()}
            row |= {f"{side}_assets": len(ratio) for side, ratio in ratios.items()}
            if all(len(ratio) for ratio in ratios.values()):
                row |= {f"{side}_return": np.log(ratio.mean()) for side, ratio in ratios.items()}
                row["changed_since"] = previous
        yield row
        previous = day


def yield_curve(bars: pd.DataFrame, macro: pd.DataFrame) -> pd.DataFrame:
    """The model's rows.

    Args:
        bars: as above.
        macro: `series_id`, `timestamp`, `value`, `ingested_at`; all versions.
    """
    versions = macro[macro["series_id"].isin(SERIES)].sort_values("ingested_at")
    newest = versions.drop_duplicates(["series_id", "timestamp"], keep="last")
    levels: dict[pd.Timestamp, dict[str, tuple[float, str, pd.Timestamp]]] = {}
    for bar in bars[bars["asset_pair"].isin(INDICES)].itertuples():
        levels.setdefault(bar.timestamp, {})[INDICES[bar.asset_pair]] = (bar.close, "bars", bar.timestamp + DAY)
    for each in newest[newest["value"].notna()].itertuples():
        levels.setdefault(each.timestamp, {})[SERIES[each.series_id]] = (each.value, "macro", each.ingested_at)
    return pd.DataFrame([_curve(day, of_day) for day, of_day in levels.items()])


def _curve(day: pd.Timestamp, levels: Mapping[str, tuple[float, str, pd.Timestamp]]) -> dict[str, Any]:
    row: dict[str, Any] = {"timestamp": day, "known_at": max(known_at for _, _, known_at in levels.values())}
    for tenor in SERIES.values():
        row[f"yield_{tenor}"], row[f"source_{tenor}"], _ = levels.get(tenor, (np.nan, None, None))
    for long, short in SLOPES:
        slope = row[f"yield_{long}"] - row[f"yield_{short}"]
        row[f"slope_{long}_{short}"] = slope
        row[f"is_inverted_{long}_{short}"] = None if np.isnan(slope) else slope < 0
    return row
