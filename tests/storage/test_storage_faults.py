"""Kills, races and a full disk: a table is as before or as after, never between, and no commit is lost."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import psutil
import pyarrow.compute as pc
import pytest
from bars import DAY0, bars
from deltalake import DeltaTable, write_deltalake

from pipelines.errors import ConcurrentWriteError, StorageError, TableNotFoundError
from pipelines.storage import DeltaLakeManager
from pipelines.storage.files import live_files
from pipelines.storage.upkeep import optimize
from tests.storage.conftest import manager
from tests.storage.test_engines import checksum, stored
from tests.storage.victim import QUOTES, TABLE, merge

SEED = 20_251_207
ASSETS = tuple(f"A{number:02}USD" for number in range(12))


class Victim:
    """A process at work on a lake."""

    def __init__(self, lake: DeltaLakeManager, engine: str, task: str, number: int = 0) -> None:
        command = [sys.executable, str(Path(__file__).with_name("victim.py"))]
        self.process = subprocess.Popen(
            [*command, lake.storage_path, engine, task, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, line: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """Kill -9 it and its JVM at once, as a power cut would."""
        everyone = [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]
        for one in everyone:
            one.send_signal(signal.SIGKILL)
        psutil.wait_procs(everyone, timeout=30)
        self.close()

    def close(self) -> None:
        self.process.wait(timeout=60)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


def scattered(lake: DeltaLakeManager, commits: int = 4) -> None:
    """Write bars of twelve assets in small files."""
    for i in range(commits):
        lake.append(TABLE, bars(start=DAY0 + timedelta(hours=6 * i), count=6, assets=ASSETS), f"run-{i}")


def quotes(lake: DeltaLakeManager) -> None:
    """Write a table that is not append-only, all closes zero."""
    rows = bars(count=48, assets=ASSETS).select(["asset_pair", "timestamp", "close"])
    zero = rows.set_column(2, "close", pc.multiply(rows["close"], 0.0))
    write_deltalake(lake._lake.root.uri(QUOTES), zero, partition_by=["asset_pair"])


def killed(lake: DeltaLakeManager, engine: str, kills: int, seed: int = SEED) -> None:
    """Start and kill so often at random instants of an optimization and a merge."""
    instants = random.Random(seed)
    for _ in range(kills):
        victim = Victim(lake, engine, "rewrite")
        assert victim.hear() == "ready"
        victim.tell()
        # Both have been through once.
        heard = {victim.hear()}
        while len(heard) < 2:
            heard.add(victim.hear())
        assert heard == {"optimize", "merge"}
        time.sleep(instants.uniform(0.0, 1.5 if engine == "spark" else 0.15))
        victim.kill()


def survives(lake: DeltaLakeManager, engine: str, kills: int) -> None:
    scattered(lake)
    quotes(lake)
    before = checksum(lake)
    killed(lake, engine, kills)
    assert checksum(lake) == before
    # It goes on where it was, and what the killed ones left behind is swept.
    lake.optimize_table(TABLE, zorder_columns=["timestamp"])
    assert len(live_files(lake._lake.open(TABLE))) == len(ASSETS)
    lake.vacuum_table(TABLE, retention_hours=0, force=True)
    assert checksum(lake) == before
    assert lake.append(TABLE, bars(count=6, assets=ASSETS), "again").rows == 0
    rows = stored(lake, QUOTES)
    assert rows.num_rows == 48 * len(ASSETS)
    # Every row was raised as often: no merge was seen by half.
    assert len(rows["close"].unique()) == 1
    assert rows["close"][0].as_py() >= kills


def test_killed_at_random_an_optimization_changes_no_row_and_a_merge_is_done_or_not(embedded_lake):
    survives(embedded_lake, "embedded", 4)


@pytest.mark.soak
@pytest.mark.spark(alone=True)
def test_spark_killed_in_the_middle(embedded_lake):
    survives(embedded_lake, "spark", 1)


@pytest.mark.soak
@pytest.mark.parametrize("engine", ["spark", "embedded"])
def test_killed_many_times(embedded_lake, engine):
    survives(embedded_lake, engine, 20)


def test_four_writers_on_s3_lose_nothing(s3_lake_path, tmp_path):
    """Four processes, 25 commits each, to one table, none of which waits for a turn: only the store decides."""
    lake = manager(tmp_path, s3_lake_path, "embedded")
    lake.ensure_table(TABLE)
    writers = [Victim(lake, "embedded", "append", 25) for _ in range(4)]
    for writer in writers:
        assert writer.hear() == "ready"
    for number, writer in enumerate(writers):
        writer.tell()
        writer.tell(f"writer{number}")
    landed = [[writer.hear() for _ in range(25)] for writer in writers]
    for writer in writers:
        writer.close()
    assert landed == [["landed 2"] * 25] * 4
    rows = stored(lake)
    assert rows.num_rows == 4 * 25 * 2
    assert sorted(rows.group_by("provider").aggregate([([], "count_all")])["count_all"].to_pylist()) == [50] * 4
    appends = lake.get_table_history(TABLE).query("operation == 'WRITE'")
    assert len(appends) == 100


def test_two_compactions_at_once_keep_every_row_once(embedded_lake, tmp_path, monkeypatch):
    """Without turns: delta-rs itself would let both remove the same files and so double the rows."""
    scattered(embedded_lake)
    before = checksum(embedded_lake)
    monkeypatch.setattr(optimize, "turn", lambda *_: threading.Lock())
    lakes = [manager(tmp_path, embedded_lake.storage_path, "embedded") for _ in range(4)]

    def compacted(lake: DeltaLakeManager) -> bool:
        try:
            return lake.optimize_table(TABLE).files_removed > 0
        except ConcurrentWriteError:
            return False

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(compacted, lakes))
    assert any(done)
    assert checksum(embedded_lake) == before
    assert len(live_files(embedded_lake._lake.open(TABLE))) == len(ASSETS)


def test_appends_during_compaction_all_stay(embedded_lake, tmp_path, monkeypatch):
    scattered(embedded_lake)
    monkeypatch.setattr(optimize, "turn", lambda *_: threading.Lock())
    stop = threading.Event()
    appender, compactor = (manager(tmp_path, embedded_lake.storage_path, "embedded") for _ in range(2))

    def keep_appending() -> int:
        count = 0
        while not stop.is_set():
            rows = bars(start=DAY0 + timedelta(days=10, hours=count), count=1, assets=ASSETS)
            count += appender.append(TABLE, rows, "meanwhile").new
        return count

    with ThreadPoolExecutor(1) as pool:
        meanwhile = pool.submit(keep_appending)
        for _ in range(5):
            compactor.optimize_table(TABLE)
        stop.set()
        added = meanwhile.result()
    assert added > 0
    assert stored(embedded_lake).num_rows == 24 * len(ASSETS) + added


def test_readers_see_whole_versions_during_a_vacuum(embedded_lake):
    scattered(embedded_lake)
    wanted, stop = 24 * len(ASSETS), threading.Event()
    reader = DeltaLakeManager(embedded_lake.storage_path, embedded_lake.settings)

    def keep_reading() -> set[int]:
        seen = set()
        while not stop.is_set():
            seen.add(reader.read_arrow(TABLE).num_rows)
        return seen

    with ThreadPoolExecutor(1) as pool:
        seen = pool.submit(keep_reading)
        embedded_lake.optimize_table(TABLE)
        embedded_lake.vacuum_table(TABLE, retention_hours=0, force=True)
        time.sleep(0.2)
        stop.set()
        # Who reads a version while its files go is told; who opens the table afterwards reads it whole.
        try:
            assert seen.result() == {wanted}
        except StorageError as error:
            assert "cannot read" in str(error)  # noqa: PT017 - either is right
    assert reader.read_arrow(TABLE).num_rows == wanted


def append_much(lake: DeltaLakeManager) -> None:
    lake.append(TABLE, bars(start=DAY0 + timedelta(days=30), count=5_000), "too much")


def optimize_all(lake: DeltaLakeManager) -> None:
    lake.optimize_table(TABLE)


@pytest.mark.parametrize("task", [append_much, optimize_all, merge])
def test_a_full_disk_changes_nothing(tiny_disk, tmp_path, task):
    lake = manager(tmp_path, str(tiny_disk / "lake"), "embedded")
    scattered(lake)
    quotes(lake)
    before = {name: checksum(lake, name) for name in (TABLE, QUOTES)}
    filler = tiny_disk / "filler"
    filler.write_bytes(bytes(psutil.disk_usage(str(tiny_disk)).free - 8_192))
    with pytest.raises(StorageError, match="disk is full") as caught:
        task(lake)
    assert "\n" not in str(caught.value)
    assert {name: checksum(lake, name) for name in (TABLE, QUOTES)} == before
    filler.unlink()
    assert lake.append(TABLE, bars(start=DAY0 + timedelta(days=30), count=10), "fits").new == 20


def test_what_is_no_table_is_said_plainly(embedded_lake, tmp_path):
    embedded_lake.append(TABLE, bars(count=1), "a")
    (Path(embedded_lake.storage_path) / "not_delta").mkdir()
    for call in (embedded_lake.read_table, embedded_lake.optimize_table, embedded_lake.vacuum_table):
        with pytest.raises(TableNotFoundError, match="no table not_delta"):
            call("not_delta")
        with pytest.raises(StorageError, match="is not a table name"):
            call("raw_market_data_1h; drop table x")
        with pytest.raises(StorageError, match="is not a table name"):
            call("../../etc/passwd")
    with pytest.raises(StorageError, match="has no version 99"):
        embedded_lake.read_table(TABLE, version=99)
    with pytest.raises(StorageError, match="no column"):
        embedded_lake.read_table(TABLE, columns=["close); DROP TABLE x"])
    with pytest.raises(StorageError, match="single SELECT"):
        embedded_lake.query(f"select 1; delete from {TABLE}")
    assert DeltaTable(f"{embedded_lake.storage_path}/{TABLE}").version() == embedded_lake._lake.open(TABLE).version()
