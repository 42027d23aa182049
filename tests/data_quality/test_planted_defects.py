"""Every kind of defect planted in real and synthetic bars: each is found and rightly blamed, and nothing else is."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from pipelines.batch.engine import Backfill
from pipelines.batch.jobs import bar_job
from pipelines.contracts import load_contracts
from pipelines.data_quality import DataQualityFramework, DeadLetterQueue
from pipelines.data_quality.expectations_suite import ValidationOutcome
from pipelines.data_quality.frames import LocalFrame
from pipelines.edge import EdgeContext, validate
from pipelines.instruments import load_registry
from pipelines.storage import DeltaLakeManager
from pipelines.timeframes import Timeframe, utc_now
from tests.conftest import make_settings
from tests.data_quality.planting import (
    APART,
    BACK,
    FILES,
    REFUSED,
    SAMPLES,
    SHARED,
    SPIKE,
    STALE,
    Planted,
    Row,
    plant,
    real_bars,
    sample_bars,
    spiked,
    table_of,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CONTRACT = load_contracts()["raw_market_data"]
WARNINGS = {SPIKE: "spike_score", STALE: "flat_run", BACK: "goes_back"}
needs_real_data = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no folder of real data at {SHARED}")


def series(most: int | None = 3_000, synthetic: int = 2_000) -> Iterator[list[Row]]:
    """Sound bars of several markets, real ones where there are such."""
    if SHARED.is_dir():
        yield from (real_bars(name, most) for name in FILES)
    yield from (sample_bars(asset, timeframe, synthetic) for asset, timeframe in SAMPLES)


@pytest.fixture(scope="module")
def planted() -> Planted:
    """Every kind of defect, several times in each series."""
    made = Planted()
    for seed, bars in enumerate(series()):
        plant(bars, made, seed)
    assert set(Counter(made.refused.values())) == {*REFUSED, "repeated version"}
    assert all(len(numbers) > 3 for numbers in made.warned.values())
    return made


@pytest.fixture(scope="module")
def framework(tmp_path_factory: pytest.TempPathFactory) -> DataQualityFramework:
    """One for all tests, since Great Expectations is slow to import; its queue is set by `dq`."""
    folder = tmp_path_factory.mktemp("quality")
    return DataQualityFramework(make_settings(folder, {"quality": {"path": str(folder)}}))


@pytest.fixture
def dq(framework: DataQualityFramework, tmp_path: Path) -> DataQualityFramework:
    framework._dlq = DeadLetterQueue(tmp_path / "dlq")
    return framework


@pytest.fixture(params=["pandas", "arrow", pytest.param("spark", marks=pytest.mark.spark)])
def build(request: pytest.FixtureRequest) -> Callable[[pa.Table], Any]:
    """Make a frame of an Arrow table on each engine."""
    if request.param == "arrow":
        return lambda table: table
    if request.param == "pandas":
        return lambda table: table.to_pandas()
    spark: SparkSession = request.getfixturevalue("spark")
    # One partition, since rows of two have no order.
    return lambda table: spark.createDataFrame(table).coalesce(1)


def told(outcome: ValidationOutcome) -> dict[int, str]:
    """The reason of each refused row, as json reads the dead letter file."""
    if outcome.dlq_file is None:
        return {}
    records = json.loads(outcome.dlq_file.read_text(encoding="utf-8"))["records"]
    found = {record["number"]: record["reason"] for record in records}
    assert len(found) == len(records)
    return found


def warned(outcome: ValidationOutcome) -> dict[str, int]:
    return {check.reason: check.failed_rows for check in outcome.checks if check.severity == "warning"}


def marked(table: pa.Table, **options: Any) -> dict[str, set[int]]:
    """The places of the rows that each warning is about."""
    native = LocalFrame(table, CONTRACT, **options).native().reset_index(drop=True)
    native["goes_back"] = native["goes_back"].where(native["goes_back"])
    return {warning: set(native.index[native[column].notna()]) for warning, column in WARNINGS.items()}


def test_each_planted_row_is_refused_for_its_reason_and_no_other_row(
    planted: Planted, dq: DataQualityFramework, build: Callable[[pa.Table], Any], request: pytest.FixtureRequest
) -> None:
    outcome = dq.validate_dataframe(build(planted.table))
    # pandas knows one missing value for numbers, so that its NaN is a null.
    pandas = "pandas" in request.node.name
    expected = {at: reason.replace("NaN", "null") if pandas else reason for at, reason in planted.refused.items()}
    assert told(outcome) == expected
    assert not outcome
    assert warned(outcome) == {warning: len(numbers) for warning, numbers in planted.warned.items()}


def test_each_planted_sign_is_found_at_its_row(planted: Planted) -> None:
    assert marked(planted.table) == planted.warned


@pytest.mark.spark
def test_spark_finds_the_same_signs_with_the_same_scores(planted: Planted, spark: SparkSession) -> None:
    from pipelines.data_quality.spark_frame import SparkFrame

    local = LocalFrame(planted.table, CONTRACT).native()
    frame = SparkFrame(spark.createDataFrame(planted.table).coalesce(1), CONTRACT)
    distributed = frame.native().select("number", *WARNINGS.values()).orderBy("number").toPandas()
    frame.close()
    for column in WARNINGS.values():
        theirs, ours = distributed[column].astype(object), local[column].astype(object).reset_index(drop=True)
        assert theirs.isna().equals(ours.isna())
        assert theirs.dropna().tolist() == ours.dropna().tolist()


def test_a_table_as_stored_has_its_own_order(dq: DataQualityFramework, build: Callable[[pa.Table], Any]) -> None:
    made, draw = Planted(), random.Random(7)
    for seed, bars in enumerate(series(1_500)):
        plant(bars, made, seed, ordered=False)
    ingested = datetime(2025, 6, 1, tzinfo=UTC)
    for number, row in enumerate(made.rows):
        row["run_id"] = "r1"
        # A version is known later than the one before it.
        row["ingested_at"] = ingested + timedelta(seconds=number)
        if number not in made.refused and draw.random() < 0.01:
            made.refused[number] = "known before its close"
            row["ingested_at"] = row["timestamp"] + timedelta(seconds=59)
            for numbers in made.warned.values():
                numbers.discard(number)
    rows = [row for row in made.rows if "NaN" not in made.refused.get(row["number"], "")]
    draw.shuffle(rows)
    outcome = dq.validate_dataframe(build(table_of(rows)))
    numbers = {row["number"] for row in rows}
    assert told(outcome) == {number: reason for number, reason in made.refused.items() if number in numbers}
    assert warned(outcome)[BACK] == 0
    assert warned(outcome)[SPIKE] == len(made.warned[SPIKE])


def test_clean_bars_give_no_alarm_whatever_the_market(dq: DataQualityFramework) -> None:
    outcome = dq.validate_dataframe(table_of([row for bars in series(None) for row in bars]))
    assert outcome
    assert [check.reason for check in outcome.checks if not check.success] == []


def test_ingested_bars_give_no_alarm_as_the_table_holds_them(dq: DataQualityFramework, tmp_path: Path) -> None:
    settings = make_settings(tmp_path, {"storage": {"engine": "embedded"}})
    lake = DeltaLakeManager(settings.delta_lake.storage_path, settings)
    jobs = [
        bar_job(asset, timeframe, utc_now() - timedelta(days=3), utc_now(), now=utc_now(), provider="sample")
        for asset in ("BTCUSD", "EURUSD")
        for timeframe in ("1m", "4h")
    ]
    assert asyncio.run(Backfill(lake, settings).run(jobs)).ok
    for timeframe in ("1m", "4h"):
        table = DeltaTable(str(tmp_path / "lake" / f"raw_market_data_{timeframe}")).to_pyarrow_table()
        outcome = dq.validate_dataframe(table)
        assert outcome.total_rows > 10
        assert [check.reason for check in outcome.checks if not check.success] == []


@needs_real_data
@pytest.mark.parametrize("name", [name for name, (_, timeframe) in FILES.items() if timeframe == "1m"])
def test_any_minute_of_real_bars_that_is_five_percent_off_is_found(name: str) -> None:
    bars, draw = real_bars(name), random.Random(name)
    places = {at + draw.randrange(20) for at in range(10, len(bars) - 40, 60)}
    for at in places:
        close = bars[at]["close"] * (1 + draw.choice((-0.05, 0.05)))
        low, high = min(bars[at]["low"], close), max(bars[at]["high"], close)
        bars[at] = {**bars[at], "close": close, "low": low, "high": high}
    assert marked(table_of(bars))[SPIKE] == places


def test_a_price_that_moves_and_stays_is_no_spike() -> None:
    bars = sample_bars("SOLUSD", "1m", 2_000)
    moved = [
        {**bar, **{name: bar[name] * (1.2 if at >= 1_000 else 1.0) for name in ("open", "high", "low", "close")}}
        for at, bar in enumerate(bars)
    ]
    assert marked(table_of(moved))[SPIKE] == set()
    assert marked(table_of([*moved[:1_500], spiked(moved[1_500], -1), *moved[1_501:]]))[SPIKE] == {1_500}


def test_limits_can_be_set() -> None:
    from pipelines.data_quality.signals import SignalSettings

    made = Planted()
    plant(sample_bars("SOLUSD", "1m", 2_000), made, seed=3)
    none = marked(made.table, signals=SignalSettings(spike_score=1e9, flat_run_bars=13))
    assert none == {SPIKE: set(), STALE: set(), BACK: made.warned[BACK]}
    assert len(marked(made.table, signals=SignalSettings(spike_score=30.0, flat_run_bars=8))[STALE]) > len(
        made.warned[STALE]
    )


def test_text_that_cannot_be_read_is_told(dq: DataQualityFramework, build: Callable[[pa.Table], Any]) -> None:
    bars, draw = sample_bars("SOLUSD", "1m", 2_000), random.Random(11)
    defects = [
        ("wrong type: open", "open", "abc"),
        ("wrong type: volume", "volume", "1,5"),
        ("wrong type or no time zone: timestamp", "timestamp", "2024-03-04T00:00:00"),
        ("wrong type or no time zone: timestamp", "timestamp", "yesterday"),
        ("null close", "close", None),
    ]
    expected = {}
    rows = [{**bar, "timestamp": bar["timestamp"].isoformat(), "number": at} for at, bar in enumerate(bars)]
    rows = [{name: str(value) if isinstance(value, float) else value for name, value in row.items()} for row in rows]
    for turn, at in enumerate(draw.sample(range(0, 2_000, APART), 30)):
        reason, column, value = defects[turn % len(defects)]
        rows[at][column], expected[at] = value, reason
    outcome = dq.validate_dataframe(build(pa.Table.from_pylist(rows)))
    assert told(outcome) == expected
    assert warned(outcome) == {SPIKE: 0, STALE: 0, BACK: 0}


def live_bars(asset: str, timeframe: Timeframe, until: datetime, count: int = 200) -> list[Row]:
    """Sound bars, the newest of which opens at `until`."""
    kept = sample_bars(asset, timeframe.value, count)
    return [{**bar, "timestamp": until - timeframe.step * (len(kept) - 1 - at)} for at, bar in enumerate(kept)]


def test_live_series_lack_no_due_bar(dq: DataQualityFramework, build: Callable[[pa.Table], Any]) -> None:
    now = utc_now()
    minute, hour = Timeframe.M1, Timeframe.H1
    fresh = [
        *live_bars("BTCUSD", minute, minute.floor(now) - timedelta(minutes=3)),
        *live_bars("ETHUSD", hour, hour.floor(now) - hour.step),
    ]
    stale = live_bars("SOLUSD", minute, minute.floor(now) - timedelta(minutes=30))
    assert dq.validate_dataframe(build(table_of(fresh)), live=True)
    assert dq.validate_dataframe(build(table_of(stale)))
    outcome = dq.validate_dataframe(build(table_of([*fresh, *stale])), live=True)
    assert not outcome
    assert outcome.dlq_file is None
    assert outcome.failed_rows == 0
    failed = {check.reason: (check.severity, check.failed_rows) for check in outcome.checks if not check.success}
    assert failed == {"newest rows missing": ("critical", 1)}


def test_live_bars_of_a_closed_market_are_not_awaited(dq: DataQualityFramework) -> None:
    from pipelines.calendars import expected_opens

    now = utc_now()
    for asset in ("EURUSD", "AAPL"):
        instrument = load_registry().resolve(asset)
        opens = expected_opens(instrument, Timeframe.H1, now - timedelta(days=20), now)
        times = [when.astype("datetime64[us]").item().replace(tzinfo=UTC) for when in opens]
        bars = sample_bars(asset, "1h", len(times))
        due = [{**bar, "timestamp": when} for bar, when in zip(bars, times, strict=True)]
        known = [row for row in due if row["timestamp"] + timedelta(hours=1) <= now]
        assert dq.validate_dataframe(table_of(known), live=True)
        assert not dq.validate_dataframe(table_of(known[:-10]), live=True)


def test_other_data_is_live_by_its_event_time(dq: DataQualityFramework) -> None:
    news = load_contracts()["raw_news_sentiment"]
    values: dict[str, Any] = {
        "article_id": "a1",
        "asset_pair": "BTCUSD",
        "sentiment_score": 0.1,
        "provider": "files",
        "timestamp": utc_now() - timedelta(minutes=30),
    }
    filled = {column.name: values.get(column.name, _some(column.type)) for column in news.columns}
    table = pa.Table.from_pylist([filled], schema=news.arrow_schema)
    assert dq.validate_dataframe(table, "news_sentiment_quality", live=True)
    old = pa.Table.from_pylist([{**filled, "timestamp": utc_now() - timedelta(hours=2)}], schema=news.arrow_schema)
    outcome = dq.validate_dataframe(old, "news_sentiment_quality", live=True)
    assert [check.reason for check in outcome.checks if not check.success] == ["newest rows missing"]


def _some(kind: str) -> Any:
    known = {
        "string": "x",
        "timestamp": datetime(2024, 1, 1, tzinfo=UTC),
        "date": datetime(2024, 1, 1, tzinfo=UTC).date(),
    }
    return known.get(kind)


@pytest.mark.parametrize("place", range(8 if SHARED.is_dir() else 4))
def test_the_edge_refuses_each_planted_row_and_no_other(place: int) -> None:
    bars = list(series(1_500))[place]
    made = Planted()
    plant(bars, made, seed=100 + place)
    asset, timeframe, provider = (bars[0][name] for name in ("asset_pair", "timeframe", "provider"))
    # What the edge knows of a whole page it does not take from the page.
    whole = ("asset_pair", "timeframe", "provider", "price_side", "is_adjusted", "is_derived")
    expected = {
        number: reason
        for number, reason in made.refused.items()
        if not reason.startswith(("unknown", "repeated", *(f"null {name}" for name in whole)))
    }
    repeats = sum(reason == "repeated version" for reason in made.refused.values())
    rows = [{name: value for name, value in row.items() if name not in whole} for row in made.rows]
    # A bar that comes again with other values contradicts the first: the later one is refused.
    seen: dict[datetime, Row] = {}
    for row in rows:
        known = seen.setdefault(row["timestamp"], row)
        if row["number"] not in made.refused and known is not row and row["volume"] != known["volume"]:
            expected[row["number"]] = "conflicting duplicate"
    assert "conflicting duplicate" in expected.values()
    context = EdgeContext(
        contract=CONTRACT,
        provider=provider,
        now=utc_now(),
        instrument=load_registry().resolve(asset),
        timeframe=Timeframe(timeframe),
    )
    result = validate(table_of(rows), context)
    assert {row.record["number"]: row.reason for row in result.refused} == expected
    assert result.repeated == repeats
    assert result.good.num_rows == len(rows) - len(expected) - repeats
