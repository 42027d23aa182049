"""Healing: what a stream missed comes from the providers, once, and no trouble of theirs reaches the stream."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from prometheus_client import REGISTRY

from pipelines.batch import BatchDataIngester
from pipelines.storage import CoverageEntry, DeltaLakeManager
from pipelines.streaming import heal
from pipelines.streaming.heal import Healer
from pipelines.timeframes import Timeframe
from tests.batch.exchange import BAR, Exchange, count, exchange_settings, stored, truth
from tests.servers.base import Fault, hang, status

DAY = datetime(2025, 12, 7, tzinfo=UTC)
SECONDS = {timeframe.seconds: timeframe for timeframe in Timeframe}


def at(clock: str, day: datetime = DAY) -> datetime:
    """Return an instant of the day, from 12:34 or 12:34:56."""
    hours, minutes, seconds = ([int(part) for part in clock.split(":")] + [0])[:3]
    return day + timedelta(hours=hours, minutes=minutes, seconds=seconds)


def opens(first: str, last: str, timeframe: Timeframe) -> set[datetime]:
    """Return the opens from the first bar to the last, both inclusive."""
    return set(pd.date_range(at(first), at(last), freq=f"{timeframe.seconds}s").to_pydatetime())


class Clock:
    """A clock that stands until it is set."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock(exchange: Exchange) -> Clock:
    exchange.clock = Clock(at("12:34:30"))
    return exchange.clock


Make = Callable[..., Healer]


@pytest.fixture
def lake(tmp_path: Path, exchange: Exchange) -> DeltaLakeManager:
    """A lake whose settings name Spark as its engine."""
    settings = exchange_settings(tmp_path, exchange, {"streaming": {"heal_hours": 2}})
    assert settings.storage.engine == "spark"
    return DeltaLakeManager(settings.delta_lake.storage_path, settings)


