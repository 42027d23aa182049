"""Snapshots pin versions of all tables; neither vacuum nor log clean-up takes away what they need."""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from bars import DAY0, bars
from deltalake import DeltaTable, PostCommitHookProperties, write_deltalake
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipelines.config import Settings
from pipelines.errors import InvalidRangeError, SnapshotError, StorageError, TableNotFoundError
from pipelines.storage import CoverageEntry, DeltaLakeManager
from pipelines.storage.upkeep.log_cleanup import clean_log

TABLE = "raw_market_data_1h"
QUIET = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


def opened(lake: DeltaLakeManager, table: str = TABLE) -> DeltaTable:
    return DeltaTable(f"{lake.storage_path}/{table}")


def rows(table: pa.Table) -> list[tuple]:
    return sorted(pl.from_arrow(table).select(sorted(table.column_names)).rows(), key=str)


def hours(lake: DeltaLakeManager, first: int, count: int = 2, shift: float = 0.0) -> None:
    lake.append(TABLE, bars(start=DAY0 + timedelta(hours=first), count=count, shift=shift), f"run-{first}")


@pytest.fixture(params=["local", "s3"])
def lake(request, tmp_path) -> DeltaLakeManager:
    address = tmp_path / "lake" if request.param == "local" else request.getfixturevalue("s3_lake_path")
    return DeltaLakeManager(address, Settings.model_validate({"storage": {"engine": "embedded"}}))


# ---- making and finding


def test_a_snapshot_has_the_version_of_every_table(lake):
    hours(lake, 0)
    before = datetime.now(UTC)
    made = lake.snapshots.create("first", note="für Ünïcode")
    assert before <= made.instant <= datetime.now(UTC)
    assert dict(made.tables) == {TABLE: opened_version(lake, TABLE), "ingest_coverage": 0}
    assert lake.snapshots.get("first") == made
    hours(lake, 5)
    later = lake.snapshots.create("second")
    assert lake.snapshots.list() == (made, later)
    assert lake.snapshots.names() == ("first", "second")
    assert lake.snapshots.pinned(TABLE) == [made.tables[TABLE], later.tables[TABLE]]
    assert lake.snapshots.pinned("ingest_coverage") == [0]
    assert lake.snapshots.pinned("raw_market_data_1d") == []
    assert lake.snapshots.delete("first") == made
    assert lake.snapshots.list() == (later,)
    assert lake.tables()[-1].name == TABLE


def opened_version(lake: DeltaLakeManager, table: str) -> int:
    return int(lake._lake.open(table).version())


def test_a_name_is_taken_once(lake):
    hours(lake, 0)
    kept = lake.snapshots.create("one")
    hours(lake, 3)
    with pytest.raises(SnapshotError, match="there is a snapshot one already"):
        lake.snapshots.create("one")
    assert lake.snapshots.get("one") == kept


@pytest.mark.parametrize(
    "name", ["", "A", "Ab", "../x", "a/b", ".a", "-a", "a" * 65, "a b", "12", "a\n", None, 5, "ä", "a;drop"]
)
def test_a_name_is_plain(embedded_lake, name):
    hours(embedded_lake, 0, 1)
    for use in (embedded_lake.snapshots.create, embedded_lake.snapshots.get, embedded_lake.snapshots.delete):
        with pytest.raises(SnapshotError, match="is not a snapshot name"):
            use(name)
    with pytest.raises(SnapshotError, match="is not a snapshot name"):
        embedded_lake.read_table(TABLE, snapshot=name if name is not None else "")


@pytest.mark.parametrize("name", ["a", "0a", "2025-12-07", "v1.2_final", "a" * 64])
def test_usual_names_are_taken(embedded_lake, name):
    embedded_lake.ensure_table(TABLE)
    assert embedded_lake.snapshots.create(name).name == name


def test_an_unknown_snapshot_is_told_the_nearest(embedded_lake):
    embedded_lake.ensure_table(TABLE)
    with pytest.raises(SnapshotError, match="snapshot create"):
        embedded_lake.snapshots.get("first")
    embedded_lake.snapshots.create("first")
    for use in (embedded_lake.snapshots.get, embedded_lake.snapshots.delete):
        with pytest.raises(SnapshotError, match="did you mean first"):
            use("frist")


