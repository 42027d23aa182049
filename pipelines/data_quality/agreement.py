"""How far providers agree: bars that two of them have for the same instant, compared price by price.

The deviation of two prices a and b is 10,000 * |a - b| / max(|a|, |b|) basis points: it is the same either way round,
0 for equal prices and finite for all, also around zero, as yields are. Volume is not compared: it is each venue's own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from typing import TYPE_CHECKING, Any

import polars as pl

from pipelines.contracts import load_contracts
from pipelines.data_quality.series_reading import Held, Span, Wanted, held_by_asset, newest, read_series, slices
from pipelines.sources.base import MARKET_DATA

if TYPE_CHECKING:
    from pipelines.intervals import Interval
    from pipelines.storage import DeltaLakeManager
    from pipelines.timeframes import Timeframe

WORST_SHOWN = 20
_PRICES = ("open", "high", "low", "close")
_COLUMNS = ("timestamp", *_PRICES, "provider", "price_side", "is_adjusted", "ingested_at")
_OTHER = "_other"
_CLOSE_BP, _WORST_BP = "close_bp", "worst_bp"


@dataclass(frozen=True, slots=True)
class Deviation:
    """A bar on which two providers differ: its open (aware UTC), both closes, and basis points.

    `bp` is of the closes, `worst_bp` of whichever of open, high, low and close differs most.
    """

    timestamp: datetime
    close: float
    other_close: float
    bp: float
    worst_bp: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two providers agree on a series, newest versions only.

    Attributes:
        asset_pair: asset pair.
        timeframe: bar length, as "1h".
        provider: the first of the two, by name.
        other: the second.
        bars: how many bars both have.
        median_bp: median deviation of close, in basis points; percentiles are interpolated linearly.
        p95_bp: its 95th percentile.
        p99_bp: its 99th percentile.
        max_bp: its maximum.
        beyond: bars whose closes differ by more than the tolerance.
        worst: the worst of these, worst first.
        ohlc_max_bp: largest deviation of open, high, low or close.
        remarks: what explains differences: other price sides, or only one of the two adjusted.
    """

    asset_pair: str
    timeframe: str
    provider: str
    other: str
    bars: int
    median_bp: float
    p95_bp: float
    p99_bp: float
    max_bp: float
    beyond: int
    worst: Sequence[Deviation]
    ohlc_max_bp: float
    remarks: Sequence[str] = ()

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        names = ("asset_pair", "timeframe", "provider", "other", "bars", "median_bp", "p95_bp", "p99_bp", "max_bp")
        return {
            **{name: getattr(self, name) for name in names},
            "ohlc_max_bp": self.ohlc_max_bp,
            "beyond": self.beyond,
            "remarks": list(self.remarks),
            "worst": [
                {
                    "timestamp": each.timestamp.isoformat(),
                    "close": each.close,
                    "other_close": each.other_close,
                    "bp": each.bp,
                    "worst_bp": each.worst_bp,
                }
                for each in self.worst
            ],
        }


def agreement(
    manager: DeltaLakeManager,
    *,
    assets: Sequence[str] | None = None,
    timeframes: Sequence[Timeframe] | None = None,
    interval: Interval | None = None,
    tolerance_bp: float | None = None,
    worst: int = WORST_SHOWN,
) -> list[Agreement]:
    """Compare every two providers that have bars of the same series.

    Bars are read piece by piece; of one series at a time, the deviations of shared bars are held.

    Args:
        manager: the lake.
        assets: asset pairs as registered; all by default.
        timeframes: bar lengths; all by default.
        interval: opens of the bars; all by default.
        tolerance_bp: deviation of close that is still agreement; `quality.tolerance_bp` of the settings by default.
        worst: how many of the bars beyond it to list.

    Returns:
        One entry for each series and two providers that share at least one bar, in order of asset and timeframe.

    Raises:
        StorageError: the lake cannot be read.
    """
    limit = manager.settings.quality.tolerance_bp if tolerance_bp is None else tolerance_bp
    contract = load_contracts()[MARKET_DATA]
    found: list[Agreement] = []
    for span in Wanted(assets, timeframes, interval).spans(contract):
        for asset, held in held_by_asset(manager, span).items():
            # Most series have one provider, and need not be read at all.
            if len(held.providers) > 1:
                found += _of_asset(manager, span, asset, held, limit, worst)
    return sorted(found, key=lambda each: each.asset_pair)


