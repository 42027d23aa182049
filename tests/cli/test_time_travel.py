"""Snapshots and differences from a terminal, without a JVM."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result

from tests.cli.shell import run

TABLE = "raw_market_data_1h"
SQL = f"select count(*) as n from {TABLE}"


def lakehouse(folder: Path, *arguments: str) -> Result:
    return run(folder, *arguments, LAKEHOUSE__STORAGE__ENGINE="embedded")


def backfill(folder: Path, start: str, end: str) -> None:
    ranges = ("--start", start, "--end", end, "--timeframes", "1h", "--quiet")
    done = lakehouse(folder, "backfill", "--provider", "sample", "--assets", "BTCUSD,ETHUSD", *ranges)
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A sample lake with a day, a snapshot of it named `first`, and a second day."""
    found = tmp_path_factory.mktemp("cli")
    backfill(found, "2025-12-07", "2025-12-08")
    made = lakehouse(found, "snapshot", "create", "first", "--note", "a day")
    assert made.exit_code == 0, made.output
    assert "Snapshot first pins 3 tables as of" in made.output
    backfill(found, "2025-12-08", "2025-12-09")
    return found


def answer(result: Result) -> object:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_query_sees_the_snapshot(folder):
    assert answer(lakehouse(folder, "query", SQL, "--format", "json")) == [{"n": 96}]
    assert answer(lakehouse(folder, "query", SQL, "--snapshot", "first", "--format", "json")) == [{"n": 48}]
    for other in (("--version", "1"), ("--as-of", "2025-12-07")):
        refused = lakehouse(folder, "query", SQL, "--snapshot", "first", *other)
        assert refused.exit_code == 2
        assert "not several" in refused.output


def test_snapshots_are_listed_and_shown(folder):
    listed = lakehouse(folder, "snapshot", "list")
    assert listed.exit_code == 0
    assert "first" in listed.output
    assert "a day" in listed.output
    shown = lakehouse(folder, "snapshot", "show", "first")
    assert TABLE in shown.output
    found = answer(lakehouse(folder, "snapshot", "list", "--json"))
    assert found["synthetic"] is True
    one = answer(lakehouse(folder, "snapshot", "show", "first", "--json"))
    assert [{name: one[name] for name in found["snapshots"][0]}] == found["snapshots"]
    assert one["note"] == "a day"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("create", "First"), "is not a snapshot name"),
        (("create", "first"), "there is a snapshot first already"),
        (("show", "frist"), "did you mean first"),
        (("delete", "frist", "--yes"), "did you mean first"),
        (("make", "x"), "no command 'make'"),
    ],
)
def test_wrong_names_are_explained(folder, arguments, message):
    result = lakehouse(folder, "snapshot", *arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_a_snapshot_is_deleted_only_when_told_so(folder):
    answer(lakehouse(folder, "snapshot", "create", "second", "--json"))
    shown = lakehouse(folder, "snapshot", "delete", "second")
    assert shown.exit_code == 0
    assert "Nothing was deleted" in shown.output
    assert answer(lakehouse(folder, "snapshot", "delete", "second", "--yes", "--json"))["deleted"] is True
    assert lakehouse(folder, "snapshot", "delete", "second", "--yes").exit_code == 2


def test_a_lake_without_snapshots_says_how_to_make_one(tmp_path):
    backfill(tmp_path, "2025-12-07", "2025-12-08")
    assert "lakehouse snapshot create NAME" in lakehouse(tmp_path, "snapshot", "list").output
    assert answer(lakehouse(tmp_path, "snapshot", "list", "--json"))["snapshots"] == []


def test_a_diff_counts_by_asset_and_shows_rows(folder):
    newest = answer(lakehouse(folder, "history", TABLE, "--json"))["commits"][0]["version"]
    shown = lakehouse(folder, "diff", TABLE, "first", str(newest))
    assert shown.exit_code == 0, shown.output
    lines = [line.split() for line in shown.output.splitlines()]
    assert ["BTCUSD", "24", "0", "0"] in lines
    assert ["total", "48", "0", "0"] in lines
    assert ["added", "BTCUSD", "2025-12-08", "00:00:00Z", "sample"] in lines
    assert "28 more; --limit 0 shows all" in shown.output
    assert "No difference." in lakehouse(folder, "diff", TABLE, "first", "first").output


def test_a_diff_as_json_has_the_rows(folder):
    found = answer(lakehouse(folder, "diff", TABLE, "0", "first", "--json", "--limit", "0"))
    assert found["total"] == {"added": 48, "restated": 0, "removed": 0}
    assert len(found["added"]) == 48
    assert found["added"][0]["asset_pair"] == "BTCUSD"
    assert len(answer(lakehouse(folder, "diff", TABLE, "0", "first", "--json", "--limit", "2"))["added"]) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("raw_market_data_2h", "0", "1"), 2, "did you mean raw_market_data_1h"),
        ((TABLE, "0", "soon"), 2, "no snapshot of this lake"),
        ((TABLE, "0", "99"), 1, "has no version 99; it has versions 0 to"),
        ((TABLE, "0", "2999-01-01"), 2, "its history goes from"),
    ],
)
def test_a_diff_of_what_is_not_there_is_explained(folder, arguments, code, message):
    result = lakehouse(folder, "diff", *arguments)
    assert result.exit_code == code
    assert message in result.output


def test_restated_values_are_shown_before_and_after(folder, tmp_path):
    import shutil

    import pyarrow as pa
    import pyarrow.compute as pc

    from pipelines.config import Settings
    from pipelines.contracts import contract_for
    from pipelines.storage import DeltaLakeManager

    shutil.copytree(folder / "sample", tmp_path / "sample")
    settings = Settings.model_validate({"storage": {"engine": "embedded"}})
    lake = DeltaLakeManager(tmp_path / "sample", settings)
    given = [column.name for column in contract_for(TABLE).provided_by("source", "edge")]
    rows: pa.Table = lake.read_arrow(TABLE, assets="BTCUSD").slice(0, 1).select(given)
    volume = pc.add(rows["volume"], 1.0)
    lake.append(TABLE, rows.set_column(given.index("volume"), "volume", volume), "again", synthetic=True)
    newest = lake.get_table_history(TABLE)["version"].max()
    shown = lakehouse(tmp_path, "diff", TABLE, str(newest - 1), str(newest))
    assert shown.exit_code == 0, shown.output
    before, after = str(rows["volume"][0].as_py()), str(volume[0].as_py())
    expected = ["restated", "BTCUSD", "2025-12-07", "00:00:00Z", "sample", "volume", before, after]
    assert expected in [line.split() for line in shown.output.splitlines()]
    found = answer(lakehouse(tmp_path, "diff", TABLE, str(newest - 1), str(newest), "--json"))
    assert found["restated"][0]["changed"] == {"volume": {"before": float(before), "after": float(after)}}


def test_help_of_a_group_is_fast_and_complete(folder):
    shown = lakehouse(folder, "snapshot", "--help")
    assert shown.exit_code == 0
    assert all(name in shown.output for name in ("create", "list", "show", "delete", "Examples:"))
