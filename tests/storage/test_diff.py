"""What a diff says, against pandas over whole versions; and that it reads only what differs."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from bars import DAY0, bars
from deltalake import DeltaTable, write_deltalake
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipelines.config import Settings
from pipelines.errors import InvalidRangeError, StorageError, TableNotFoundError
from pipelines.storage import DeltaLakeManager
from pipelines.storage.travel.diff import Diff

TABLE = "raw_market_data_1h"
KEYS = ["asset_pair", "timestamp", "provider"]
UNSEEN = ["run_id", "ingested_at", "partition_date", "partition_asset_pair"]


def opened(lake: DeltaLakeManager, table: str = TABLE) -> DeltaTable:
    return DeltaTable(f"{lake.storage_path}/{table}")


def version(lake: DeltaLakeManager, table: str = TABLE) -> int:
    return int(opened(lake, table).version())


def newest(lake: DeltaLakeManager, at: int) -> dict[tuple, dict]:
    """The newest version of each key, by pandas over the live files."""
    table = DeltaTable(f"{lake.storage_path}/{TABLE}", version=at)
    frame = table.to_pandas().sort_values("ingested_at", kind="stable")
    last = frame.drop_duplicates(KEYS, keep="last").drop(columns=UNSEEN)
    return {tuple(row[key] for key in KEYS): row for row in last.to_dict("records")}


def same(left: object, right: object) -> bool:
    return bool(left == right or (pd.isna(left) and pd.isna(right)))


def check(lake: DeltaLakeManager, old: int, new: int) -> Diff:
    """Compare a diff with whole reads of both versions."""
    had, has, found = newest(lake, old), newest(lake, new), lake.diff(TABLE, old, new)
    keys = {
        "added": {key for key in has if key not in had},
        "removed": {key for key in had if key not in has},
        "restated": {key for key in has if key in had and any(not same(had[key][n], has[key][n]) for n in has[key])},
    }
    for kind, expected in keys.items():
        rows = getattr(found, kind).to_pylist()
        assert len(rows) == len(expected)
        assert {
            tuple(pd.Timestamp(v) if isinstance(v, datetime) else v for v in key_of(row)) for row in rows
        } == expected
        assert {a: getattr(c, kind) for a, c in found.counts.items() if getattr(c, kind)} == Counter(
            k[0] for k in expected
        )
    for row in found.restated.to_pylist():
        before, after = had[key_of(row)], has[key_of(row)]
        assert row["changed"] == [name for name in row["before"] if not same(before[name], after[name])]
        assert all(same(row["before"][name], before[name]) for name in row["before"])
        assert all(same(row["after"][name], after[name]) for name in row["after"])
    for kind, side in (("added", has), ("removed", had)):
        for row in getattr(found, kind).to_pylist():
            assert all(same(row[name], value) for name, value in side[key_of(row)].items())
    return found


def key_of(row: dict) -> tuple:
    return tuple(row[key] for key in KEYS)


@pytest.fixture
def lake(embedded_lake) -> DeltaLakeManager:
    embedded_lake.append(TABLE, bars(count=24 * 40), "one")
    return embedded_lake


def test_added_rows(lake):
    before = version(lake)
    lake.append(TABLE, bars(start=DAY0 + timedelta(days=40), count=5), "two")
    found = check(lake, before, before + 1)
    assert (found.total.added, found.total.restated, found.total.removed) == (10, 0, 0)
    assert found.added.schema.names == lake.read_arrow(TABLE).schema.names
    assert bool(found)
    assert not lake.diff(TABLE, before, before)


def test_restated_rows_show_what_changed(lake):
    before = version(lake)
    changed = bars(start=DAY0 + timedelta(days=30), count=3)
    volume = pa.array([None, 7.5, 2.0] * 2, pa.float64())
    lake.append(TABLE, changed.set_column(changed.schema.get_field_index("volume"), "volume", volume), "two")
    found = check(lake, before, version(lake))
    assert found.total.restated == 6
    assert found.counts["ETHUSD"].restated == 3
    assert any("volume" in row["changed"] for row in found.restated.to_pylist())


def test_a_value_restated_back_is_no_difference(lake):
    before = version(lake)
    lake.append(TABLE, bars(count=2, shift=1.0), "two")
    between = version(lake)
    lake.append(TABLE, bars(count=2), "three")
    assert len(lake.read_table(TABLE)) == 2 * (960 + 4)
    assert not check(lake, before, version(lake))
    assert check(lake, before, between).total.restated == check(lake, between, version(lake)).total.restated == 4


def test_backwards_and_over_a_restore(lake):
    before = version(lake)
    lake.append(TABLE, bars(count=3, shift=1.0), "two")
    lake.append(TABLE, bars(start=DAY0 + timedelta(days=40), count=5), "three")
    later = version(lake)
    assert check(lake, later, before).total.removed == 10
    opened(lake).restore(before)
    assert not check(lake, before, version(lake))
    taken = check(lake, later, version(lake))
    assert (taken.total.added, taken.total.restated, taken.total.removed) == (0, 6, 10)


def test_a_compaction_shows_no_difference(lake):
    lake.append(TABLE, bars(start=DAY0 + timedelta(days=40), count=5), "two")
    lake.append(TABLE, bars(start=DAY0 + timedelta(days=40), count=5, shift=1.0), "three")
    before = version(lake)
    opened(lake).optimize.compact()
    assert version(lake) == before + 1
    assert not check(lake, before, before + 1)
    lake.append(TABLE, bars(start=DAY0 + timedelta(days=40), count=1, shift=2.0), "four")
    assert check(lake, before, before + 2).total.restated == 2


def test_only_files_that_matter_are_read(lake):
    """Files of partitions without a change may even be missing."""
    before = version(lake)
    restated = bars(start=datetime(2026, 1, 5, tzinfo=UTC), count=2, shift=1.0, assets=("BTCUSD",))
    lake.append(TABLE, restated, "two")
    found = lake.diff(TABLE, before, before + 1)
    assert (found.total.restated, found.files_read) == (2, 2)
    place = Path(lake.storage_path) / TABLE
    shutil.rmtree(place / "partition_date=2025-12-01")
    shutil.rmtree(place / "partition_date=2026-01-01" / "partition_asset_pair=ETHUSD")
    assert lake.diff(TABLE, before, before + 1).total.restated == 2
    shutil.rmtree(place / "partition_date=2026-01-01")
    with pytest.raises(StorageError, match="a vacuum may have removed"):
        lake.diff(TABLE, before, before + 1)


def test_a_limit_bounds_rows_but_not_counts(lake):
    found = lake.diff(TABLE, 0, version(lake), limit=3)
    assert found.added.num_rows == 3
    assert {asset: counts.added for asset, counts in found.counts.items()} == {"BTCUSD": 960, "ETHUSD": 960}
    assert lake.diff(TABLE, 0, version(lake), limit=0).added.num_rows == 0
    with pytest.raises(InvalidRangeError, match="negative"):
        lake.diff(TABLE, 0, 1, limit=-1)


def test_an_end_is_a_version_a_snapshot_or_an_instant(lake):
    lake.snapshots.create("first")
    before = version(lake)
    lake.append(TABLE, bars(start=DAY0 + timedelta(days=40), count=5), "two")
    now = datetime.now(UTC)
    expected = lake.diff(TABLE, before, before + 1)
    for old in (before, str(before), "first"):
        for new in (before + 1, now, now.isoformat()):
            found = lake.diff(TABLE, old, new)
            assert (found.old, found.new, found.added) == (before, before + 1, expected.added)
    for wrong in ("second", "yesterday", "", None, 1.5):
        with pytest.raises(InvalidRangeError, match="no snapshot of this lake"):
            lake.diff(TABLE, wrong, before)
    with pytest.raises(StorageError, match=f"versions 0 to {before + 1}"):
        lake.diff(TABLE, 99, before)
    with pytest.raises(TableNotFoundError):
        lake.diff("raw_market_data_1hh", 0, 1)


def test_an_instant_before_the_log_is_compared_by_its_rows(embedded_lake, monkeypatch):
    import pipelines.storage.writing.append as writer
    from pipelines.storage.upkeep.log_cleanup import clean_log

    lake = embedded_lake
    for month in (1, 2):
        monkeypatch.setattr(writer, "utc_now", lambda month=month: datetime(2026, month, 1, tzinfo=UTC))
        lake.append(TABLE, bars(count=24 * month, shift=float(month)), f"run-{month}")
    expected = lake.diff(TABLE, 2, 3)
    assert (expected.total.added, expected.total.restated) == (48, 48)
    opened(lake).optimize.compact()
    opened(lake).create_checkpoint()
    clean_log(lake._lake, TABLE, 0)
    found = lake.diff(TABLE, "2026-01-15", version(lake))
    assert (found.added, found.restated, found.removed) == (expected.added, expected.restated, expected.removed)
    assert not lake.diff(TABLE, "2026-02-15", version(lake))
    assert not lake.diff(TABLE, "2026-01-15", "2026-01-16")


def test_keys_outside_the_partition_are_compared_over_the_whole_table(embedded_lake):
    """A decision's key is not what its partitions are made of: its versions may lie in several."""
    from pipelines.contracts import contract_for

    lake, table = embedded_lake, "raw_ai_decisions"
    contract = contract_for(table)
    assert "timestamp" not in contract.keys
    lake.ensure_table(table)
    schema = contract.arrow_schema

    def written(rows: list[dict]) -> None:
        data = pa.Table.from_pylist([{f.name: filler(f) for f in schema} | row for row in rows], schema=schema)
        write_deltalake(opened(lake, table), data, mode="append")

    def filler(field: pa.Field) -> object:
        allowed = contract.column(field.name).allowed
        if allowed:
            return allowed[0]
        return {"string": "x", "double": 0.5, "bool": False}.get(
            str(field.type), DAY0 if "time" in str(field.type) else None
        )

    day = {"ingested_at": DAY0, "timestamp": DAY0, "partition_date": DAY0.date(), "partition_asset_pair": "BTCUSD"}
    written([day | {"decision_id": "1"}, day | {"decision_id": "2"}])
    moved = DAY0 + timedelta(days=3)
    written([day | {"decision_id": "1", "ingested_at": moved, "timestamp": moved, "partition_date": moved.date()}])
    found = lake.diff(table, version(lake, table) - 1, version(lake, table))
    assert (found.total.added, found.total.restated) == (0, 1)
    assert found.restated["changed"].to_pylist() == [["timestamp"]]


