"""Cross-asset models, built by dbt in Spark out of a lake, against the oracle; increments; another future."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest
from pyspark.sql import SparkSession

from pipelines.config import PROJECT_ROOT
from pipelines.storage import DeltaLakeManager
from tests.transform import cross_asset_oracle as oracle
from tests.transform.test_runner import Workbench, bars, records

pytestmark = pytest.mark.spark

SHARED = PROJECT_ROOT.parent / "shared" / "data"
KEYS = {
    "cross_asset_pairs": ["asset_pair", "other_pair", "timestamp"],
    "crypto_equity_correlation": ["quote_currency", "timestamp"],
    "yield_curve": ["timestamp"],
}
SELECTED = ("--select", "market_data_enriched", *KEYS)
# A Monday. The book goes over the end of a year, its windows over each of its gaps.
START = datetime(2024, 10, 7, tzinfo=UTC)
DAYS = 130
CUT = START + timedelta(days=100)
CLASSES = (
    dict.fromkeys(["BTCUSD", "ETHUSD", "ADAUSD", "SOLUSD", "ETHBTC", "LTCBTC"], "crypto")
    | dict.fromkeys(["AAPL", "MSFT", "XOM", "JPM", "META", "NVDA"], "equity")
    | dict.fromkeys(["^TNX", "^IRX", "^FVX"], "bond")
    | {"EURUSD": "forex"}
)
QUOTES = {name: name[-3:] if each in {"crypto", "forex"} else "USD" for name, each in CLASSES.items()}

Bars = dict[str, dict[datetime, float]]


def walk(seed: int, start: float = 100.0, size: float = 0.02) -> list[float]:
    shared, own = (np.random.default_rng(each).normal(0, size, DAYS) for each in (99, seed))
    return [float(price) for price in start * np.exp(np.cumsum(0.5 * shared + own))]


def book() -> Bars:
    """Instruments of all classes with their calendars, gaps and oddities."""
    days = [START + timedelta(days=number) for number in range(DAYS)]
    weekdays = [day for day in days if day.weekday() < 5]

    def closes(which: list[datetime], prices: list[float]) -> dict[datetime, float]:
        return {day: prices[(day - START).days] for day in which}

    def between(day: datetime, first: int, last: int) -> bool:
        return first <= (day - START).days < last

    moving = walk(8)
    found = {
        "BTCUSD": closes(days, walk(1, 60_000)),
        # Three days without bars, and ten.
        "ETHUSD": closes([day for day in days if not between(day, 20, 23) and not between(day, 75, 85)], walk(2, 3000)),
        # Appears in the middle.
        "ADAUSD": closes(days[60:], walk(3, 0.5)),
        # An exchange that is closed for longer than a change may span.
        "AAPL": closes([day for day in weekdays if not between(day, 44, 56)], walk(4)),
        "MSFT": closes([day for day in weekdays if day.day % 11], walk(5, 400)),
        # Stands still for long, then moves.
        "XOM": closes(weekdays, [100.0] * 70 + moving[70:]),
        # Grows by the same factor each day: its returns differ by rounding alone.
        "JPM": closes(days, [200 * 1.001**number for number in range(DAYS)]),
        "META": closes(weekdays, walk(6, 500)) | {weekdays[25]: 0.0},
        "NVDA": {weekdays[30]: 130.0},
        "EURUSD": closes([day for day in days if day.weekday() != 5], walk(7, 1.1, 0.004)),
        "^TNX": closes(weekdays, walk(9, 4.0)),
        # Through zero and back.
        "^IRX": closes(weekdays, [2 * float(np.cos(number / 20)) - 0.5 for number in range(DAYS)]),
        "^FVX": closes(weekdays[40:60], walk(10, 3.9)),
    }
    return found | real_days()


def real_days() -> Bars:
    """Real 5-minute bars of two pairs, their last close of each whole day."""
    found: Bars = {}
    for name, pair in (("eth_btc", "ETHBTC"), ("ltc_btc", "LTCBTC")):
        path = SHARED / f"{name}_5m_2018-01.csv"
        if not path.is_file():
            continue
        frame = pd.read_csv(path)
        close = frame.set_index(pd.to_datetime(frame["date"], utc=True))["close"]
        days = close.resample("D").agg(["last", "size"])
        found[pair] = {at.to_pydatetime(): price for at, price in days.loc[days["size"] == 288, "last"].items()}
    return found


def land(lake: DeltaLakeManager, book: Bars) -> None:
    same = {"timeframe": "1d", "volume": 1.0, "provider": "coinbase", "price_side": "trade", "is_adjusted": False,
            "is_derived": False}  # fmt: skip
    rows = [
        {"asset_pair": pair, "timestamp": day, **dict.fromkeys(("open", "high", "low", "close"), close), **same}
        for pair, closes in book.items()
        for day, close in closes.items()
    ]
    lake.append("raw_market_data_1d", records("raw_market_data_1d", rows), "run")


def land_macro(lake: DeltaLakeManager, series: Mapping[str, Mapping[datetime, float | None]]) -> None:
    rows = [
        {"series_id": name, "timestamp": day, "value": value, "units": "Percent", "provider": "fred"}
        for name, values in series.items() for day, value in values.items()
    ]  # fmt: skip
    lake.append("macro_indicators", records("macro_indicators", rows), "run")


def observations() -> dict[str, dict[datetime, float | None]]:
    """From before the bars on, a month of them; of the 3-month yield less, with a day without one."""
    days = [START + timedelta(days=number) for number in range(-3, 28)]
    bills: dict[datetime, float | None] = {day: 4.5 - number / 20 for number, day in enumerate(days[:15])}
    return {
        "DGS10": {day: 4.0 + number / 100 for number, day in enumerate(days)},
        "DGS2": {day: 4.1 + number / 200 for number, day in enumerate(days)},
        "DGS3MO": bills | {days[10]: None},
        "DGS30": {START + timedelta(days=56): 4.4},
        "CPIAUCSL": {days[0]: 315.0},
    }


def tables(lake: DeltaLakeManager, suffix: str = "") -> dict[str, pd.DataFrame]:
    layer = DeltaLakeManager(f"{lake.storage_path}/silver{suffix}", lake.settings)
    return {name: layer.read_table(name).sort_values(keys, ignore_index=True) for name, keys in KEYS.items()}


def versions(lake: DeltaLakeManager) -> dict[str, int]:
    layer = DeltaLakeManager(f"{lake.storage_path}/silver", lake.settings)
    return {name: int(layer.get_table_history(name)["version"].iloc[0]) for name in KEYS}


def files(lake: DeltaLakeManager, name: str, before: datetime) -> set[str]:
    """The paths of a table's files that hold nothing from a day on."""
    found = lake.layer("silver").files(name)
    return set(found.filter(pc.less(found["max.timestamp"], before))["path"].to_pylist())


