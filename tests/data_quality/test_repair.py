"""Repair against servers on loopback: exactly the holes are asked for and filled, by who has them, and only once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from pipelines.batch.coverage import COVERED, REJECTED
from pipelines.batch.deliveries import pages_of
from pipelines.batch.engine import Backfill
from pipelines.batch.jobs import bar_job
from pipelines.config import Settings
from pipelines.data_quality.gaps import GapKind, find_gaps
from pipelines.data_quality.presence import BarSeries
from pipelines.data_quality.repair import Repair, RepairResult, Scope
from pipelines.data_quality.repair_plan import shared
from pipelines.intervals import Interval, IntervalSet
from pipelines.sources.base import MARKET_DATA, Page
from pipelines.sources.coinbase import CoinbaseSource
from pipelines.storage import CoverageEntry, DeltaLakeManager
from pipelines.timeframes import Timeframe, utc_now
from tests.batch.exchange import Exchange, exchange_settings, stored
from tests.servers.base import status
from tests.servers.market import Bar
from tests.servers.yahoo import YahooServer

# Yahoo keeps hours for two years only.
START = datetime(2026, 1, 5, tzinfo=UTC)
HOURS = 240
HOUR = timedelta(hours=1)
EMBEDDED = {"storage": {"engine": "embedded"}}


class Yahoo(YahooServer):
    """Has no bar that opens in one of `without`, in Unix seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.without: set[int] = set()

    def distorted(self, rows: list[Any], distort: str) -> list[Any]:
        return super().distorted([row for row in rows if row.time not in self.without], distort)

    def asked(self) -> list[tuple[datetime, datetime]]:
        """Return what was asked for, the end exclusive."""
        edges = [[int(request.query[name]) for name in ("period1", "period2")] for request in self.log]
        return [(datetime.fromtimestamp(first, UTC), datetime.fromtimestamp(end, UTC)) for first, end in edges]


@pytest.fixture
def yahoo() -> Iterator[Yahoo]:
    with Yahoo() as server:
        yield server


@pytest.fixture
def config(tmp_path: Path, exchange: Exchange, yahoo: Yahoo) -> Settings:
    second = {"base_url": yahoo.url, "requests_per_minute": 600_000, "burst": 1000, "backoff_seconds": 0.001}
    providers = {"providers": {"chain": ["alpha_vantage", "coinbase", "yfinance"], "yfinance": second}}
    return exchange_settings(tmp_path, exchange, providers, EMBEDDED)


@pytest.fixture
def lake(config: Settings) -> DeltaLakeManager:
    return DeltaLakeManager(config.delta_lake.storage_path, config)


def at(hour: int) -> datetime:
    return START + hour * HOUR


def second(hour: int) -> int:
    return int(at(hour).timestamp())


