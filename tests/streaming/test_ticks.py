"""Ticks to bronze and bars, however they arrive and whenever the stream dies."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pipelines.config import Settings
from pipelines.contracts import load_contracts
from pipelines.edge import edge_schema
from pipelines.storage import DeltaLakeManager
from pipelines.storage.writing.marks import MarkedAheadError
from pipelines.streaming.clients import Offsets
from pipelines.streaming.heal import Healer
from pipelines.streaming.landing import StreamError
from pipelines.streaming.ticks import TOO_LATE
from tests.batch.exchange import Exchange, exchange_settings
from tests.conftest import make_settings
from tests.streaming.tick_log import (
    START,
    Tick,
    TickLog,
    assert_exact,
    dead_letters,
    tick_landing,
)

HOME = {"BTCUSD": 0, "ETHUSD": 1, "SOLUSD": 1}
EMBEDDED = {"storage": {"engine": "embedded"}}


class DiedError(Exception):
    """The process ended."""


class Mortal(DeltaLakeManager):
    """A lake whose user dies before or after some of the commits."""

    def __init__(self, *given: Any, deaths: Sequence[tuple[int, bool]] = (), **named: Any) -> None:
        super().__init__(*given, **named)
        self.deaths = dict(deaths)
        self.commits = 0

    def append(self, *given: Any, **named: Any) -> Any:
        self.commits += 1
        after = self.deaths.pop(self.commits, None)
        if after is False:
            raise DiedError
        done = super().append(*given, **named)
        if after:
            raise DiedError
        return done


def stream(lake: DeltaLakeManager, log: TickLog, sizes: Sequence[int]) -> None:
    """Read all of a log in batches of these sizes, starting anew after each death."""
    turn = 0
    while True:
        landing = tick_landing(lake, lake.settings)
        try:
            positions = landing.resume(log.offsets)
            while any(len(ticks) > landing.positions.get(p, 0) for p, ticks in log.partitions.items()):
                wanted = {p: sizes[(turn + p) % len(sizes)] for p in log.partitions}
                turn += 1
                landing.land(log.batch(landing.positions, wanted), log.offsets.end, lambda: log.offsets.beginning)
            landing.close()
        except DiedError:
            continue
        assert positions is not None
        return


@st.composite
def logs(draw: st.DrawFn) -> TickLog:
    """Ticks in and out of order, some twice, some an hour late, some no ticks at all."""
    log, now = TickLog({0: [], 1: []}), START
    for number in range(draw(st.integers(1, 60))):
        now += timedelta(seconds=draw(st.sampled_from([0, 1, 7, 31, 95, 400])))
        asset = draw(st.sampled_from(sorted(HOME)))
        home = log.partitions[HOME[asset]]
        kind = draw(st.sampled_from(["tick"] * 6 + ["again", "late", "very late", "bad"]))
        late = {"late": timedelta(minutes=draw(st.integers(1, 9))), "very late": timedelta(hours=1)}
        price, volume = draw(st.sampled_from([1.0, 1.25, 2.5, 3.75])), draw(st.sampled_from([None, 0.5, 2.0]))
        tick = Tick(
            asset, now - late.get(kind, timedelta()), price, volume, str(number), "{" if kind == "bad" else None
        )
        before = [each for each in home if each.asset == asset and each.bad is None]
        home.append(draw(st.sampled_from(before)) if kind == "again" and before else tick)
    return log


# A failure takes too long to shrink: each example writes a lake.
PHASES = [Phase.explicit, Phase.generate]
WHATEVER = given(
    log=logs(),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    deaths=st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=3),
)


def ends_right(folders: pytest.TempPathFactory, log: TickLog, sizes: list[int], deaths: list[tuple[int, bool]]) -> None:
    found = make_settings(folders.mktemp("stream"), EMBEDDED)
    stream(Mortal(found.delta_lake.storage_path, found, deaths=deaths), log, sizes)
    assert_exact(DeltaLakeManager(found.delta_lake.storage_path, found), log)


@settings(max_examples=12, phases=PHASES)
@WHATEVER
def test_whatever_arrives_and_whenever_it_dies_it_ends_right(
    tmp_path_factory: pytest.TempPathFactory, log: TickLog, sizes: list[int], deaths: list[tuple[int, bool]]
) -> None:
    ends_right(tmp_path_factory, log, sizes, deaths)


@pytest.mark.soak
@settings(max_examples=300, phases=PHASES)
@WHATEVER
def test_whatever_arrives_it_ends_right_many_times(
    tmp_path_factory: pytest.TempPathFactory, log: TickLog, sizes: list[int], deaths: list[tuple[int, bool]]
) -> None:
    ends_right(tmp_path_factory, log, sizes, deaths)


def test_a_batch_that_is_read_again_in_parts_is_refused_once(tmp_path: Path) -> None:
    found = make_settings(tmp_path, EMBEDDED)
    log = TickLog(
        {0: [tick(number) if number % 4 else Tick("BTCUSD", START, 1.0, 1.0, "", "{") for number in range(9)]}
    )
    # The first commit is of where reading begins; it dies between the dead letters and the rows.
    stream(Mortal(found.delta_lake.storage_path, found, deaths=[(2, False)]), log, [9, 2, 2, 2, 2, 2])
    assert_exact(DeltaLakeManager(found.delta_lake.storage_path, found), log)


@pytest.fixture
def lake(tmp_path: Path) -> DeltaLakeManager:
    found = make_settings(tmp_path, EMBEDDED)
    return DeltaLakeManager(found.delta_lake.storage_path, found)


def tick(seconds: float, price: float = 1.0, *, asset: str = "BTCUSD", number: str | None = None) -> Tick:
    """Return a tick of BTCUSD so many seconds after the start, which is 20 s into a minute."""
    return Tick(asset, START + timedelta(seconds=seconds), price, 1.0, number or f"{asset}{seconds}")


def minutes(lake: DeltaLakeManager) -> list[tuple[str, float, float]]:
    """Return minute, close and volume of every version of a 1m bar, in the order they landed."""
    if not lake.exists("raw_market_data_1m"):
        return []
    rows = lake.read_table("raw_market_data_1m").sort_values(["ingested_at", "timestamp"])
    return [(f"{row.timestamp:%H:%M}", row.close, row.volume) for row in rows.itertuples()]


def test_the_minute_a_stream_begins_in_is_no_bar(lake: DeltaLakeManager) -> None:
    log = TickLog({0: [tick(0), tick(30), tick(45, 2.0), tick(110, 3.0)]})
    stream(lake, log, [10])
    # 10:00:20 is in the middle of a minute, 10:02:10 of one that is not over.
    assert minutes(lake) == [("10:01", 2.0, 1.0)]


def test_a_stream_that_goes_on_has_no_part_minute(lake: DeltaLakeManager) -> None:
    log = TickLog({0: [tick(0), tick(45), tick(50, 1.5)]})
    stream(lake, log, [10])
    log.partitions[0] += [tick(70, 2.0), tick(110, 3.0)]
    stream(lake, log, [10])
    assert minutes(lake) == [("10:01", 2.0, 3.0)]


def test_a_late_tick_restates_its_bar(lake: DeltaLakeManager) -> None:
    log = TickLog({0: [tick(0), tick(50, 2.0), tick(110, 3.0)]})
    stream(lake, log, [10])
    log.partitions[0] += [tick(60, 2.5), tick(170, 4.0)]
    stream(lake, log, [10])
    assert minutes(lake) == [("10:01", 2.0, 1.0), ("10:01", 2.5, 2.0), ("10:02", 3.0, 1.0)]


def test_a_tick_that_is_delivered_again_counts_once(lake: DeltaLakeManager) -> None:
    log = TickLog({0: [tick(0), tick(50, 2.0), tick(50, 2.0)]})
    stream(lake, log, [10])
    log.partitions[0] += [tick(50, 2.0), tick(110, 3.0)]
    stream(lake, log, [10])
    assert minutes(lake) == [("10:01", 2.0, 1.0)]
    assert len(lake.read_table("raw_market_ticks")) == 5


def test_what_is_too_late_is_told(lake: DeltaLakeManager) -> None:
    log = TickLog({0: [tick(0), tick(4000), tick(100, 9.0), tick(4100)]})
    stream(lake, log, [10])
    (refused,) = dead_letters(lake.settings)
    assert refused["reason"] == TOO_LATE
    assert refused["kafka_offset"] == 2
    assert all(close != 9.0 for _, close, _ in minutes(lake))


def test_a_clock_that_is_ahead_moves_no_bar(lake: DeltaLakeManager) -> None:
    ahead = TickLog().produced_at - START + timedelta(minutes=2)
    log = TickLog({0: [tick(0), tick(ahead.total_seconds()), tick(50, 2.0), tick(110, 3.0)]})
    stream(lake, log, [10])
    (refused,) = dead_letters(lake.settings)
    assert str(refused["reason"]).startswith("from the future")
    assert minutes(lake) == [("10:01", 2.0, 1.0)]


def test_a_partition_that_lags_holds_bars_back(lake: DeltaLakeManager) -> None:
    log = TickLog({0: [tick(0), tick(130)], 1: [tick(1, asset="ETHUSD"), tick(50, 2.0, asset="ETHUSD")]})
    landing = tick_landing(lake, lake.settings)
    landing.resume(log.offsets)
    landing.land(log.batch({}, {0: 2, 1: 1}), log.offsets.end, dict)
    assert minutes(lake) == []
    landing.land(log.batch(landing.positions, {0: 1, 1: 1}), log.offsets.end, dict)
    assert minutes(lake) == [("10:01", 2.0, 1.0)]


def test_the_last_bar_closes_though_no_message_comes(lake: DeltaLakeManager) -> None:
    log = TickLog({0: [tick(0), tick(95, 2.0)]})
    landing = tick_landing(lake, lake.settings)
    landing.resume(log.offsets)
    landing.land(log.batch({}, {0: 9}), log.offsets.end, dict)
    assert landing.idle(log.offsets.end) == 0
    landing._moved -= 60
    assert landing.idle({0: 3}) == 0, "a message is on its way"
    # The bar of 10:01, and those of its 5, 15 minutes and longer are still open.
    assert landing.idle(log.offsets.end) == 1
    assert minutes(lake) == [("10:01", 2.0, 1.0)]


def test_offsets_that_expired_are_told_and_no_bar_is_built_across_them(lake: DeltaLakeManager) -> None:
    asked: list[tuple[list[str], datetime]] = []
    log = TickLog(
        {0: [tick(0), tick(50, 2.0), tick(110, 3.0), tick(120, 3.5), tick(125, 3.6), tick(170, 4.0), tick(230)]}
    )
    first = tick_landing(lake, lake.settings)
    first.resume(log.offsets)
    first.land(log.batch({}, {0: 3}), log.offsets.end, dict)
    again = tick_landing(lake, lake.settings, heal=lambda assets, until: asked.append((list(assets), until)))
    held = type(log.offsets)({0: 4}, log.offsets.end)
    assert again.resume(held) == {0: 4}
    assert again.lost == [(0, 3, 4)]
    again.land(log.batch(again.positions, {0: 9}), log.offsets.end, lambda: held.beginning)
    # 10:02 has the hole, and reading goes on in its middle.
    assert minutes(lake) == [("10:01", 2.0, 1.0), ("10:03", 4.0, 1.0)]
    (told,) = dead_letters(lake.settings)
    assert told["reason"] == "expired before it was read"
    assert (told["kafka_partition"], told["from_offset"], told["until_offset"]) == (0, 3, 4)
    assert asked[-1] == (["BTCUSD"], datetime.fromisoformat("2025-12-07T10:03:00+00:00"))


def test_bars_across_expired_offsets_come_from_the_providers(tmp_path: Path, exchange: Exchange) -> None:
    found = exchange_settings(tmp_path, exchange, EMBEDDED, {"streaming": {"heal_hours": 1}})
    lake = DeltaLakeManager(found.delta_lake.storage_path, found)
    log = TickLog({0: [tick(0), tick(50, 2.0), tick(110, 3.0), tick(125, 3.6), tick(170, 4.0), tick(230)]})
    tick_landing(lake, found).resume(log.offsets)
    healer = Healer(lake, found, synthetic=False)
    healer.start()
    landing = tick_landing(lake, found, heal=healer.heal)
    landing.resume(Offsets({0: 3}, log.offsets.end))
    landing.land(log.batch(landing.positions, {0: 9}), log.offsets.end, lambda: {0: 3})
    assert healer.wait(60)
    healer.stop()
    rows = lake.read_table("raw_market_data_1m")
    whose = {f"{row.timestamp:%H:%M}": row.provider for row in rows.itertuples()}
    assert [whose[minute] for minute in ("10:01", "10:02", "10:03")] == ["coinbase", "coinbase", "stream"]


def test_others_may_work_on_the_same_tables(tmp_path: Path) -> None:
    found = make_settings(tmp_path, EMBEDDED)
    lake = DeltaLakeManager(found.delta_lake.storage_path, found)
    chance, log = random.Random(5), TickLog({0: [], 1: []})
    for number in range(1500):
        asset = chance.choice(sorted(HOME))
        log.partitions[HOME[asset]].append(tick(number + chance.uniform(-2, 2), chance.uniform(1, 2), asset=asset))
    done = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        others = [pool.submit(compact_again_and_again, found, done), pool.submit(load_bars, found, done)]
        try:
            stream(lake, log, [40])
        finally:
            done.set()
        compactions, loads = (other.result() for other in others)
    assert compactions > 2
    assert loads > 2
    assert_exact(lake, log)
    rows = lake.read_table("raw_market_data_1m")
    assert (rows["provider"] == "coinbase").sum() == loads


def compact_again_and_again(found: Settings, done: threading.Event) -> int:
    """Compact both tables while there is something to stream; returns how often."""
    lake, times = DeltaLakeManager(found.delta_lake.storage_path, found), 0
    while not done.wait(0.1):
        for table in ("raw_market_ticks", "raw_market_data_1m"):
            if lake.exists(table):
                lake.optimize_table(table)
                times += 1
    return times


def load_bars(found: Settings, done: threading.Event) -> int:
    """Land a provider's bars among the stream's; returns how many."""
    lake, times = DeltaLakeManager(found.delta_lake.storage_path, found), 0
    while not done.wait(0.1):
        when = START.replace(second=0) + timedelta(minutes=times)
        bar = {"asset_pair": "BTCUSD", "timeframe": "1m", "timestamp": when, "provider": "coinbase"}
        prices = dict.fromkeys(("open", "high", "low", "close", "volume"), 1.0)
        sides = {"price_side": "trade", "is_adjusted": False, "is_derived": False}
        schema = edge_schema(load_contracts()["raw_market_data"])
        lake.append("raw_market_data_1m", pa.Table.from_pylist([bar | prices | sides], schema=schema), "load")
        times += 1
    return times


def test_two_at_once_are_found_out(lake: DeltaLakeManager) -> None:
    log = TickLog({0: [tick(0), tick(50), tick(110)]})
    one, other = tick_landing(lake, lake.settings), tick_landing(lake, lake.settings)
    one.resume(log.offsets)
    other.resume(log.offsets)
    one.land(log.batch({}, {0: 2}), log.offsets.end, dict)
    with pytest.raises(MarkedAheadError, match="another process reads crypto_ticks"):
        other.land(log.batch({}, {0: 3}), log.offsets.end, dict)
    assert len(lake.read_table("raw_market_ticks")) == 2


def test_a_topic_that_was_made_anew_is_not_read_on(lake: DeltaLakeManager) -> None:
    log = TickLog({0: [tick(0), tick(50), tick(110)]})
    stream(lake, log, [10])
    with pytest.raises(StreamError, match="made anew"):
        tick_landing(lake, lake.settings).resume(TickLog({0: [tick(0)]}).offsets)


def test_a_partition_that_is_new_is_read_from_its_beginning(lake: DeltaLakeManager) -> None:
    log = TickLog({0: [tick(0), tick(50)]})
    stream(lake, log, [10])
    log.partitions[1] = [tick(55, 5.0, asset="ETHUSD"), tick(200, asset="ETHUSD")]
    stream(lake, log, [10])
    assert sorted(minutes(lake)) == [("10:01", 1.0, 1.0), ("10:01", 5.0, 1.0)]