def wanted(lake: DeltaLakeManager) -> dict[str, pd.DataFrame]:
    """What the oracle makes of the lake: of bars the last version that was landed."""
    rows = lake.read_table("raw_market_data_1d").sort_values("ingested_at")
    rows = rows.drop_duplicates(["asset_pair", "timestamp"], keep="last")[["asset_pair", "timestamp", "close"]]
    return {
        "cross_asset_pairs": oracle.cross_asset_pairs(rows, CLASSES),
        "crypto_equity_correlation": oracle.crypto_equity_correlation(rows, CLASSES, QUOTES),
        "yield_curve": oracle.yield_curve(rows, lake.read_table("macro_indicators")),
    }


def assert_as_wanted(lake: DeltaLakeManager) -> None:
    expected = wanted(lake)
    for name, found in tables(lake).items():
        times = {column: kind for column, kind in found.dtypes.items() if kind.kind == "M"}
        one, other = (table.set_index(KEYS[name]).sort_index() for table in (found, expected[name].astype(times)))
        assert not one.index.has_duplicates
        pd.testing.assert_index_equal(one.index, other.index)
        assert set(one.columns) == {*other.columns, "partition_date"}
        for column in other.columns:
            left, right = one[column], other[column]
            if left.dtype.kind == "f":
                same = np.isclose(left, right.astype(float), rtol=1e-9, atol=1e-9, equal_nan=True)
            else:
                same = ((left == right) | (left.isna() & right.isna())).to_numpy()
            wrong = pd.DataFrame({"found": left, "expected": right})[~same]
            assert wrong.empty, f"{name}.{column}, {len(wrong)} rows:\n{wrong.head()}"


def assert_bits_equal(one: Mapping[str, pd.DataFrame], other: Mapping[str, pd.DataFrame]) -> None:
    for name in KEYS:
        pd.testing.assert_frame_equal(one[name], other[name], check_exact=True, obj=name)


def until(found: Mapping[str, pd.DataFrame], instant: datetime) -> dict[str, pd.DataFrame]:
    return {
        name: table[table["timestamp"] + pd.Timedelta(days=1) <= instant].reset_index(drop=True)
        for name, table in found.items()
    }


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Workbench:
    """The book and the observations, landed and built; the tests tell one story, each goes on from the one before."""
    bench = Workbench(tmp_path_factory.mktemp("cross"))
    land(bench.lake, book())
    land_macro(bench.lake, observations())
    done = bench.run("build", *SELECTED, "--exclude", "source:*")
    assert {node.kind for node in done.nodes} == {"model", "test", "unit_test"}
    return bench


