"""Signs that a price may be wrong though each bar is sound: spikes, prices that stand still, time that goes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import polars as pl

from pipelines.config import QualitySettings

# What makes bars a series, what `find` reads of them, and what it gives back.
SERIES = ("asset_pair", "timeframe", "provider")
PRICES = ("open", "high", "low", "close")
SCHEMA = {"row": pl.Int64(), "spike_score": pl.Float64(), "flat_run": pl.Int64(), "goes_back": pl.Boolean()}

_NEIGHBOURS = 3
_WINDOW = 2 * _NEIGHBOURS + 1
_SCALE_BARS = 241
_FEWEST_BARS = 120
# Makes the median absolute deviation, and the mean one, estimate the standard deviation of normal values.
_SIGMA_OF_MAD = 1.4826
_SIGMA_OF_MEAN = 1.2533
_USUAL_SCALES = 2.0
_BASIS_POINT = {False: 1e-4, True: 0.01}
# Trades at the edge of the book make wicks that are real; a close says where the market was.
_WICK_WEIGHT = 0.6
# No market closes for longer; what lies beyond is no neighbour.
_BREAK = pl.duration(days=7)


@dataclass(frozen=True, slots=True)
class SignalSettings:
    """Above which score a price is a spike, and from how many bars on a price that stands still is stale."""

    spike_score: float
    flat_run_bars: int

    @classmethod
    def of(cls, settings: QualitySettings) -> Self:
        """Return what the settings say."""
        return cls(settings.spike_score, settings.flat_run_bars)


USUAL = SignalSettings.of(QualitySettings())


def find(bars: pl.DataFrame, settings: SignalSettings = USUAL) -> pl.DataFrame:
    """Return the bars that give a sign, and nothing of the others.

    Spikes: the deviation of the log price (of the price itself where prices may be negative, as yields) from the
    centred rolling median of 7 bars, over a robust scale: 1.4826 times the rolling median absolute deviation of 241
    bars, and never below twice that of the whole series nor below a basis point. This is the identifier of Hampel
    (1974, "The influence curve and its role in robust estimation", JASA 69) with the modified z-score of Iglewicz and
    Hoaglin (1993, "How to detect and handle outliers"), whose mean absolute deviation stands in where the median one
    is zero. The score is the close's, or 0.6 times that of the high or low, whichever is larger. A price that moves
    and stays is near its median again within three bars, one that leaves and comes back is not. The first and last
    three bars of a series are not judged, as nobody knows whether the price comes back, nor is a series of fewer than
    120 bars.

    Stale prices: bars in a row whose open, high, low and close all are the close before; a bar with a volume of zero
    says itself that nothing was traded, and is none of them.

    Args:
        bars: sound bars with `row` (unique), `series` (a number for the values of `SERIES`), the columns of `PRICES`,
            `volume`, `at` (open, UTC), `known` (when the row became known; orders versions, null if unknown),
            `negative` (may prices be negative) and `origin` (rows of one origin came in the order of `row`; null if
            that order means nothing).
        settings: the limits.

    Returns:
        Columns as `SCHEMA`: `spike_score` (in robust sigmas) and `flat_run` (bars) are null below their limits.
    """
    bars = bars.sort("row")
    back = bars.filter(_goes_back()).select("row", goes_back=pl.lit(value=True))
    newest = _newest(bars)
    signs = newest.select("row", _spike_score(newest, settings), _flat_run(newest, settings)).filter(
        pl.col("spike_score").is_not_null() | pl.col("flat_run").is_not_null()
    )
    both = signs.join(back, on="row", how="full", coalesce=True)
    return both.select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())


def _goes_back() -> pl.Expr:
    return (pl.col("at") < pl.col("at").shift().over("series", "origin")) & pl.col("origin").is_not_null()


def _newest(bars: pl.DataFrame) -> pl.DataFrame:
    """Return the newest version of each bar, in order of time, with `part`: bars without a long break in between."""
    ordered = bars.sort("series", "at", "known", "row", nulls_last=False)
    last = pl.any_horizontal(pl.col(name) != pl.col(name).shift(-1) for name in ("series", "at")).fill_null(value=True)
    ordered = ordered.filter(last)
    breaks = (pl.col("at").diff() > _BREAK) | (pl.col("series") != pl.col("series").shift())
    return ordered.with_columns(part=breaks.fill_null(value=False).cum_sum())


def _spike_score(newest: pl.DataFrame, settings: SignalSettings) -> pl.Series:
    """Return the scores over the limit; the others are null."""
    level = {name: _level(name) for name in ("close", "high", "low")}
    off = newest.select(
        "series",
        "part",
        "negative",
        *(
            (value - value.rolling_median(_WINDOW, center=True).over("part")).abs().alias(name)
            for name, value in level.items()
        ),
    )
    spread = off.select(
        pl.max_horizontal(
            _SIGMA_OF_MAD * pl.col("close").rolling_median(_SCALE_BARS, center=True, min_samples=1).over("part"),
            _USUAL_SCALES * _usual_scale(),
            pl.when("negative").then(_BASIS_POINT[True]).otherwise(_BASIS_POINT[False]),
        )
    ).to_series()
    worst = pl.max_horizontal("close", _WICK_WEIGHT * pl.col("high"), _WICK_WEIGHT * pl.col("low"))
    score = worst / spread
    judged = (pl.len().over("series") >= _FEWEST_BARS) & (score > settings.spike_score)
    return off.select(spike_score=pl.when(judged).then(score)).to_series()


def _level(name: str) -> pl.Expr:
    price = pl.col(name)
    return pl.when("negative").then(price).when(price > 0).then(price.log())


def _usual_scale() -> pl.Expr:
    """Return the scale of the whole series."""
    median, mean = pl.col("close").median().over("series"), pl.col("close").mean().over("series")
    return pl.when(median > 0).then(_SIGMA_OF_MAD * median).otherwise(_SIGMA_OF_MEAN * mean)


def _flat_run(newest: pl.DataFrame, settings: SignalSettings) -> pl.Series:
    """Return the length of the flat run a bar belongs to, in bars; null if it is short or there is none."""
    before = pl.col("close").shift().over("part")
    still = pl.all_horizontal(pl.col(name) == before for name in PRICES) & pl.col("volume").ne_missing(0.0)
    flat = newest.select(flat=still.fill_null(value=False)).with_columns(run=pl.col("flat").rle_id())
    length = pl.col("flat").sum().over("run").cast(pl.Int64)
    long = pl.col("flat") & (length >= settings.flat_run_bars)
    return flat.select(flat_run=pl.when(long).then(length)).to_series()