def _of_asset(
    manager: DeltaLakeManager, span: Span, asset: str, held: Held, limit: float, worst: int
) -> Iterator[Agreement]:
    shared: dict[tuple[str, str], list[pl.DataFrame]] = defaultdict(list)
    for piece in slices(span, held):
        bars = newest(read_series(manager, piece, asset, _COLUMNS), ("provider", "timestamp"))
        by_provider = bars.partition_by("provider", as_dict=True, include_key=False)
        parts = {str(key[0]): part for key, part in by_provider.items()}
        for one, other in combinations(sorted(parts), 2):
            compared = _compared(parts[one], parts[other])
            if compared.height:
                shared[one, other].append(compared)
    for providers, pieces in sorted(shared.items()):
        yield _summed(asset, span, providers, pl.concat(pieces), limit, worst)


def _compared(one: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    """Return the bars both have, with the deviation of close and the largest of all four prices in basis points."""
    both = one.join(other, on="timestamp", how="inner", suffix=_OTHER)
    deviations = {name: _deviation(pl.col(name), pl.col(name + _OTHER)) for name in _PRICES}
    tails = ("", _OTHER)
    return both.select(
        "timestamp",
        *(f"{name}{tail}" for name in ("close", "is_adjusted") for tail in tails),
        # Few words, repeated for each bar.
        *(pl.col(f"price_side{tail}").cast(pl.Categorical) for tail in tails),
        deviations["close"].alias(_CLOSE_BP),
        pl.max_horizontal(deviations.values()).alias(_WORST_BP),
    )


def _deviation(one: pl.Expr, other: pl.Expr) -> pl.Expr:
    larger = pl.max_horizontal(one.abs(), other.abs())
    return pl.when(one == other).then(0.0).otherwise((one - other).abs() / larger * 10_000)


def _summed(
    asset: str, span: Span, providers: tuple[str, str], shared: pl.DataFrame, limit: float, worst: int
) -> Agreement:
    beyond = shared.filter(pl.col(_CLOSE_BP) > limit)
    listed = beyond.sort([_CLOSE_BP, "timestamp"], descending=[True, False]).head(worst)
    bp = shared[_CLOSE_BP]
    return Agreement(
        asset_pair=asset,
        timeframe=span.timeframe.value,
        provider=providers[0],
        other=providers[1],
        bars=shared.height,
        median_bp=_number(bp.median()),
        p95_bp=_number(bp.quantile(0.95, "linear")),
        p99_bp=_number(bp.quantile(0.99, "linear")),
        max_bp=_number(bp.max()),
        beyond=beyond.height,
        worst=[
            Deviation(row["timestamp"], row["close"], row["close" + _OTHER], row[_CLOSE_BP], row[_WORST_BP])
            for row in listed.to_dicts()
        ],
        ohlc_max_bp=_number(shared[_WORST_BP].max()),
        remarks=list(_remarks(shared, providers)),
    )


def _remarks(shared: pl.DataFrame, providers: tuple[str, str]) -> Iterator[str]:
    """Say what the prices are where the two providers' are not the same."""
    for name, words in (("price_side", str), ("is_adjusted", _adjusted)):
        sides = [sorted(map(words, shared[name + tail].unique().to_list())) for tail in ("", _OTHER)]
        if sides[0] != sides[1]:
            yield ", ".join(
                f"{who} has {' and '.join(side)} prices" for who, side in zip(providers, sides, strict=True)
            )


def _adjusted(value: object) -> str:
    return "adjusted" if value else "unadjusted"


def _number(value: Any) -> float:  # noqa: ANN401 - polars types it loosely
    return float(value or 0.0)