def test_the_book_has_every_case(bench: Workbench) -> None:
    pairs = tables(bench.lake)["cross_asset_pairs"].set_index(["asset_pair", "other_pair"])
    enough = pairs[pairs["observations_30d"] >= 15]
    # Still, or moved by rounding alone: no correlation, and a slope only on the side that moves.
    for still in ("XOM", "JPM"):
        rows = enough.loc[("BTCUSD", still)]
        rows = rows[rows["timestamp"] < START + timedelta(days=70)]
        assert len(rows) > 20
        assert rows["correlation_30d"].isna().all()
        assert rows["beta_30d"].isna().all()
        assert rows["other_beta_30d"].abs().max() < 1e-12
    assert (
        pairs.loc[[("AAPL", "NVDA")], ["changed_since", "correlation_30d", "spread_zscore_30d"]].isna().all(axis=None)
    )
    assert len(pairs.loc[("BTCUSD", "META")].query("close > 0 and changed_since.isna()")) == 3
    assert (pairs.loc[("^IRX", "^TNX"), "close"] <= 0).any()
    assert pairs.loc[("^IRX", "^TNX"), ["spread_zscore_90d", "correlation_90d"]].notna().any().all()
    assert pairs.loc[("AAPL", "^TNX"), "spread"].isna().all()
    aapl = pairs.loc[("AAPL", "BTCUSD")]
    assert (aapl["timestamp"] - aapl["changed_since"]).max() == pd.Timedelta(days=3)
    assert aapl["changed_since"].isna().sum() == 2
    assert {"correlation_30d", "correlation_90d"} <= set(enough.loc[("AAPL", "BTCUSD")].dropna(axis=1, how="all"))


def test_models_are_the_oracles(bench: Workbench) -> None:
    assert_as_wanted(bench.lake)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no folder of real data at {SHARED}")
def test_real_days_are_correlated(bench: Workbench) -> None:
    """By pandas' own rolling window: these days have no gap."""
    rows = tables(bench.lake)["cross_asset_pairs"].query("asset_pair == 'ETHBTC' and other_pair == 'LTCBTC'")
    days = pd.DataFrame(real_days())
    returns = np.log(days / days.shift())
    expected = returns["ETHBTC"].rolling(29, min_periods=15).corr(returns["LTCBTC"])
    assert expected.notna().sum() >= 4
    np.testing.assert_allclose(rows["correlation_30d"], expected, rtol=1e-9)


def test_a_new_day_adds_rows_and_leaves_the_files_of_other_years(bench: Workbench) -> None:
    year = datetime(2025, 1, 1, tzinfo=UTC)
    before = {name: files(bench.lake, name, year) for name in KEYS}
    rows = {name: len(table) for name, table in tables(bench.lake).items()}
    day = START + timedelta(days=DAYS)
    land(bench.lake, {pair: {day: 1.01 * max(closes.values())} for pair, closes in book().items() if len(closes) > 20})
    bench.run("run", *SELECTED)
    assert all(before.values())
    assert {name: files(bench.lake, name, year) for name in KEYS} == before
    assert all(len(table) > rows[name] for name, table in tables(bench.lake).items())
    assert_as_wanted(bench.lake)


@pytest.mark.soak
def test_restated_bars_and_a_new_asset_in_the_middle(bench: Workbench) -> None:
    """A restatement within a window's reach of later days, an asset that begins before it, another observation."""
    day = START + timedelta(days=63)
    land(bench.lake, {"BTCUSD": {day: 71_000.0}, "^TNX": {day: 4.75}})
    land(bench.lake, {"SOLUSD": {START + timedelta(days=number): 150.0 + number % 7 for number in range(60, DAYS)}})
    bench.run("run", *SELECTED)
    assert_as_wanted(bench.lake)


def test_finer_bars_make_nothing_anew_and_a_revised_observation_the_curve_alone(bench: Workbench) -> None:
    before, made = tables(bench.lake)["yield_curve"].set_index("timestamp"), versions(bench.lake)
    bench.lake.append("raw_market_data_1m", bars("BTCUSD", "1m", 0, 30), "run")
    land_macro(bench.lake, {"DGS10": {START: 3.5}, "DGS2": {START + timedelta(days=1): None}})
    bench.run("run", *SELECTED)
    assert {name for name, version in versions(bench.lake).items() if version != made[name]} == {"yield_curve"}
    assert_as_wanted(bench.lake)
    after = tables(bench.lake)["yield_curve"].set_index("timestamp")
    assert before.loc[START, "known_at"] < after.loc[START, "known_at"]
    assert after.loc[START, "is_inverted_10y_2y"]
    assert np.isnan(after.loc[START + timedelta(days=1), "slope_10y_2y"])


@pytest.mark.soak
def test_another_future_moves_nothing_and_a_full_refresh_gives_the_same_bits(bench: Workbench) -> None:
    """Rows up to the cut were made out of one future; the full refresh makes them anew out of another."""
    before = tables(bench.lake)
    other = {
        pair: {day: close * (1.3 if day.day % 2 else 0.8) for day, close in closes.items() if day >= CUT}
        for pair, closes in book().items()
    }
    land(bench.lake, {pair: closes for pair, closes in other.items() if closes})
    bench.run("run", *SELECTED)
    assert_as_wanted(bench.lake)
    after = tables(bench.lake)
    assert_bits_equal(until(after, CUT), until(before, CUT))
    assert not after["cross_asset_pairs"]["correlation_30d"].equals(before["cross_asset_pairs"]["correlation_30d"])
    done = bench.run("run", *SELECTED, as_of=datetime.now(UTC).isoformat())
    assert_bits_equal(tables(bench.lake, done.suffix), after)