def test_a_lake_without_tables_has_no_snapshots(embedded_lake):
    with pytest.raises(SnapshotError, match="no tables"):
        embedded_lake.snapshots.create("first")
    assert embedded_lake.snapshots.list() == ()
    assert not Path(embedded_lake.storage_path).exists()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": 2}', b'{"format": 1, "instant": "soon", "tables": {}, "note": null}']
)
def test_a_broken_snapshot_stops_what_would_remove_files(embedded_lake, content):
    hours(embedded_lake, 0)
    embedded_lake.snapshots.create("first")
    (Path(embedded_lake.storage_path) / "_snapshots" / "first.json").write_bytes(content)
    for use in (
        embedded_lake.snapshots.list,
        lambda: embedded_lake.snapshots.pinned(TABLE),
        lambda: embedded_lake.vacuum_table(TABLE),
    ):
        with pytest.raises(StorageError, match=r"cannot read the snapshot .*_snapshots/first\.json"):
            use()


def test_of_racing_makers_one_wins(embedded_lake):
    hours(embedded_lake, 0)
    start, won = threading.Barrier(4), []

    def make() -> None:
        start.wait()
        try:
            won.append(embedded_lake.snapshots.create("same"))
        except SnapshotError:
            return

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [embedded_lake.snapshots.get("same")]


def test_pinned_coverage_never_claims_more_than_the_pinned_data(embedded_lake):
    """A writer commits rows, then their coverage, while snapshots are made."""
    lake, done = embedded_lake, threading.Event()
    hours(lake, 0, 1)

    def work() -> None:
        for hour in range(1, 13):
            hours(lake, hour, 1)
            start = DAY0 + timedelta(hours=hour)
            entry = CoverageEntry(
                "raw_market_data", "BTCUSD", "1h", "coinbase", start, start + timedelta(hours=1), "covered", 1
            )
            lake.coverage.record([entry], f"run-{hour}")
        done.set()

    writer = threading.Thread(target=work)
    writer.start()
    number = 0
    while not done.is_set():
        lake.snapshots.create(f"s{number}")
        number += 1
    writer.join()
    assert number > 3
    for made in lake.snapshots.list():
        claimed = lake.read_arrow("ingest_coverage", snapshot=made.name)["start"].to_pylist()
        held = lake.read_arrow(TABLE, assets="BTCUSD", snapshot=made.name)["timestamp"].to_pylist()
        assert set(claimed) <= set(held)


# ---- vacuum


def test_a_vacuum_spares_what_a_snapshot_needs(lake):
    for hour in range(4):
        hours(lake, 3 * hour)
    lake.snapshots.create("kept")
    table = lake._lake.open(TABLE)
    expected, files, pinned = rows(lake.read_arrow(TABLE)), len(table.file_uris()), table.version()
    hours(lake, 20, shift=1.0)
    lake._lake.open(TABLE).optimize.compact()
    hours(lake, 30)
    newest = rows(lake.read_arrow(TABLE))
    assert lake.vacuum_table(TABLE, 0, dry_run=True, force=True).count == 2
    assert lake.vacuum_table(TABLE, 0, force=True).count == 2
    assert lake.vacuum_table(TABLE, 0, dry_run=True, force=True).count == 0
    assert rows(lake.read_arrow(TABLE, snapshot="kept")) == expected
    assert rows(lake.read_arrow(TABLE)) == newest
    lake.snapshots.delete("kept")
    assert lake.vacuum_table(TABLE, 0, force=True).count == files
    with pytest.raises(StorageError, match="cannot read"):
        lake.read_arrow(TABLE, version=pinned)
    assert rows(lake.read_arrow(TABLE)) == newest


def test_a_vacuum_stops_at_a_snapshot_that_is_beyond_help(embedded_lake):
    hours(embedded_lake, 0)
    embedded_lake.snapshots.create("lost")
    hours(embedded_lake, 5)
    opened(embedded_lake).create_checkpoint()
    clean_log(embedded_lake._lake, TABLE, 0)
    with pytest.raises(StorageError, match=r"a snapshot needs version 2 .* delete that snapshot"):
        embedded_lake.vacuum_table(TABLE)
    embedded_lake.snapshots.delete("lost")
    embedded_lake.vacuum_table(TABLE)