def test_nested_values_are_compared(embedded_lake):
    place = f"{embedded_lake.storage_path}/silver_nested"
    for tags in ([{"t": "a", "w": 1.0}], [{"t": "a", "w": 1.0}, {"t": "b", "w": 2.0}]):
        write_deltalake(place, pa.table({"id": [1, 2], "tags": [tags, []]}), mode="overwrite")
    found = embedded_lake.diff("silver_nested", 0, 1)
    assert (found.total.added, found.total.removed) == (1, 1)
    assert found.added["tags"].to_pylist() == [[{"t": "a", "w": 1.0}, {"t": "b", "w": 2.0}]]


# ---- tables without keys


def test_rows_without_keys_count_as_often_as_they_occur(embedded_lake):
    place = f"{embedded_lake.storage_path}/silver_rows"
    for values in ([1.0, 1.0, math.nan, None], [1.0, math.nan, math.nan, None, None, 2.0]):
        write_deltalake(place, pa.table({"v": pa.array(values, pa.float64())}), mode="overwrite")
    found = embedded_lake.diff("silver_rows", 0, 1)
    assert Counter(map(str, found.added["v"].to_pylist())) == Counter(["nan", "None", "2.0"])
    assert found.removed["v"].to_pylist() == [1.0]
    assert found.keys == ()
    assert list(found.counts) == [""]