@pytest.fixture
def healer(lake: DeltaLakeManager, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes started healers, and stops them."""
    monkeypatch.setattr(heal, "_LOOK_SECONDS", 0.02)
    made: list[Healer] = []

    def make(*, synthetic: bool = False, **streaming: Any) -> Healer:
        changed = lake.settings.streaming.model_copy(update=streaming)
        made.append(Healer(lake, lake.settings.model_copy(update={"streaming": changed}), synthetic, clock))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.stop()


def cover(lake: DeltaLakeManager, timeframe: Timeframe, start: str, end: str) -> None:
    """Record that a stream vouches for some time."""
    entry = CoverageEntry(
        "raw_market_data", "BTCUSD", timeframe.value, "stream", at(start), at(end), status="covered", rows=1
    )
    lake.coverage.record([entry], "stream-run")


def asked(exchange: Exchange) -> dict[Timeframe, list[datetime]]:
    """Return the opens that were asked for since the last call, repeats and all."""
    found: dict[Timeframe, list[datetime]] = {}
    for _, step, first, last in exchange.asked():
        found.setdefault(SECONDS[step], []).extend(pd.date_range(first, last, freq=f"{step}s").to_pydatetime())
    exchange.log.clear()
    return found


def errors(kind: str) -> float:
    return REGISTRY.get_sample_value("pipeline_ingestion_errors_total", {"error_type": kind}) or 0.0


def has_bars(lake: DeltaLakeManager, exchange: Exchange, timeframe: Timeframe, expected: set[datetime]) -> None:
    """Assert that these bars are stored, no others, and with the exchange's values."""
    found = stored(lake.storage_path, f"raw_market_data_{timeframe.value}", "BTCUSD")
    assert set(found.index.to_pydatetime()) == expected
    real = truth(exchange, "BTC-USD", timeframe, str(min(expected)), str(max(expected) + timeframe.step))
    pd.testing.assert_frame_equal(
        found[BAR], real.loc[found.index][BAR], check_freq=False, check_index_type=False, check_names=False
    )


def test_only_what_nobody_covers_is_asked_for_and_once(
    lake: DeltaLakeManager, exchange: Exchange, healer: Make
) -> None:
    cover(lake, Timeframe.M1, "11:00", "12:00")
    cover(lake, Timeframe.H1, "10:00", "11:00")
    first = healer()
    first.heal(["BTCUSD"], at("12:34:20"))
    assert first.wait(60)
    minutes = opens("10:34", "10:59", Timeframe.M1) | opens("12:00", "12:33", Timeframe.M1)
    fetched = asked(exchange)
    assert sorted(fetched[Timeframe.M1]) == sorted(minutes)
    assert sorted(fetched[Timeframe.M5]) == sorted(opens("10:30", "12:25", Timeframe.M5))
    assert sorted(fetched[Timeframe.M15]) == sorted(opens("10:30", "12:15", Timeframe.M15))
    # 11:00 for itself; 08:00 to 10:00 for the four hours, for the stream's word does not make the exchange's bar.
    assert sorted(fetched[Timeframe.H1]) == sorted(opens("08:00", "11:00", Timeframe.H1))
    assert Timeframe.D1 not in fetched
    has_bars(lake, exchange, Timeframe.M1, minutes)
    has_bars(lake, exchange, Timeframe.H1, opens("11:00", "11:00", Timeframe.H1))
    has_bars(lake, exchange, Timeframe.H4, opens("08:00", "08:00", Timeframe.H4))

    # The same span: as another topic of the asset asks for it, and as a stream that is started anew does.
    first.heal(["BTCUSD"], at("12:34:40"))
    again = healer()
    again.heal(["BTCUSD", "btc/usd"], at("12:34:20"))
    assert first.wait(60)
    assert again.wait(60)
    assert asked(exchange) == {}
    assert first.unhealed == again.unhealed == ()


def test_a_bar_that_was_open_is_asked_for_once_it_has_closed(
    lake: DeltaLakeManager, exchange: Exchange, healer: Make, clock: Clock
) -> None:
    healing = healer()
    healing.heal(["BTCUSD"], at("12:34:20"))
    assert healing.wait(60)
    asked(exchange)
    # Five minutes after its close a bar is taken to have settled.
    clock.now = at("12:39:59")
    assert healing.wait(60)
    assert asked(exchange) == {}
    clock.now = at("12:40")
    assert healing.wait(60)
    assert asked(exchange) == {Timeframe.M1: [at("12:34")], Timeframe.M5: [at("12:30")]}
    clock.now = at("12:50")
    assert healing.wait(60)
    assert asked(exchange) == {Timeframe.M15: [at("12:30")]}
    clock.now = at("23:59")
    assert healing.wait(60)
    assert asked(exchange) == {Timeframe.H1: [at("12:00"), at("13:00"), at("14:00"), at("15:00")]}
    clock.now = at("24:05")
    assert healing.wait(60)
    assert asked(exchange) == {Timeframe.D1: [DAY]}
    has_bars(lake, exchange, Timeframe.M1, opens("10:34", "12:34", Timeframe.M1))
    has_bars(lake, exchange, Timeframe.H4, opens("08:00", "12:00", Timeframe.H4))
    clock.now = at("48:00")
    assert healing.wait(60)
    assert asked(exchange) == {}


def test_a_stream_that_is_whole_from_a_bars_open_on_builds_that_bar_itself(
    exchange: Exchange, healer: Make, clock: Clock
) -> None:
    healing = healer()
    healing.heal(["BTCUSD"], at("12:34"))
    assert healing.wait(60)
    assert max(asked(exchange)[Timeframe.M1]) == at("12:33")
    clock.now = at("12:45")
    assert healing.wait(60)
    assert asked(exchange) == {Timeframe.M5: [at("12:30")]}


def test_bars_that_come_late_from_the_provider_are_asked_for_again(
    lake: DeltaLakeManager, exchange: Exchange, healer: Make, clock: Clock
) -> None:
    published = int(at("12:31").timestamp())
    exchange.edit = lambda rows: [row for row in rows if row[0] < published]
    healing = healer()
    healing.heal(["BTCUSD"], at("12:34:20"))
    assert healing.wait(60)
    has_bars(lake, exchange, Timeframe.M1, opens("10:34", "12:30", Timeframe.M1))
    asked(exchange)
    # Not at once, however often a stream that loses its broker begins anew.
    for _ in range(3):
        healing.heal(["BTCUSD"], at("12:34:25"))
        assert healing.wait(60)
    assert asked(exchange) == {}
    exchange.edit = lambda rows: rows
    clock.now = at("12:40")
    assert healing.wait(60)
    has_bars(lake, exchange, Timeframe.M1, opens("10:34", "12:34", Timeframe.M1))


def test_a_provider_that_is_down_is_told_of_and_asked_again_later(
    lake: DeltaLakeManager, exchange: Exchange, healer: Make, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.always(status(503))
    before = errors("heal_failed")
    healing = healer(heal_hours=0.5)
    healing.heal(["BTCUSD"], at("12:34:20"))
    assert healing.wait(60)
    assert "503" in "".join(healing.unhealed)
    assert "BTCUSD 1m" in "".join(healing.unhealed)
    assert "not healed: BTCUSD 1m" in caplog.text
    # Of the hour's, the four hours' and the day's bar nothing has closed; the others were asked for in vain.
    assert errors("heal_failed") == before + 3
    assert asked(exchange)
    clock.now += timedelta(seconds=59)
    assert healing.wait(60)
    assert asked(exchange) == {}
    exchange.always(None)
    clock.now += timedelta(seconds=1)
    assert healing.wait(60)
    assert healing.unhealed == ()
    has_bars(lake, exchange, Timeframe.M1, opens("12:04", "12:34", Timeframe.M1))


def test_what_nobody_gives_is_left_alone_in_the_end(exchange: Exchange, healer: Make, clock: Clock) -> None:
    exchange.always(status(503))
    healing = healer(heal_hours=0.1)
    healing.heal(["BTCUSD"], at("12:34:20"))
    tries = 0
    for minutes in (0, 1, 5, 15, 60, 24 * 60, 24 * 60):
        clock.now += timedelta(minutes=minutes)
        assert healing.wait(60)
        tries += at("12:33") in asked(exchange).get(Timeframe.M1, [])
    assert tries == 5


def test_whatever_is_wrong_with_lake_or_asset_is_counted_and_raises_nothing(
    lake: DeltaLakeManager, exchange: Exchange, healer: Make
) -> None:
    lake.coverage.record(
        [CoverageEntry("raw_market_data", "ETHUSD", "1h", "sample", DAY, at("01:00"), status="covered", rows=1)],
        "made-up",
        synthetic=True,
    )
    before = errors("MixedOriginError"), errors("UnknownAssetError")
    healing = healer()
    healing.heal(["BTCUSD", "NO SUCH THING"], at("12:34:20"))
    healing.heal(["NO SUCH THING"], at("12:34:20"))
    assert healing.wait(60)
    assert (errors("MixedOriginError"), errors("UnknownAssetError")) == (before[0] + 6, before[1] + 1)
    said = "\n".join(healing.unhealed)
    assert "holds synthetic data" in said
    assert "NO SUCH THING" in said
    assert asked(exchange) == {}


def test_a_lake_of_synthetic_data_is_healed_by_the_sample_provider(
    lake: DeltaLakeManager, exchange: Exchange, healer: Make
) -> None:
    lake.coverage.record(
        [CoverageEntry("raw_market_data", "BTCUSD", "1m", "stream", at("11:00"), at("12:00"), "covered", 60)],
        "stream-run",
        synthetic=True,
    )
    healing = healer(synthetic=True)
    healing.heal(["BTCUSD"], at("12:34:20"))
    assert healing.wait(60)
    found = stored(lake.storage_path, "raw_market_data_1m", "BTCUSD")
    expected = opens("10:34", "10:59", Timeframe.M1) | opens("12:00", "12:33", Timeframe.M1)
    assert set(found.index.to_pydatetime()) == expected
    assert set(found["provider"]) == {"sample"}
    assert asked(exchange) == {}


async def test_it_commits_without_spark_whatever_the_settings_say(lake: DeltaLakeManager, healer: Make) -> None:
    healing = healer()
    healing.heal(["BTCUSD"], at("12:34:20"))
    assert healing.wait(60)
    log = Path(lake.storage_path) / "raw_market_data_1m" / "_delta_log"
    actions = [json.loads(line) for file in log.glob("*.json") for line in file.read_text("utf-8").splitlines()]
    writes = [each["commitInfo"] for each in actions if each.get("commitInfo", {}).get("operation") == "WRITE"]
    assert writes
    assert all(write["clientVersion"].startswith("delta-rs") for write in writes)
    # What it has recorded counts for the batch ingester.
    ingester = BatchDataIngester(lake, lake.settings, clock=lambda: at("12:34:30"))
    assert (await ingester.ingest_historical_data("BTCUSD", "1m", at("11:00"), at("12:00"))).coverage == 1.0


def test_nothing_is_asked_for_where_healing_is_off(lake: DeltaLakeManager, exchange: Exchange, healer: Make) -> None:
    healing = healer(heal_hours=0.0)
    healing.heal(["BTCUSD"], at("12:34:20"))
    assert healing.wait(10)
    assert exchange.log == []


def test_the_end_waits_for_no_answer_and_keeps_what_came(
    lake: DeltaLakeManager, exchange: Exchange, healer: Make
) -> None:
    exchange.misbehave(Fault("none"))
    exchange.always(hang(30))
    healing = healer()
    healing.heal(["BTCUSD"], at("12:34:20"))
    # One length is answered for and lands; the answers of three others never come.
    while len(exchange.log) < 4 or not any(name.startswith("raw_") for name in tables(lake)):
        assert not healing.wait(0.01)
    started = time.monotonic()
    healing.stop()
    assert time.monotonic() - started < 20
    assert healing.wait(0)
    assert len(count(lake.storage_path)) == 1
    assert healing.unhealed == ()


def tables(lake: DeltaLakeManager) -> list[str]:
    return [table.name for table in lake.tables()]