# ---- log clean-up


def log_of(lake: DeltaLakeManager) -> set[str]:
    return {path.name for path in (Path(lake.storage_path) / TABLE / "_delta_log").iterdir() if path.is_file()}


def commits(lake: DeltaLakeManager, count: int, checkpoints: tuple[int, ...] = ()) -> None:
    """Commit up to version `count`, with checkpoints at some versions and no others."""
    lake.ensure_table(TABLE)
    opened(lake).alter.set_table_properties({"delta.checkpointInterval": "1000"})
    while (version := opened(lake).version()) < count:
        hours(lake, version, 1)
    for version in checkpoints:
        DeltaTable(f"{lake.storage_path}/{TABLE}", version=version).create_checkpoint()


def test_the_log_is_cut_at_a_checkpoint_that_leads_up_to_all_that_is_kept(embedded_lake):
    commits(embedded_lake, 12, (4, 8, 12))
    before = log_of(embedded_lake)
    dry = clean_log(embedded_lake._lake, TABLE, 0, [9], dry_run=True)
    assert log_of(embedded_lake) == before
    done = clean_log(embedded_lake._lake, TABLE, 0, [9])
    assert (done.oldest, done.newest, done.count, dry.files) == (8, 12, 9, done.files)
    gone = {Path(file).name for file in done.files}
    assert gone == {f"{v:020d}.json" for v in range(8)} | {f"{4:020d}.checkpoint.parquet"}
    assert log_of(embedded_lake) == before - gone
    assert "_last_checkpoint" in log_of(embedded_lake)
    assert clean_log(embedded_lake._lake, TABLE, 0, [9]).count == 0
    assert clean_log(embedded_lake._lake, TABLE, 0, [3]).count == 5
    hours(embedded_lake, 40)


@pytest.mark.parametrize(
    ("days", "pinned", "oldest"), [(1, (), 0), (0, (0,), 0), (0, (5,), 4), (0, (), 8), (10_000, (8,), 0)]
)
def test_what_is_kept(embedded_lake, days, pinned, oldest):
    commits(embedded_lake, 9, (4, 8))
    result = clean_log(embedded_lake._lake, TABLE, days, pinned)
    assert result.oldest == embedded_lake._lake.versions(TABLE).start == oldest


def test_without_a_checkpoint_nothing_goes(embedded_lake):
    commits(embedded_lake, 6)
    assert clean_log(embedded_lake._lake, TABLE, 0).count == 0


@pytest.mark.parametrize("days", [-1, 1.5, True, "1"])
def test_a_retention_is_whole_days(embedded_lake, days):
    commits(embedded_lake, 2)
    with pytest.raises(InvalidRangeError, match="whole number of days"):
        clean_log(embedded_lake._lake, TABLE, days)
    with pytest.raises(TableNotFoundError):
        clean_log(embedded_lake._lake, "raw_market_data_1d", 0)


def test_a_checkpoint_that_cannot_be_read_is_not_built_upon(embedded_lake):
    commits(embedded_lake, 9, (4, 8))
    log = Path(embedded_lake.storage_path) / TABLE / "_delta_log"
    (log / f"{8:020d}.checkpoint.parquet").write_bytes(b"torn")
    before = log_of(embedded_lake)
    with pytest.raises(StorageError):
        clean_log(embedded_lake._lake, TABLE, 0)
    assert log_of(embedded_lake) == before


def test_a_clean_up_killed_anywhere_leaves_all_kept_versions(embedded_lake, monkeypatch):
    from pipelines.storage.stores.objects import LocalObjects

    commits(embedded_lake, 8, (3, 6))
    expected = {v: rows(embedded_lake.read_arrow(TABLE, version=v)) for v in range(6, 9)}
    delete, left = LocalObjects.delete, 1

    def killed(self, path: str) -> None:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        delete(self, path)

    monkeypatch.setattr(LocalObjects, "delete", killed)
    for _ in range(9):
        left = 1
        with suppress(KeyboardInterrupt):
            clean_log(embedded_lake._lake, TABLE, 0, [6])
        for version, then in expected.items():
            assert rows(embedded_lake.read_arrow(TABLE, version=version)) == then
        readable = embedded_lake._lake.versions(TABLE)
        assert len(embedded_lake.read_arrow(TABLE, version=readable.start)) == 2 * (readable.start - 2)
        for version in range(readable.start):
            with pytest.raises(StorageError, match=f"it has versions {readable.start} to 8"):
                embedded_lake.read_arrow(TABLE, version=version)
    assert readable.start == 6
    assert not [name for name in log_of(embedded_lake) if name < f"{6:020d}"]