def test_a_column_that_came_later_is_a_difference(embedded_lake):
    place = f"{embedded_lake.storage_path}/silver_rows"
    write_deltalake(place, pa.table({"v": [1]}))
    write_deltalake(place, pa.table({"v": [2], "w": ["x"]}), mode="append", schema_mode="merge")
    assert embedded_lake.diff("silver_rows", 0, 1).added.to_pylist() == [{"v": 2, "w": "x"}]
    assert embedded_lake.diff("silver_rows", 1, 0).removed.to_pylist() == [{"v": 2, "w": "x"}]
    write_deltalake(place, pa.table({"v": ["2"]}), mode="overwrite", schema_mode="overwrite")
    with pytest.raises(StorageError, match="another type"):
        embedded_lake.diff("silver_rows", 0, 2)


def test_partition_values_of_all_kinds(embedded_lake):
    place = f"{embedded_lake.storage_path}/silver_parts"
    data = {"p": ["^TNX", "a b/c=%", None, "é"], "d": [DAY0.date()] * 4, "n": [1, 2, 3, 4], "v": [1, 2, 3, 4]}
    write_deltalake(place, pa.table(data), partition_by=["p", "d", "n"])
    write_deltalake(place, pa.table(data | {"v": [1, 2, 3, 5]}), mode="overwrite")
    found = embedded_lake.diff("silver_parts", 0, 1)
    assert found.added.to_pylist() == [{"p": "é", "d": DAY0.date(), "n": 4, "v": 5}]
    assert found.removed.to_pylist() == [{"p": "é", "d": DAY0.date(), "n": 4, "v": 4}]


@hypothesis_settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 20), st.integers(0, 2)), min_size=2, max_size=6),
    compact=st.integers(0, 5),
    ends=st.tuples(st.integers(0, 7), st.integers(0, 7)),
)
def test_any_two_versions_differ_as_pandas_says(tmp_path_factory, steps, compact, ends):
    settings = Settings.model_validate({"storage": {"engine": "embedded"}})
    lake = DeltaLakeManager(tmp_path_factory.mktemp("lake"), settings)
    lake.ensure_table(TABLE)
    first = version(lake)
    for number, (day, count, shift) in enumerate(steps):
        lake.append(TABLE, bars(start=DAY0 + timedelta(days=day), count=count, shift=float(shift)), f"run-{number}")
        if number == compact:
            opened(lake).optimize.compact()
    last = version(lake)
    check(lake, min(first + ends[0], last), min(first + ends[1], last))


def test_a_diff_in_s3(s3_lake_path):
    settings = Settings.model_validate({"storage": {"engine": "embedded"}})
    lake = DeltaLakeManager(s3_lake_path, settings)
    lake.append(TABLE, bars(count=4), "one")
    lake.append(TABLE, bars(count=6, shift=1.0), "two")
    found = lake.diff(TABLE, 2, 3)
    assert (found.total.added, found.total.restated, found.total.removed) == (4, 8, 0)


def test_what_cannot_be_compared_is_refused(embedded_lake):
    place = f"{embedded_lake.storage_path}/silver_rows"
    DeltaTable.create(place, pa.schema([("v", pa.int64())]), configuration={"delta.enableDeletionVectors": "true"})
    with pytest.raises(StorageError, match="uses deletionVectors"):
        embedded_lake.diff("silver_rows", 0, 0)