def land(
    lake: DeltaLakeManager, exchange: Exchange, missing: Iterable[int], timeframe: Timeframe = Timeframe.H1
) -> None:
    """Land the exchange's bars as they are, but for some: what a lake with holes looks like."""
    gone = set(missing)
    found = exchange.truth("BTC-USD", START, at(HOURS), timeframe.seconds)
    kept = [bar for bar in found if (bar.time - second(0)) // timeframe.seconds not in gone]
    lake.append(f"raw_market_data_{timeframe.value}", table_of(kept, timeframe), "before")


def table_of(found: list[Bar], timeframe: Timeframe) -> pa.Table:
    size = len(found)
    times = pa.array([bar.time * 1_000_000 for bar in found], pa.timestamp("us", "UTC"))
    prices = {name: pa.array([getattr(bar, name) for bar in found], pa.float64()) for name in Bar._fields[1:]}
    said = {"provider": "coinbase", "price_side": "trade", "is_adjusted": False, "is_derived": False}
    return pa.table(
        {"asset_pair": ["BTCUSD"] * size, "timeframe": [timeframe.value] * size, "timestamp": times}
        | prices
        | {name: [value] * size for name, value in said.items()}
    )


def claim(
    lake: DeltaLakeManager, first: int, end: int, provider: str = "coinbase", status: str = COVERED, length: str = "1h"
) -> None:
    """Record that a provider answered for some hours."""
    entry = CoverageEntry(MARKET_DATA, "BTCUSD", length, provider, at(first), at(end), status, 0)  # type: ignore[arg-type]
    lake.coverage.record([entry], "before")


def repair(lake: DeltaLakeManager, scope: Scope | None = None, **options: Any) -> RepairResult:
    return asyncio.run(Repair(lake, lake.settings, scope, **options).run())


def missing(lake: DeltaLakeManager) -> dict[int, str]:
    """Return the missing hours and why."""
    (found,) = find_gaps(lake, timeframes=["1h"])
    return {
        (run.interval.start - START) // HOUR + place: run.kind.value for run in found.runs for place in range(run.bars)
    }


def served_by(lake: DeltaLakeManager) -> dict[int, list[str]]:
    """Return by hour who served its rows, as DuckDB reads them."""
    rows = stored(lake.storage_path, "raw_market_data_1h", "BTCUSD")
    found: dict[int, list[str]] = {}
    for when, provider in rows["provider"].items():
        found.setdefault((when.to_pydatetime() - START) // HOUR, []).append(provider)
    return found


def test_each_hole_is_filled_by_who_has_it_and_nothing_else_is_touched(
    lake: DeltaLakeManager, exchange: Exchange, yahoo: Yahoo
) -> None:
    not_fetched, second_has, refused, nobody = {5, 6, 7, 30}, {100, 101}, {150}, {200, 201}
    holes = not_fetched | second_has | refused | nobody
    land(lake, exchange, holes)
    for first, end in ((0, 5), (8, 30), (31, 150), (151, HOURS)):
        claim(lake, first, end)
    claim(lake, 150, 151, status=REJECTED)
    exchange.market("BTC-USD").gaps += [(second(hour), second(hour + 1)) for hour in second_has | nobody]
    yahoo.without = {second(hour) for hour in nobody}
    assert missing(lake) == (
        dict.fromkeys(not_fetched, "not fetched")
        | dict.fromkeys(second_has | nobody, "provider has none")
        | dict.fromkeys(refused, "rejected")
    )

    result = repair(lake)

    # Coinbase has not been asked for hours 5 to 7 and 30: one request takes both. The others are Yahoo's turn.
    assert [edges[2:] for edges in exchange.asked()] == [(at(5), at(30))]
    assert yahoo.asked() == [(at(100), at(202))]
    assert result.requests == 2
    assert (result.filled, len(result.left.asks)) == (7, 0)
    assert missing(lake) == dict.fromkeys(nobody, "provider has none")
    now = served_by(lake)
    assert all(len(providers) == 1 for providers in now.values())
    assert {hour for hour, (provider,) in now.items() if provider == "yfinance"} == second_has | refused
    assert set(now) == set(range(HOURS)) - nobody

    exchange.log.clear()
    yahoo.log.clear()
    again = repair(lake)
    assert (again.requests, exchange.log, yahoo.log) == (0, [], [])
    assert [(run.bars, run.kind, run.providers) for run in again.found[0].runs] == [
        (2, GapKind.NO_DATA, ("coinbase", "yfinance"))
    ]


def test_what_one_provider_lacks_is_asked_of_the_next_in_the_same_run(
    lake: DeltaLakeManager, exchange: Exchange, yahoo: Yahoo
) -> None:
    land(lake, exchange, {10, 11, 12})
    exchange.market("BTC-USD").gaps += [(second(11), second(12))]
    result = repair(lake)
    assert [edges[2:] for edges in exchange.asked()] == [(at(10), at(12))]
    assert yahoo.asked() == [(at(11), at(12))]
    assert (result.filled, missing(lake)) == (3, {})
    assert [served_by(lake)[hour] for hour in (10, 11, 12)] == [["coinbase"], ["yfinance"], ["coinbase"]]


def test_a_row_that_is_bad_at_the_first_comes_from_the_next(
    lake: DeltaLakeManager, exchange: Exchange, yahoo: Yahoo
) -> None:
    land(lake, exchange, {10, 20})
    exchange.edit = lambda rows: [[row[0], row[2] + 9, *row[2:]] if row[0] == second(10) else row for row in rows]
    result = repair(lake)
    assert (result.filled, missing(lake)) == (2, {})
    assert [served_by(lake)[hour] for hour in (10, 20)] == [["yfinance"], ["coinbase"]]
    (path,) = [file for done in result.rounds for series in done.series for file in series.dlq_files]
    assert json.loads(Path(path).read_text(encoding="utf-8"))["records"][0]["reason"].startswith("high < low")


def test_a_row_that_is_bad_everywhere_stays_rejected_and_is_not_asked_for_for_ever(
    lake: DeltaLakeManager, exchange: Exchange, yahoo: Yahoo
) -> None:
    land(lake, exchange, {10})
    exchange.edit = lambda rows: [[row[0], row[2] + 9, *row[2:]] for row in rows]
    yahoo.without = {second(10)}
    yahoo.distorted = lambda rows, _: [row._replace(high=row.low - 1) for row in rows]  # type: ignore[method-assign]
    assert repair(lake).requests == 2
    assert missing(lake) == {10: "rejected"}
    exchange.log.clear()
    assert repair(lake).requests == 0
    exchange.edit = lambda rows: rows
    result = repair(lake, again=True)
    assert ([edges[2:] for edges in exchange.asked()], result.filled) == ([(at(10), at(10))], 1)


def test_again_asks_those_who_had_none(lake: DeltaLakeManager, exchange: Exchange, yahoo: Yahoo) -> None:
    land(lake, exchange, {10})
    claim(lake, 0, HOURS)
    claim(lake, 0, HOURS, "yfinance")
    assert repair(lake).requests == 0
    result = repair(lake, again=True)
    assert ([edges[2:] for edges in exchange.asked()], yahoo.log) == ([(at(10), at(10))], [])
    assert (result.filled, missing(lake)) == (1, {})


def test_a_provider_that_is_down_is_reported_and_the_next_is_asked(
    lake: DeltaLakeManager, exchange: Exchange, yahoo: Yahoo
) -> None:
    land(lake, exchange, {10, 20})
    exchange.always(status(503))
    yahoo.without = {second(20)}
    result = repair(lake)
    assert (result.filled, missing(lake)) == (1, {20: "provider has none"})
    (series,) = result.series
    assert {window.provider for window in series.errors} == {"coinbase"}
    assert result.left.bars == 1
    exchange.always(None)
    assert repair(lake).filled == 1


def test_one_provider_alone_can_be_repaired(lake: DeltaLakeManager, exchange: Exchange, yahoo: Yahoo) -> None:
    land(lake, exchange, {10})
    yahoo_rows = Scope(provider="yfinance", interval=Interval(at(8), at(12)))
    assert repair(lake, yahoo_rows).filled == 4
    assert (yahoo.asked(), exchange.log) == ([(at(8), at(12))], [])
    assert sorted(served_by(lake)[9]) == ["coinbase", "yfinance"]


def test_far_holes_do_not_share_a_request(lake: DeltaLakeManager, exchange: Exchange) -> None:
    """Three hundred minutes fit into a request."""
    job = bar_job("BTCUSD", "1m", START, START + timedelta(hours=30), now=utc_now())
    assert asyncio.run(Backfill(lake, lake.settings).run([job])).ok
    for first, end in [(60, 61), (200, 203), (359, 361), (900, 1500)]:
        take_away(lake, START + timedelta(minutes=first), START + timedelta(minutes=end))
    exchange.log.clear()
    result = repair(lake)
    minute = timedelta(minutes=1)
    assert sorted(edges[2:] for edges in exchange.asked()) == [
        (START + 60 * minute, START + 202 * minute),
        (START + 359 * minute, START + 360 * minute),
        (START + 900 * minute, START + 1199 * minute),
        (START + 1200 * minute, START + 1499 * minute),
    ]
    assert (result.filled, sum(done.total("new") for done in result.rounds)) == (606, 606)
    assert stored(lake.storage_path, "raw_market_data_1m", "BTCUSD").index.is_unique


def take_away(lake: DeltaLakeManager, start: datetime, end: datetime) -> None:
    """Lose minutes of bronze and what coverage says of them, as damage does."""
    table = DeltaTable(f"{lake.storage_path}/raw_market_data_1m")
    table.alter.set_table_properties({"delta.appendOnly": "false"})
    table.delete(f"timestamp >= '{start.isoformat()}' AND timestamp < '{end.isoformat()}'")
    gone = CoverageEntry(MARKET_DATA, "BTCUSD", "1m", "coinbase", start, end, "retracted", 0)
    lake.coverage.record([gone], "damage")


def test_four_hours_are_built_from_repaired_hours(lake: DeltaLakeManager, exchange: Exchange, yahoo: Yahoo) -> None:
    land(lake, exchange, {13, 14, 100})
    for first, end in ((0, 13), (15, 100), (101, HOURS)):
        claim(lake, first, end)
    claim(lake, 0, 12, length="4h")
    claim(lake, 16, 100, length="4h")
    claim(lake, 104, HOURS, length="4h")
    four = Timeframe.H4
    whole = exchange.truth("BTC-USD", START, at(HOURS), 3600)
    derived = [
        Bar(
            part[0].time, part[0].open, max(b.high for b in part), min(b.low for b in part), part[-1].close,
            sum(b.volume for b in part),
        )
        for part in (whole[place : place + 4] for place in range(0, HOURS, 4))
    ]  # fmt: skip
    lake.append("raw_market_data_4h", table_of([b for n, b in enumerate(derived) if n not in (3, 25)], four), "before")
    result = repair(lake)
    assert result.filled == 5
    assert find_gaps(lake)[0].missing == find_gaps(lake)[1].missing == 0
    # Hours were asked for, once; the four hours cost no request.
    assert [edges[1:] for edges in exchange.asked()] == [(3600, at(13), at(100))]
    rows = stored(lake.storage_path, "raw_market_data_4h", "BTCUSD")
    assert rows["close"].tolist() == [bar.close for bar in derived]
    assert rows["high"].tolist() == [bar.high for bar in derived]
    assert repair(lake).requests == 0


def test_four_hours_without_hours_in_the_lake_are_built_all_the_same(
    lake: DeltaLakeManager, exchange: Exchange, yahoo: Yahoo
) -> None:
    job = bar_job("BTCUSD", "4h", START, at(48), now=utc_now())
    assert asyncio.run(Backfill(lake, lake.settings).run([job])).total("new") == 12
    lake.coverage.retract(MARKET_DATA, Timeframe.H4, {"BTCUSD": IntervalSet([Interval(at(20), at(24))])}, "damage")
    table = DeltaTable(f"{lake.storage_path}/raw_market_data_4h")
    table.alter.set_table_properties({"delta.appendOnly": "false"})
    table.delete(f"timestamp = '{at(20).isoformat()}'")
    exchange.log.clear()
    assert repair(lake).filled == 1
    assert [edges[1:] for edges in exchange.asked()] == [(3600, at(20), at(23))]
    assert not lake.exists("raw_market_data_1h")


def test_what_was_done_is_recorded(lake: DeltaLakeManager, exchange: Exchange, yahoo: Yahoo) -> None:
    land(lake, exchange, {10, 20})
    exchange.market("BTC-USD").gaps += [(second(20), second(21))]
    yahoo.without = {second(20)}
    result = repair(lake)
    (row,) = lake.quality.read(kind="repair", run_id=result.run_id).to_pylist()
    assert (row["asset_pair"], row["timeframe"], row["success"]) == ("BTCUSD", "1h", False)
    assert (row["rows_checked"], row["rows_failed"], row["observed"]) == (2, 1, 1.0)
    details = json.loads(row["details"])
    assert details["before"] == {"not fetched": 2, "rejected": 0, "provider has none": 0}
    assert details["still_missing"] == {"not fetched": 0, "rejected": 0, "provider has none": 1}
    covered = [
        (entry["provider"], entry["start"], entry["end"])
        for entry in lake.coverage.read().to_pylist()
        if entry["status"] == COVERED
    ]
    assert sorted(covered) == [
        ("coinbase", at(10), at(11)),
        ("coinbase", at(20), at(21)),
        ("yfinance", at(20), at(21)),
    ]


def test_a_synthetic_lake_is_repaired_by_the_sample_provider_alone(tmp_path: Path, exchange: Exchange) -> None:
    settings = exchange_settings(tmp_path, exchange, EMBEDDED)
    lake = DeltaLakeManager(tmp_path / "sample", settings)
    for first, end in ((0, 20), (26, 48)):
        job = bar_job("BTCUSD", "1h", at(first), at(end), now=utc_now(), provider="sample")
        assert asyncio.run(Backfill(lake, settings).run([job])).ok
    assert len(missing(lake)) == 6
    assert repair(lake).filled == 6
    assert exchange.log == []
    assert set(stored(lake.storage_path, "raw_market_data_1h", "BTCUSD")["provider"]) == {"sample"}
    refused = asyncio.run(Repair(lake, settings, Scope(provider="coinbase", interval=Interval(at(0), at(9)))).run())
    assert (refused.requests, exchange.log) == (0, [])


def test_a_real_lake_is_never_repaired_by_the_sample_provider(lake: DeltaLakeManager, exchange: Exchange) -> None:
    land(lake, exchange, {10})
    for chain in (["sample"], ["sample", "coinbase"]):
        providers = lake.settings.providers.model_copy(update={"chain": chain})
        settings = lake.settings.model_copy(update={"providers": providers})
        planned = asyncio.run(Repair(lake, settings).plan(find_gaps(lake)))
        assert {ask.provider for ask in planned.asks} == set(chain) - {"sample"}
    refused = repair(lake, Scope(provider="sample", interval=Interval(at(9), at(12))))
    assert refused.requests == 0
    assert "real data" in next(iter(refused.left.skipped.values()))["sample"]


minute_holes = st.lists(
    st.tuples(st.integers(0, 3000), st.one_of(st.integers(1, 5), st.integers(250, 900))), min_size=1, max_size=12
)


@given(minute_holes)
def test_spans_hold_every_hole_once_and_need_no_more_requests(spans: list[tuple[int, int]]) -> None:
    minute = timedelta(minutes=1)
    holes = IntervalSet(Interval(START + first * minute, START + (first + size) * minute) for first, size in spans)
    asks = list(shared(BarSeries("BTCUSD", Timeframe.M1), CoinbaseSource(), holes))
    assert [part for ask in asks for part in ask.holes] == list(holes)
    for ask in asks:
        # Three hundred minutes a request.
        assert ask.requests == -(-ask.interval.length // (300 * minute))
    assert sum(ask.requests for ask in asks) <= sum(-(-part.length // (300 * minute)) for part in holes)
    for one, other in pairwise(asks):
        both = Interval(one.interval.start, next(iter(other.holes)).end)
        alone = -(-next(iter(other.holes)).length // (300 * minute))
        assert -(-both.length // (300 * minute)) >= one.requests + alone


def test_of_a_shared_answer_only_the_holes_land_and_an_unreadable_row_once() -> None:
    times = [START + place * HOUR for place in range(6)]
    texts = [when.isoformat() for when in times]
    page = Page(
        pa.table({"timestamp": [*texts, "soon"], "close": [float(n) for n in range(7)]}), Interval(at(0), at(6))
    )
    holes = IntervalSet([Interval(at(1), at(2)), Interval(at(4), at(6)), Interval(at(8), at(9))])
    job = replace(bar_job("BTCUSD", "1h", at(0), at(9), now=utc_now()), holes=holes)
    parts = pages_of(page, job)
    assert [part.covered for part in parts] == [Interval(at(1), at(2)), Interval(at(4), at(6))]
    assert [part.table["close"].to_pylist() for part in parts] == [[1.0, 6.0], [4.0, 5.0]]
    assert job.needed(IntervalSet([Interval(at(0), at(9))])) == holes


def test_the_plan_asks_nobody(lake: DeltaLakeManager, exchange: Exchange, yahoo: Yahoo) -> None:
    land(lake, exchange, {10, 12, 50})
    claim(lake, 40, 60)
    planned = asyncio.run(Repair(lake, lake.settings).plan(find_gaps(lake)))
    assert [(ask.provider, ask.interval, ask.bars, ask.requests) for ask in planned.asks] == [
        ("coinbase", Interval(at(10), at(13)), 2, 1),
        ("yfinance", Interval(at(50), at(51)), 1, 1),
    ]
    assert (exchange.log, yahoo.log) == ([], [])
    assert "key" in next(iter(planned.skipped.values()))["alpha_vantage"].lower()
