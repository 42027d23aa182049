"""Going on from stored rows equals the whole history, and no row knows what comes after it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipelines.errors import ContractError
from pipelines.transform.indicators import COLUMNS, STATE_BARS, SeriesContext, compute, resume
from tests.transform.indicators.series import (
    NUMBERS,
    assert_agree,
    made,
    made_bars,
    on_calendar,
    on_every_series,
    series,
)

CONTEXTS = {
    "always": SeriesContext.of("BTCUSD", "1m"),
    "forex": SeriesContext.of("EURUSD", "1h"),
    "exchange": SeriesContext.of("AAPL", "5m"),
    "lunch": on_calendar("XTKS", "15m"),
    "daily": SeriesContext.of("^TNX", "1d"),
}
KINDS = ("walk", "flat", "inside", "trend", "leap", "no volume", "null volume", "gap")


def assert_same(actual: pa.Table, expected: pa.Table) -> None:
    assert actual.schema == expected.schema
    for column in COLUMNS:
        ours, theirs = actual[column.name], expected[column.name]
        if column.type == "string":
            assert ours.to_pylist() == theirs.to_pylist()
        else:
            assert_agree(numbers(ours), numbers(theirs))


def numbers(column: pa.ChunkedArray) -> np.ndarray:
    values = column.to_numpy()
    assert np.isfinite(values[column.is_valid().to_numpy()]).all()
    return values


def in_parts(bars: pa.Table, context: SeriesContext, cuts: list[int], tail: int = STATE_BARS) -> pa.Table:
    """Compute part by part, each from no more than the last `tail` rows stored before."""
    edges = sorted({0, bars.num_rows, *(cut for cut in cuts if cut < bars.num_rows)})
    stored = compute(bars.slice(0, 0), context)
    for start, end in pairwise(edges):
        before = stored.slice(max(stored.num_rows - tail, 0))
        stored = pa.concat_tables([stored, resume(before, bars.slice(start, end - start), context)])
    return stored


@st.composite
def histories(draw: st.DrawFn) -> tuple[pa.Table, SeriesContext]:
    """Stretches of each kind, one after another, on a calendar of any kind; yields go below zero."""
    name = draw(st.sampled_from(sorted(CONTEXTS)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    stretches = draw(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 150)), min_size=1, max_size=8))
    level = draw(st.sampled_from([1e-4, 1.0, 40_000.0, 900_000.0]))
    price = draw(st.sampled_from([0.0, -1.0, 3.0])) if name == "daily" else level
    scale = 0.05 if name == "daily" else level / 100
    floor = -10.0 if name == "daily" else level / 1000
    closes, highs, lows, volumes, ats = [], [], [], [], []
    at = datetime(2024, 3, 6, tzinfo=UTC)
    for kind, length in stretches:
        for _ in range(length):
            steps = {"walk": rng.normal(0, scale), "trend": scale / 10, "leap": rng.normal(0, 20 * scale)}
            price = max(price + steps.get(kind, 0.0), floor)
            wick = 0.0 if kind in ("flat", "trend") else scale
            spread = rng.random(2) * wick if kind != "inside" else np.array([wick, wick])
            closes.append(price)
            highs.append(price + spread[0])
            lows.append(price - spread[1])
            volumes.append({"no volume": 0.0, "null volume": None}.get(kind, float(rng.integers(0, 1000))))
            ats.append(at)
            at += CONTEXTS[name].timeframe.step * (int(rng.integers(1, 40)) if kind == "gap" else 1)
    return made_bars(closes, highs, lows, volumes, ats), CONTEXTS[name]


@given(histories(), st.lists(st.integers(1, 1200), max_size=5))
@hypothesis_settings(max_examples=150)
def test_any_cuts_make_no_difference(history: tuple[pa.Table, SeriesContext], cuts: list[int]) -> None:
    bars, context = history
    assert_same(in_parts(bars, context, cuts), compute(bars, context))


@given(histories(), st.integers(0, 1200), st.integers(0, 2**32))
@hypothesis_settings(max_examples=60)
def test_no_row_knows_what_comes_after(history: tuple[pa.Table, SeriesContext], last: int, seed: int) -> None:
    bars, context = history
    known = min(last, bars.num_rows)
    rng = np.random.default_rng(seed)
    after = bars.num_rows - known
    other = made_bars((50 + rng.random(after)).tolist(), (60 + rng.random(after)).tolist(), [1.0] * after)
    changed = pa.concat_tables([
        bars.slice(0, known),
        other.set_column(0, "timestamp", bars["timestamp"].slice(known).combine_chunks()),
    ])  # fmt: skip
    # Not only near: the very same numbers.
    assert compute(changed, context).slice(0, known).equals(compute(bars, context).slice(0, known))
    assert compute(bars.slice(0, known), context).equals(compute(bars, context).slice(0, known))


@on_every_series
def test_real_bars_in_parts(name: str) -> None:
    found = series(name)
    size = found.bars.num_rows
    cuts = np.random.default_rng(size).integers(1, size, 12).tolist()
    parts = in_parts(found.bars, found.context, cuts)
    assert_same(parts, found.computed)
    # Where a rule compares with a mark, even the last digit counts.
    for column in ("hist_volatility_20", "adx_14", "market_regime", "percent_b", "rsi_14"):
        assert parts[column].equals(found.computed[column])


def test_bar_by_bar() -> None:
    found = series("sample btc 1h")
    bars = found.bars.slice(0, 420)
    assert_same(in_parts(bars, found.context, list(range(420))), compute(bars, found.context))


@pytest.mark.parametrize("wick", [0.0, 0.5])
def test_a_price_that_stands_still_for_long_loses_no_state(wick: float) -> None:
    rng = np.random.default_rng(8)
    first, second = (rng.normal(0, 1, 300).cumsum() for _ in range(2))
    closes = np.concatenate([1000 + first, np.full(12_000, 1000 + first[-1]), 1000 + first[-1] + second])
    bars = made_bars(list(closes), list(closes + wick), list(closes - wick))
    context = CONTEXTS["always"]
    whole = compute(bars, context)
    for cuts in ([250, 301, 800], [10_300, 10_700, 11_050], [12_300], [12_299, 12_301, 12_314]):
        assert_same(in_parts(bars, context, cuts), whole)


def test_more_stored_rows_than_needed_make_no_difference() -> None:
    found = series("sample aapl 5m")
    assert_same(in_parts(found.bars, found.context, [900, 1500], tail=700), found.computed)


def test_no_bars() -> None:
    found = series("sample btc 1h")
    none = found.bars.slice(0, 0)
    empty = compute(none, found.context)
    assert empty.num_rows == 0
    assert empty.schema == found.computed.schema
    assert resume(found.computed, none, found.context).equals(empty)
    assert_same(resume(empty, found.bars, found.context), found.computed)


def test_one_bar_has_only_what_one_bar_tells() -> None:
    found = made([5.0])
    known = {name for name in NUMBERS if not np.isnan(found.values(name)).any()}
    assert known == {column.name for column in COLUMNS if column.warm_up == 0}


def test_warm_up_is_as_the_columns_say() -> None:
    found = series("sample btc 1h")
    for column in COLUMNS:
        assert found.computed[column.name].is_valid().to_pylist().index(True) == column.warm_up, column.name


def test_other_columns_pass_through() -> None:
    bars = made_bars([1.0, 2.0]).append_column("provider", pa.array(["a", "b"]))
    result = compute(bars, CONTEXTS["always"])
    assert result.column_names == [*bars.column_names, *(column.name for column in COLUMNS)]
    assert result["provider"].to_pylist() == ["a", "b"]


def test_the_cost_is_that_of_the_new_bars() -> None:
    found = series("sample btc 1h")
    stored = found.computed.slice(0, 2000)
    # Rows before the last STATE_BARS are not even looked at.
    spoilt = pa.concat_tables([stored.slice(0, 1).take(pa.array([0] * 1000)), stored.slice(2000 - STATE_BARS)])
    assert_same(resume(spoilt, found.bars.slice(2000), found.context), found.computed.slice(2000))


def nulls(table: pa.Table, name: str) -> pa.Table:
    place = table.column_names.index(name)
    return table.set_column(place, table.schema.field(name), pa.nulls(table.num_rows, table.schema.field(name).type))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda bars: bars.drop_columns(["volume"]), "lack volume"),
        (lambda bars: nulls(bars, "close"), "close is null"),
        (lambda bars: nulls(bars, "timestamp"), "null timestamps"),
        (lambda bars: bars.take(pa.array([1, 0])), "sorted by timestamp"),
        (lambda bars: bars.take(pa.array([0, 0])), "one row per bar"),
        (lambda bars: bars.append_column("sma_20", pa.array([1.0, 2.0])), "sma_20 already"),
    ],
)
def test_bars_that_are_none_are_refused(spoil: object, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        compute(spoil(made_bars([1.0, 2.0])), CONTEXTS["always"])  # type: ignore[operator]


@pytest.mark.parametrize("price", [float("nan"), float("inf")])
def test_a_price_that_is_no_number_is_refused_with_its_time(price: float) -> None:
    with pytest.raises(ContractError, match="2024-01-01 00:01"):
        compute(made_bars([1.0, price]), CONTEXTS["always"])


@pytest.mark.parametrize("volume", [float("nan"), float("inf")])
def test_a_volume_that_is_no_number_counts_as_none(volume: float) -> None:
    odd = made([1.0, 2.0, 3.0], volume=[1.0, volume, 1.0])
    assert_same(
        odd.computed.drop_columns(["volume"]),
        made([1.0, 2.0, 3.0], volume=[1.0, None, 1.0]).computed.drop_columns(["volume"]),
    )


def test_stored_rows_without_their_state_are_refused() -> None:
    found = series("sample btc 1h")
    stored, new = found.computed.slice(0, 300), found.bars.slice(300, 5)
    with pytest.raises(ContractError, match="state_adx_14 is null"):
        resume(nulls(stored, "state_adx_14"), new, found.context)
    with pytest.raises(ContractError, match="lack ema_12"):
        resume(stored.drop_columns(["ema_12"]), new, found.context)


def test_bars_that_do_not_follow_are_refused() -> None:
    found = series("sample btc 1h")
    with pytest.raises(ContractError, match="sorted by timestamp"):
        resume(found.computed.slice(0, 300), found.bars.slice(299, 5), found.context)


def test_series_by_its_names() -> None:
    context = SeriesContext.of("btc-usd", "1h")
    assert context.instrument.pair == "BTCUSD"
    assert context.timeframe.step == timedelta(hours=1)
