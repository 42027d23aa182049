"""Nothing is lost: of whatever comes in, each row has landed, was there already, or is in the dead letter queue."""

from __future__ import annotations

import asyncio
import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, event, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipelines.batch.engine import Backfill
from pipelines.batch.jobs import bar_job
from pipelines.batch.load import FileLoad
from pipelines.batch.results import BackfillResult
from pipelines.instruments import load_registry
from pipelines.sources.base import MARKET_DATA
from pipelines.sources.files import FileSpec
from pipelines.storage import DeltaLakeManager
from pipelines.timeframes import Timeframe, utc_now
from tests.batch.exchange import Exchange, exchange_settings
from tests.conftest import make_settings

BTC = load_registry().resolve("BTCUSD")
START = datetime(2024, 1, 1, tzinfo=UTC)
TABLE = "raw_market_data_1m"

# What is wrong with a row, by the column and the value that make it so.
BAD: list[tuple[str, Any]] = [
    ("high", 1.0),
    ("close", 1e9),
    ("close", None),
    ("open", "abc"),
    ("low", "NaN"),
    ("volume", -3.0),
    ("timestamp", "2096-01-01T00:00:00Z"),
    ("timestamp", "soon"),
    ("timestamp", None),
]


def rows(minutes: int, bad_in: int, most: int) -> st.SearchStrategy[list[tuple[int, float, Any]]]:
    """Rows of so many minutes: the fewer, the more repeat or contradict each other; about one of `bad_in` is bad."""
    good = st.tuples(st.integers(0, minutes), st.sampled_from([100.0, 100.0, 100.5]), st.none())
    bad = st.tuples(st.integers(0, minutes), st.just(100.0), st.sampled_from(BAD))
    return st.lists(st.one_of(*[good] * bad_in, bad), min_size=1, max_size=most)


files = st.lists(rows(200_000, 60, 300) | rows(400, 30, 100) | rows(20, 2, 30), min_size=1, max_size=4)


def record(minute: int, close: float, defect: tuple[str, Any] | None) -> dict[str, Any]:
    when = (START + timedelta(minutes=minute)).isoformat()
    row = {"timestamp": when, "open": 100.0, "high": 101.0, "low": 99.0, "close": close, "volume": 2.0}
    return row | ({defect[0]: defect[1]} if defect else {})


def dead_rows(result: BackfillResult) -> list[dict[str, Any]]:
    """The rows of a run in the queue; a batch whose file was there already counts as it would without it."""
    paths = [path for series in result.series for path in series.dlq_files]
    return [row for path in paths for row in json.loads(Path(path).read_text(encoding="utf-8"))["records"]]


def assert_conserved(result: BackfillResult, came: int) -> None:
    landed = result.total("new") + result.total("restated")
    dead = dead_rows(result)
    assert result.total("rejected") == len(dead)
    assert all(row["reason"] for row in dead)
    assert landed + result.total("repeated") + len(dead) == came == result.total("fetched")


def stored_rows(lake: DeltaLakeManager) -> int:
    folder = Path(lake.storage_path) / TABLE
    return DeltaTable(str(folder)).count() if folder.is_dir() else 0


@hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(loads=files, chunk=st.sampled_from([40, 10_000]), limit=st.sampled_from([0.05, 0.6]))
def test_rows_of_files_are_conserved(loads: list[list[tuple[int, float, Any]]], chunk: int, limit: float) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        ingest = {"chunk_rows": chunk, "max_rejected_ratio": limit}
        settings = make_settings(folder, {"storage": {"engine": "embedded"}, "ingest": ingest})
        lake = DeltaLakeManager(settings.delta_lake.storage_path, settings)
        landed = 0
        for place, load in enumerate(loads):
            path = folder / f"{place}.jsonl"
            path.write_text("".join(json.dumps(record(*row)) + "\n" for row in load), encoding="utf-8")
            spec = FileSpec(path, MARKET_DATA, BTC, Timeframe.M1, {}, "UTC")
            result = asyncio.run(FileLoad(lake, settings).run(spec))
            assert result.failed_files == []
            assert_conserved(result, len(load))
            # What is wrong with a row is seen whether or not its whole batch was refused.
            refused = [row for row in dead_rows(result) if not row["reason"].startswith("batch refused")]
            assert len(refused) >= sum(defect is not None for *_, defect in load)
            landed += result.total("new") + result.total("restated")
            assert stored_rows(lake) == landed
            over = any(series.failed for series in result.series)
            event(f"{'over' if over else 'within'} the limit, {'some' if refused else 'none'} refused")


@pytest.mark.parametrize("seed", range(4))
def test_answers_of_a_provider_are_conserved(seed: int, tmp_path: Path, exchange: Exchange) -> None:
    """Windows of an exchange that answers some rows wrongly, some twice, and some twice with other values."""
    import random

    draw, sent = random.Random(seed), 0
    worst = (0.0, 0.005, 0.02, 0.5)[seed]

    def spoilt(answer: list[list[Any]]) -> list[list[Any]]:
        nonlocal sent
        given: list[list[Any]] = []
        for row in answer:
            kind = draw.random()
            given.append([*row[:4], row[2] * 2, row[5]] if kind < worst else row)
            if 0.8 < kind < 0.9:
                given.append(row)
            elif 0.9 < kind < 0.9 + worst / 2:
                given.append([*row[:5], row[5] + 1])
        sent += len(given)
        return given

    exchange.edit = spoilt
    settings = exchange_settings(tmp_path, exchange, {"storage": {"engine": "embedded"}, "ingest": {"chunk_rows": 900}})
    lake = DeltaLakeManager(settings.delta_lake.storage_path, settings)
    landed = 0
    for force in (False, True):
        sent = 0
        job = bar_job("BTCUSD", "1m", "2025-12-07", "2025-12-09", now=utc_now(), provider="coinbase", force=force)
        result = asyncio.run(Backfill(lake, settings).run([job]))
        assert_conserved(result, sent)
        landed += result.total("new") + result.total("restated")
        assert stored_rows(lake) == landed
        assert bool(dead_rows(result)) is (worst > 0)
        assert result.ok is (worst < 0.5)
