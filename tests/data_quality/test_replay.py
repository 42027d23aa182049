"""Replayed dead letters: good rows land once, the rest stays, and nothing is lost or doubled by a kill."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.batch.coverage import CoverageMap
from pipelines.batch.engine import Backfill
from pipelines.batch.jobs import bar_job
from pipelines.config import PROJECT_ROOT
from pipelines.data_quality import DataQualityFramework, DeadLetterQueue
from pipelines.data_quality.agreement import agreement
from pipelines.data_quality.replay import Replay
from pipelines.data_quality.replay_landing import SUPERSEDED
from pipelines.data_quality.replay_rows import NOT_TOLD
from pipelines.data_quality.restatements import restatements
from pipelines.intervals import Interval
from pipelines.storage import CoverageEntry, DeltaLakeManager
from pipelines.timeframes import utc_now
from tests.batch.exchange import Exchange, exchange_settings
from tests.conftest import make_settings
from tests.data_quality.dead_letters import FIRST, HOURS, bar, bury, records, replayed, stored
from tests.storage.bars import bars

SEED = 20_251_214
SERIES = ("raw_market_data", "BTCUSD", "1h")


@pytest.fixture
def queue(tmp_path: Path) -> DeadLetterQueue:
    return DeadLetterQueue(tmp_path / "dlq")


def coverage(lake: DeltaLakeManager) -> CoverageMap:
    return CoverageMap.from_table(lake.coverage.read())


def landed_bar(number: int) -> pa.Table:
    """Return the bar that `bar` gives, as the edge hands it to storage."""
    columns = {**bar(number, high=101.0), "timestamp": FIRST + timedelta(hours=number), **HOURS}
    schema = bars(count=1, assets=("BTCUSD",)).schema
    return pa.Table.from_pylist([{name: columns[name] for name in schema.names}], schema=schema)


# ---- what lands, what stays


def test_good_rows_land_and_bad_ones_stay(queue: DeadLetterQueue, embedded_lake: DeltaLakeManager) -> None:
    rows = [bar(0), bar(1, high=50.0), bar(2)]
    path = bury(queue, rows)
    content = path.read_bytes()
    found = replayed(queue, embedded_lake)
    assert (found.rows, found.new, found.restated, found.repeated, found.refused) == (3, 2, 0, 0, 1)
    landed = stored(embedded_lake)
    assert landed["high"].tolist() == [101.0, 103.0]
    assert set(landed["provider"]) == {"coinbase"}
    assert found.archived == queue.path / "archive" / path.name
    assert found.archived.read_bytes() == content
    assert queue.files() == [found.dlq_file]
    document = json.loads(found.dlq_file.read_text(encoding="utf-8"))
    (left,) = document["records"]
    reason = left.pop("reason")
    assert left == rows[1]
    assert "high < low" in reason
    assert document["context"] == {
        **HOURS,
        "replayed_from": path.name,
        "refused_at": document["context"]["refused_at"],
    }


def test_landed_time_is_rejected_no_longer(queue: DeadLetterQueue, embedded_lake: DeltaLakeManager) -> None:
    entry = CoverageEntry(*SERIES, "coinbase", FIRST, FIRST + timedelta(hours=3), "rejected", 0)
    embedded_lake.coverage.record([entry], "run")
    bury(queue, [bar(0), bar(1, high=50.0), bar(2)])
    replayed(queue, embedded_lake)
    hour = timedelta(hours=1)
    known = coverage(embedded_lake)
    assert list(known.rejected(SERIES, "coinbase")) == [Interval(FIRST + hour, FIRST + 2 * hour)]
    assert known.covered(SERIES, "coinbase").length == 2 * hour


def test_rows_refused_for_the_same_reasons_stay_where_they_are(
    queue: DeadLetterQueue, embedded_lake: DeltaLakeManager
) -> None:
    bury(queue, [bar(0), bar(1, high=50.0)])
    first = replayed(queue, embedded_lake)
    again = replayed(queue, embedded_lake)
    assert (again.rows, again.refused, again.dlq_file, again.archived) == (1, 1, first.dlq_file, None)
    assert queue.files() == [first.dlq_file]


def test_a_batch_refused_again_after_its_replay_is_not_written_twice(
    queue: DeadLetterQueue, embedded_lake: DeltaLakeManager
) -> None:
    bury(queue, [bar(0), bar(1, high=50.0)])
    left = replayed(queue, embedded_lake).dlq_file
    why = records(left)[0]["reason"]
    assert bury(queue, [bar(1, high=50.0)], why=why) == left


def test_an_empty_file_is_put_away(queue: DeadLetterQueue, embedded_lake: DeltaLakeManager) -> None:
    bury(queue, [])
    found = replayed(queue, embedded_lake)
    assert (found.rows, found.error, found.dlq_file) == (0, None, None)
    assert found.archived is not None
    assert queue.files() == []


def test_a_dry_run_changes_nothing(queue: DeadLetterQueue, embedded_lake: DeltaLakeManager) -> None:
    path = bury(queue, [bar(0, open=99.5), bar(1), bar(1), bar(2, high=50.0), bar(3, high=101.0)])
    embedded_lake.append("raw_market_data_1h", bars(count=4, assets=("BTCUSD",)).slice(0, 1), "later")
    embedded_lake.append("raw_market_data_1h", landed_bar(3), "later")
    before = stored(embedded_lake), embedded_lake.coverage.read().num_rows
    found = replayed(queue, embedded_lake, dry_run=True)
    assert (found.rows, found.new, found.restated, found.repeated, found.refused) == (5, 1, 0, 2, 2)
    assert (found.archived, found.dlq_file, queue.files()) == (None, None, [path])
    pd.testing.assert_frame_equal(stored(embedded_lake), before[0])
    assert embedded_lake.coverage.read().num_rows == before[1]


def test_an_older_row_does_not_hide_a_newer_version(queue: DeadLetterQueue, embedded_lake: DeltaLakeManager) -> None:
    path = bury(queue, [bar(0), bar(1)])
    correct = bars(count=1, assets=("BTCUSD",))
    embedded_lake.append("raw_market_data_1h", correct, "later")
    found = replayed(queue, embedded_lake)
    assert (found.new, found.restated, found.refused, dict(found.reasons)) == (1, 0, 1, {SUPERSEDED: 1})
    assert len(stored(embedded_lake)) == 2
    # Nor does it after another replay, whose own file is younger than the lake's version.
    again = replayed(queue, embedded_lake)
    assert (again.new, again.restated, again.refused) == (0, 0, 1)
    assert json.loads(again.dlq_file.read_text("utf-8"))["context"]["replayed_from"] == path.name


def test_a_row_refused_after_the_lake_s_version_restates_it(
    queue: DeadLetterQueue, embedded_lake: DeltaLakeManager
) -> None:
    embedded_lake.append("raw_market_data_1h", bars(count=1, assets=("BTCUSD",)), "earlier")
    path = bury(queue, [bar(0)])
    document = path.read_text(encoding="utf-8")
    stamp = json.loads(document)["timestamp"]
    later = (utc_now() + timedelta(seconds=5)).strftime("%Y-%m-%dT%H:%M:%S")
    path.write_text(document.replace(stamp, later), encoding="utf-8")
    found = replayed(queue, embedded_lake)
    assert (found.new, found.restated, found.refused) == (0, 1, 0)
    assert stored(embedded_lake)["high"].tolist()[-1] == 101.0


@pytest.mark.parametrize("chunk_rows", [1, 2, 100])
def test_of_contradicting_rows_the_first_lands(
    queue: DeadLetterQueue, embedded_lake: DeltaLakeManager, chunk_rows: int
) -> None:
    bury(queue, [bar(0), bar(0, close=100.25), bar(0), bar(1)])
    found = replayed(queue, embedded_lake, chunk_rows=chunk_rows)
    assert (found.new, found.restated, found.repeated, found.refused) == (2, 0, 1, 1)
    assert stored(embedded_lake)["close"].tolist() == [100.5, 100.5]


def test_one_wrong_value_spoils_only_its_row(queue: DeadLetterQueue, embedded_lake: DeltaLakeManager) -> None:
    rows = [
        bar(0),
        bar(1, volume="much"),
        bar(2, volume=None),
        bar(3, close="100.25"),
        bar(4, open=True),
        bar(5, low=99),
    ]
    bury(queue, [*rows, {"timestamp": "2025-12-07T06:00:00"}, {}, bar(7, high="inf"), bar(8, close=10**30)])
    found = replayed(queue, embedded_lake)
    assert (found.new, found.refused) == (4, 6)
    assert stored(embedded_lake)["close"].tolist() == [100.5, 100.5, 100.25, 100.5]
    assert len(records(found.dlq_file)) == 6
    assert next(row for row in records(found.dlq_file) if "volume" in row)["volume"] == "much"


@pytest.mark.parametrize(
    "column", [{"volume": "***"}, {"timestamp": "https://host/?apikey=***"}, {"volume": ["token=***"]}]
)
def test_a_hidden_value_is_no_data(
    queue: DeadLetterQueue, embedded_lake: DeltaLakeManager, column: dict[str, object]
) -> None:
    bury(queue, [bar(0, **column), bar(1, note="token=***")])
    found = replayed(queue, embedded_lake)
    assert (found.new, dict(found.reasons)) == (1, {f"hidden value: {next(iter(column))}": 1})


def test_hidden_text_is_not_landed_as_news(queue: DeadLetterQueue, embedded_lake: DeltaLakeManager) -> None:
    article = {
        "article_id": "a", "timestamp": "2025-12-07T00:00:00+00:00", "title": "Up", "source_name": "wire",
        "url": "https://host/a", "summary": "s", "sentiment_score": 0.5, "sentiment_label": "Bullish",
        "relevance_score": 0.5, "topics": ["a"],
    }  # fmt: skip
    rows = [
        article,
        {**article, "article_id": "b", "url": "https://host/a?apikey=SECRET123"},
        {**article, "article_id": "c", "topics": None, "title": "b'bytes'"},
        {**article, "article_id": "d", "topics": []},
        {**article, "article_id": "e", "topics": [1, "x"]},
    ]
    context = {"dataset": "raw_news_sentiment", "asset_pair": "BTCUSD", "provider": "alpha_vantage"}
    bury(queue, rows, context)
    lost = {**article, "article_id": "f", "topics": None}
    bury(queue, [lost], context, why="topics is not list<element: string>: 'x'")
    result = Replay(queue, embedded_lake.settings, lambda _: embedded_lake).run(queue.files())
    assert result.total("rows") == 6
    assert sorted(stored(embedded_lake, "raw_news_sentiment")["article_id"]) == ["a", "d"]
    reasons = [reason for each in result.files for reason in each.reasons]
    assert {"hidden value: url", "bytes for text: title"} <= set(reasons)
    assert sum("topics" in reason for reason in reasons) == 2


# ---- what the edge is told


@pytest.mark.parametrize(
    ("provider", "told", "side", "adjusted"),
    [
        ("oanda", {}, "mid", False),
        ("oanda", {"price_side": "bid"}, "bid", False),
        ("files", {"price_side": "ask", "is_adjusted": True}, "ask", True),
        ("yfinance", {}, "trade", False),
        ("a_venue", {"price_side": "trade", "is_adjusted": False}, "trade", False),
    ],
)
def test_what_the_file_does_not_tell_the_provider_does(
    queue: DeadLetterQueue,
    embedded_lake: DeltaLakeManager,
    provider: str,
    told: dict[str, object],
    side: str,
    adjusted: bool,
) -> None:
    context = {"dataset": "raw_market_data", "asset_pair": "EURUSD", "provider": provider, "timeframe": "1h", **told}
    bury(queue, [bar(0, high=101.0)], context)
    found = replayed(queue, embedded_lake)
    assert (found.error, found.new) == (None, 1), found
    (row,) = stored(embedded_lake).to_dict("records")
    assert (row["provider"], row["price_side"], row["is_adjusted"], row["is_derived"]) == (
        provider,
        side,
        adjusted,
        False,
    )


def test_a_provider_nobody_knows_tells_nothing(queue: DeadLetterQueue, embedded_lake: DeltaLakeManager) -> None:
    bury(queue, [bar(0)], {"dataset": "raw_market_data", "asset_pair": "BTCUSD", "provider": "x", "timeframe": "1h"})
    found = replayed(queue, embedded_lake)
    assert (found.new, found.refused) == (0, 1)
    assert "unknown provider x" in next(iter(found.reasons))


def test_finer_bars_are_not_taken_for_those_built_from_them(
    queue: DeadLetterQueue, embedded_lake: DeltaLakeManager
) -> None:
    older = {"dataset": "raw_market_data", "asset_pair": "BTCUSD", "provider": "coinbase", "timeframe": "4h"}
    bury(queue, [bar(0)], older)
    assert dict(replayed(queue, embedded_lake).reasons) == {NOT_TOLD: 1}
    queue.files()[0].unlink()
    bury(queue, [bar(0)], {**older, "is_derived": True, "price_side": "trade", "is_adjusted": False})
    assert replayed(queue, embedded_lake).new == 1
    assert stored(embedded_lake, "raw_market_data_4h")["is_derived"].tolist() == [True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "raw_wheather"}, "no contract 'raw_wheather'"),
        ({"dataset": "ingest_coverage"}, "no key"),
        ({"asset_pair": "NOBODYKNOWS"}, "NOBODYKNOWS"),
        ({"timeframe": "7h"}, "unknown timeframe '7h'"),
        ({"dataset": None, "timeframe": None}, "does not say of which dataset"),
    ],
)
def test_a_file_about_something_unknown_is_kept(
    queue: DeadLetterQueue, embedded_lake: DeltaLakeManager, change: dict[str, object], message: str
) -> None:
    context = {name: value for name, value in {**HOURS, **change}.items() if value is not None}
    path = bury(queue, [bar(0)], context)
    found = replayed(queue, embedded_lake)
    assert found.error is not None
    assert message in found.error
    assert path.name in found.error
    assert queue.files() == [path]


def test_made_up_rows_go_to_a_synthetic_lake_alone(queue: DeadLetterQueue, tmp_path: Path) -> None:
    made_up, real = (
        DeltaLakeManager(tmp_path / name, make_settings(tmp_path, {"storage": {"engine": "embedded"}}))
        for name in ("sample", "real")
    )
    real.append("raw_market_data_1h", bars(count=1), "run")
    path = bury(queue, [bar(0)], {**HOURS, "provider": "sample"})
    refused = replayed(queue, real)
    assert refused.error is not None
    assert queue.files() == [path]
    assert len(stored(real)) == 2
    assert replayed(queue, made_up).new == 1
    bury(queue, [bar(1)])
    assert "synthetic" in str(replayed(queue, made_up).error)


def test_rows_a_suite_refused_are_sorted_by_provider(queue: DeadLetterQueue, embedded_lake: DeltaLakeManager) -> None:
    table = bars(count=6, assets=("BTCUSD",)).to_pandas()
    table["provider"] = ["coinbase", "oanda"] * 3
    table["price_side"] = ["trade", "mid"] * 3
    table.loc[:4, "high"] = 0.0
    outcome = DataQualityFramework(dlq=queue).validate_dataframe(table)
    assert outcome.failed_rows == 5
    text = outcome.dlq_file.read_text(encoding="utf-8")
    outcome.dlq_file.write_text(text.replace('"high": 0.0', '"high": 102.0'), encoding="utf-8")
    found = replayed(queue, embedded_lake)
    assert (found.error, found.new, found.refused) == (None, 5, 0)
    landed = stored(embedded_lake)
    assert sorted(zip(landed["provider"], landed["price_side"], strict=True)) == [
        *[("coinbase", "trade")] * 3,
        *[("oanda", "mid")] * 2,
    ]


# ---- damaged files


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:-9], lambda b: b"PK\x03\x04", lambda b: b"[]"])
def test_nothing_of_a_damaged_file_lands(queue: DeadLetterQueue, embedded_lake: DeltaLakeManager, damage: Any) -> None:
    path = bury(queue, [bar(i) for i in range(20)])
    broken = damage(path.read_bytes())
    path.write_bytes(broken)
    sound = bury(queue, [bar(50)])
    result = Replay(queue, embedded_lake.settings, lambda _: embedded_lake, chunk_rows=2).run(queue.files())
    by_path = {each.path: each for each in result.files}
    assert not result.ok
    assert path.name in str(by_path[path].error)
    assert path.read_bytes() == broken
    assert by_path[sound].new == 1
    assert len(stored(embedded_lake)) == 1


# ---- the whole way


def test_from_a_backfill_and_back(tmp_path: Path, exchange: Exchange) -> None:
    settings = exchange_settings(tmp_path, exchange, {"storage": {"engine": "embedded"}})
    lake = DeltaLakeManager(settings.delta_lake.storage_path, settings)
    exchange.edit = lambda rows: [[*row[:1], row[2] + 9, *row[2:]] if i % 8 == 0 else row for i, row in enumerate(rows)]
    job = bar_job("BTCUSD", "1h", "2025-12-07", "2025-12-08", now=utc_now(), provider="coinbase")
    assert asyncio.run(Backfill(lake, settings).run([job])).total("rejected") == 24
    queue = DeadLetterQueue(settings.dlq.path)
    (path,) = queue.files()
    context = json.loads(path.read_text(encoding="utf-8"))["context"]
    assert context == {**HOURS, "timeframe": "1h"}
    found = replayed(queue, lake)
    assert (found.new, found.refused) == (21, 3)
    exchange.edit = lambda rows: rows
    again = asyncio.run(Backfill(lake, settings).run([job]))
    assert (again.total("new"), again.total("restated"), again.series[0].coverage) == (3, 0, 1.0)


def test_finer_bars_land_as_what_they_are_and_the_longer_one_is_built(tmp_path: Path, exchange: Exchange) -> None:
    settings = exchange_settings(tmp_path, exchange, {"storage": {"engine": "embedded"}})
    lake = DeltaLakeManager(settings.delta_lake.storage_path, settings)
    exchange.edit = lambda rows: [[*row[:2], -row[2], *row[3:]] if i == 3 else row for i, row in enumerate(rows)]
    job = bar_job("BTCUSD", "4h", "2025-12-07", "2025-12-08", now=utc_now(), provider="coinbase")
    assert asyncio.run(Backfill(lake, settings).run([job])).total("new") == 5
    queue = DeadLetterQueue(settings.dlq.path)
    (path,) = queue.files()
    document = json.loads(path.read_text(encoding="utf-8"))
    assert (document["context"]["timeframe"], document["context"]["is_derived"]) == ("1h", False)
    for record in document["records"]:
        record["high"] = abs(record["high"])
    path.write_text(json.dumps(document), encoding="utf-8")
    assert asyncio.run(Backfill(lake, settings).run([job])).total("new") == 0
    assert replayed(queue, lake).new == 1
    exchange.edit = lambda rows: rows
    again = asyncio.run(Backfill(lake, settings).run([job]))
    assert (again.total("new"), again.series[0].coverage) == (1, 1.0)
    assert len(stored(lake)) == 1
    assert len(stored(lake, "raw_market_data_4h")) == 6


def test_in_s3(queue: DeadLetterQueue, s3_lake_path: str, tmp_path: Path) -> None:
    lake = DeltaLakeManager(s3_lake_path, make_settings(tmp_path, {"storage": {"engine": "embedded"}}))
    lake.append("raw_market_data_1h", bars(count=2, assets=("BTCUSD",), provider="files"), "run")
    bury(queue, [bar(0), bar(1, high=50.0), bar(2)])
    found = replayed(queue, lake)
    assert (found.error, found.new, found.refused) == (None, 2, 1)
    assert lake.read_table("raw_market_data_1h")["provider"].value_counts().to_dict() == {"coinbase": 2, "files": 2}
    assert [(each.provider, each.other, each.bars) for each in agreement(lake)] == [("coinbase", "files", 1)]
    assert restatements(lake).total == 0


# ---- conservation, and kills


price = st.sampled_from([99.0, 100.0, 100.5, 101.0, 102.0, "100.5", "nan", None, True])
any_bar = st.builds(
    lambda hour, high, close, volume: bar(hour, high=high, close=close, volume=volume),
    st.integers(0, 8), price, price, st.sampled_from([1.0, None, -1.0, "***"]),
)  # fmt: skip


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(any_bar, max_size=12), chunk_rows=st.integers(1, 6), times=st.integers(1, 2))
def test_no_row_is_lost_or_doubled(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]], chunk_rows: int, times: int
) -> None:
    folder = tmp_path_factory.mktemp("replay")
    made = make_settings(folder, {"storage": {"engine": "embedded"}})
    lake, queue = DeltaLakeManager(folder / "lake", made), DeadLetterQueue(folder / "dlq")
    bury(queue, rows * times)
    found = replayed(queue, lake, chunk_rows=chunk_rows)
    assert found.error is None
    assert found.rows == len(rows) * times
    assert found.rows == found.new + found.restated + found.repeated + found.refused
    landed = stored(lake)
    assert len(landed) == found.new
    assert landed["timestamp"].is_unique
    left = records(found.dlq_file) if found.dlq_file else []
    assert len(left) == found.refused
    # Each row is in the lake with these values, or in the queue as it was; judged by hand, not by the edge.
    kept = {json.dumps({**row, "reason": None}, sort_keys=True) for row in left}
    there = {(row["timestamp"].isoformat(), row["high"], row["close"]) for row in landed.to_dict("records")}
    for row in rows:
        is_kept = json.dumps({**row, "reason": None}, sort_keys=True) in kept
        assert is_kept or (row["timestamp"], float(row["high"]), float(row["close"])) in there  # type: ignore[arg-type]


def test_a_stop_before_the_old_file_is_put_away_leaves_one_new_file(
    queue: DeadLetterQueue, embedded_lake: DeltaLakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bury(queue, [bar(0), bar(1, high=50.0)])

    def fail(_: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(queue, "archive", fail)
        stopped = replayed(queue, embedded_lake)
    assert "No space left" in str(stopped.error)
    assert path in queue.files()
    again = replayed(queue, embedded_lake, path)
    assert (again.new, again.repeated, again.refused) == (0, 1, 1)
    assert queue.files() == [stopped.dlq_file] == [again.dlq_file]


def test_a_full_disk_leaves_the_old_file_and_lands_nothing_twice(
    queue: DeadLetterQueue, embedded_lake: DeltaLakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bury(queue, [bar(0), bar(1, high=50.0)])

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        assert "No space left" in str(replayed(queue, embedded_lake).error)
    assert [each.name for each in queue.path.iterdir()] == [path.name]
    again = replayed(queue, embedded_lake)
    assert (again.error, again.new, again.repeated, again.refused) == (None, 0, 1, 1)
    assert len(stored(embedded_lake)) == 1


class Worker:
    """A replay process and the chunks it has said to have landed."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "tests.data_quality.replay_worker", str(folder)]
        self.process = subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True)

    def killed_after(self, chunks: int, seconds: float) -> bool:
        """Kill -9 it so long after it has landed so many chunks; returns whether it was still at work."""
        assert self.process.stdout is not None
        said = 0
        for line in self.process.stdout:
            said += line.startswith("landed")
            if said >= chunks:
                break
        threading.Event().wait(seconds)
        alive = self.process.poll() is None
        self.process.kill()
        self.process.wait(timeout=30)
        self.process.stdout.close()
        return alive