def test_the_log_in_s3_is_cleaned_too(s3_lake_path):
    lake = DeltaLakeManager(s3_lake_path, Settings.model_validate({"storage": {"engine": "embedded"}}))
    for hour in range(6):
        hours(lake, hour, 1)
        if hour == 3:
            lake._lake.open(TABLE).create_checkpoint()
    expected = rows(lake.read_arrow(TABLE))
    then = datetime.now(UTC)
    done = clean_log(lake._lake, TABLE, 0, [5])
    assert (done.oldest, done.count) == (5, 5)
    assert lake._lake.versions(TABLE) == range(5, 8)
    assert rows(lake.read_arrow(TABLE)) == expected
    assert rows(lake.read_arrow(TABLE, as_of_timestamp=then)) == expected
    with pytest.raises(StorageError, match="it has versions 5 to 7"):
        lake.read_arrow(TABLE, version=1)


ACTIONS = st.sampled_from(["append", "append", "overwrite", "compact", "checkpoint", "snapshot", "forget", "clean"])


@hypothesis_settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(ACTIONS, min_size=8, max_size=24), seed=st.integers(0, 10_000))
def test_whatever_happens_kept_versions_stay_as_they_were(tmp_path_factory, actions, seed):
    """After any commits, checkpoints and snapshots, clean-ups and vacuums leave what they promise to keep."""
    world = World(DeltaLakeManager(tmp_path_factory.mktemp("lake"), Settings()), random.Random(seed))
    for number, action in enumerate(actions):
        getattr(world, action)(number)
        world.look()


class World:
    """A table of numbers, and what each version that is to be kept held when it was new."""

    def __init__(self, lake: DeltaLakeManager, chance: random.Random) -> None:
        self.lake, self.chance, self.name = lake, chance, "silver_numbers"
        self.place = f"{lake.storage_path}/{self.name}"
        self.held: dict[int, list[tuple]] = {}
        self.pinned: dict[str, int] = {}
        self.append(0)
        self.look()

    def look(self) -> None:
        """Compare all that is to be kept with what it was."""
        self.held[DeltaTable(self.place).version()] = rows(self.lake.read_arrow(self.name))
        for version, then in self.held.items():
            assert rows(self.lake.read_arrow(self.name, version=version)) == then
        for snapshot, version in self.pinned.items():
            assert rows(self.lake.read_arrow(self.name, snapshot=snapshot)) == self.held[version]

    def append(self, number: int, mode: str = "append") -> None:
        write_deltalake(self.place, pa.table({"v": [number]}), mode=mode, post_commithook_properties=QUIET)

    def overwrite(self, number: int) -> None:
        self.append(number, "overwrite")

    def compact(self, _: int) -> None:
        DeltaTable(self.place).optimize.compact(post_commithook_properties=QUIET)

    def checkpoint(self, _: int) -> None:
        DeltaTable(self.place).create_checkpoint()

    def snapshot(self, number: int) -> None:
        self.pinned[f"s{number}"] = self.lake.snapshots.create(f"s{number}").tables[self.name]

    def forget(self, _: int) -> None:
        if self.pinned:
            gone = self.chance.choice(sorted(self.pinned))
            self.lake.snapshots.delete(gone)
            del self.pinned[gone]

    def clean(self, _: int) -> None:
        days = self.chance.choice([0, 0, 1])
        result = clean_log(self.lake._lake, self.name, days, self.lake.snapshots.pinned(self.name))
        if days:
            assert result.count == 0
            return
        assert result.oldest <= min(self.pinned.values(), default=result.newest)
        self.lake.vacuum_table(self.name, 0, force=True)
        self.held = {version: then for version, then in self.held.items() if version in self.pinned.values()}