@pytest.mark.timeout(300)
def test_kills_at_random_instants_lose_and_double_nothing(tmp_path: Path, queue: DeadLetterQueue) -> None:
    rows = [bar(i, high=50.0) if i % 10 == 3 else bar(i) for i in range(2_000)]
    path = bury(queue, rows)
    content, chance, hit = path.read_bytes(), random.Random(SEED), 0
    for _ in range(6):
        hit += Worker(tmp_path).killed_after(chance.randrange(1, 12), chance.random() * 0.3)
        there = [each for each in (path, queue.path / "archive" / path.name) if each.exists()]
        assert len(there) == 1
        assert there[0].read_bytes() == content
    assert hit > 0
    made = make_settings(tmp_path, {"storage": {"engine": "embedded"}})
    lake = DeltaLakeManager(made.delta_lake.storage_path, made)
    Replay(queue, made, lambda _: lake, chunk_rows=100).run(queue.files())
    landed = stored(lake)
    good = [row for row in rows if row["high"] != 50.0]
    assert landed["timestamp"].is_unique
    assert [when.isoformat() for when in landed["timestamp"]] == [row["timestamp"] for row in good]
    (left,) = queue.files()
    assert {each.name for each in queue.path.iterdir()} == {left.name, "archive"}
    assert [row["timestamp"] for row in records(left)] == [row["timestamp"] for row in rows if row["high"] == 50.0]
    assert (queue.path / "archive" / path.name).read_bytes() == content
    assert coverage(lake).covered(SERIES, "coinbase").length == len(good) * timedelta(hours=1)


def test_two_replays_at_once_land_nothing_twice(tmp_path: Path, queue: DeadLetterQueue) -> None:
    rows = [bar(i, high=50.0) if i % 10 == 3 else bar(i) for i in range(500)]
    bury(queue, rows)
    workers = [Worker(tmp_path) for _ in range(2)]
    for worker in workers:
        worker.process.communicate(timeout=120)
    made = make_settings(tmp_path, {"storage": {"engine": "embedded"}})
    landed = stored(DeltaLakeManager(made.delta_lake.storage_path, made))
    assert len(landed) == 450
    assert landed["timestamp"].is_unique
    (left,) = queue.files()
    assert len(records(left)) == 50
