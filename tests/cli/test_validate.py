"""`lakehouse validate`: what it says, writes and leaves alone, and how it ends."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.storage import DeltaLakeManager
from tests.cli.shell import ROOT, SAMPLE_WEEK, run, shell, spawn
from tests.conftest import make_settings
from tests.storage.bars import bars

TABLE = "raw_market_data_1h"
EMBEDDED = {"LAKEHOUSE__STORAGE__ENGINE": "embedded"}


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sample lake of a week."""
    folder = tmp_path_factory.mktemp("week")
    assert run(folder, *SAMPLE_WEEK, "--quiet", **EMBEDDED).exit_code == 0
    return folder


@pytest.fixture
def troubled(tmp_path: Path) -> Path:
    """A folder with a real lake: two bars of ETHUSD out of bounds, one bar of BTCUSD with a spike."""
    frame = bars(count=200).to_pandas()
    frame.loc[
        (frame["asset_pair"] == "ETHUSD") & (frame.index % 200).isin([3, 77]), ["open", "high", "low", "close"]
    ] = 1e9
    frame.loc[60, ["high", "close"]] = 400.0
    lake_in(tmp_path).append(
        TABLE, pa.Table.from_pandas(frame, schema=bars(count=1).schema, preserve_index=False), "r1"
    )
    return tmp_path


def lake_in(folder: Path) -> DeltaLakeManager:
    return DeltaLakeManager(folder / "real", make_settings(folder, {"storage": {"engine": "embedded"}}))


def answer(folder: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    done = run(folder, "validate", "--json", *arguments, **EMBEDDED)
    assert done.exit_code == code, done.output
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def failing(table: dict[str, Any]) -> dict[str, tuple[str, int]]:
    return {c["check"]: (c["severity"], c["failed_rows"]) for c in table["checks"] if not c["success"]}


def test_a_clean_lake_passes_and_the_rest_of_the_lake_is_as_it_was(week: Path) -> None:
    manager = DeltaLakeManager(week / "sample", make_settings(week))
    before = {info.name: (info.version, info.rows) for info in manager.tables() if info.name.startswith("raw_")}
    document = answer(week)
    assert document["ok"]
    assert document["synthetic"]
    rows = {table["table"]: table["rows"] for table in document["tables"]}
    assert rows == {name: rows for name, (_, rows) in before.items()}
    assert list(rows) == [f"raw_market_data_{length}" for length in ("1m", "5m", "15m", "1h", "4h", "1d")]
    assert all(failing(table) == {} for table in document["tables"])
    assert Path(document["data_docs"]).is_file()
    assert not (week / "dlq").exists()
    after = {info.name: (info.version, info.rows) for info in manager.tables() if info.name.startswith("raw_")}
    assert after == before
    kept = manager.quality.read(kind="suite", run_id=document["run_id"]).to_pylist()
    assert len(kept) == sum(len(table["checks"]) for table in document["tables"])
    assert {(row["success"], row["rows_failed"]) for row in kept} == {(True, 0)}
    assert {(row["table_name"], row["timeframe"]) for row in kept} == {(name, name.split("_")[-1]) for name in rows}


def test_what_fails_is_counted_kept_and_recorded(troubled: Path) -> None:
    document = answer(troubled, code=1)
    (table,) = document["tables"]
    assert (document["ok"], table["ok"], table["rows"], table["failed_rows"]) == (False, False, 400, 2)
    assert failing(table) == {"price out of bounds": ("critical", 2), "price spike": ("warning", 1)}
    (path,) = table["dlq_files"]
    letter = json.loads(Path(path).read_text(encoding="utf-8"))
    assert letter["context"]["asset_pair"] == "ETHUSD"
    assert [record["close"] for record in letter["records"]] == [1e9, 1e9]
    assert lake_in(troubled).read_table(TABLE).shape[0] == 400
    kept = lake_in(troubled).quality.read(kind="suite", run_id=document["run_id"]).to_pylist()
    told = {
        row["check_name"]: (row["severity"], row["rows_checked"], row["rows_failed"])
        for row in kept
        if not row["success"]
    }
    assert told == {"price out of bounds": ("critical", 400, 2), "price spike": ("warning", 400, 1)}
    # The same rows are not kept twice.
    assert answer(troubled, code=1)["tables"][0]["dlq_files"] == [path]
    assert len(list((troubled / "dlq").iterdir())) == 1


def test_warnings_alone_pass(troubled: Path) -> None:
    document = answer(troubled, "--assets", "btc-usd")
    assert document["ok"]
    assert failing(document["tables"][0]) == {"price spike": ("warning", 1)}
    assert document["tables"][0]["rows"] == 200
    kept = lake_in(troubled).quality.read(run_id=document["run_id"]).to_pylist()
    assert {row["asset_pair"] for row in kept} == {"BTCUSD"}


def test_a_range_is_checked_and_pages_can_be_left_out(troubled: Path) -> None:
    document = answer(troubled, TABLE, "--start", "2025-12-08", "--end", "2025-12-09", "--no-docs")
    assert (document["ok"], document["tables"][0]["rows"], document["data_docs"]) == (True, 48, None)
    assert not (troubled / "quality" / "data_docs").exists()
    document = answer(troubled, TABLE, "--days", "1")
    assert (document["ok"], document["tables"][0]["rows"]) == (True, 0)
    assert Path(document["data_docs"]).is_file()


def test_what_a_person_reads(troubled: Path) -> None:
    done = run(troubled, "validate", **EMBEDDED)
    assert done.exit_code == 1
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert f"{TABLE} market_data_quality 400 32 30 1 1 2" in lines
    assert f"{TABLE} price out of bounds error 2" in lines
    assert f"{TABLE} price spike warning 1" in lines
    assert lines[-1] == f"Data Docs: {troubled / 'quality' / 'data_docs' / 'index.html'}"
    assert "dead" not in done.stderr
    assert f"error checks failed in {TABLE}" in done.stderr


def test_live_asks_for_the_newest_rows(tmp_path: Path) -> None:
    lake = lake_in(tmp_path)
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    lake.append(TABLE, bars(start=now - timedelta(hours=30), count=20, assets=("BTCUSD",)), "r1")
    assert answer(tmp_path, "--no-docs")["ok"]
    document = answer(tmp_path, "--live", "--no-docs", code=1)
    (table,) = document["tables"]
    assert table["suite"] == "market_data_quality_live"
    severity, rows = failing(table)["newest rows missing"]
    assert (severity, rows > 0) == ("critical", True)
    # Those that are there are not to blame.
    assert (table["failed_rows"], table["dlq_files"]) == (0, [])
    lake.append(TABLE, bars(start=now - timedelta(hours=10), count=10, assets=("BTCUSD",)), "r2")
    assert answer(tmp_path, "--live", "--no-docs")["ok"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["raw_market_data_2h"], "raw_market_data_1h"),
        (["no such"], "no such"),
        (["--days", "2", "--start", "2025-12-08"], "either --days N or --start and --end"),
        (["--live", "--end", "2025-12-09"], "give one of them"),
        (["--start", "2025-12-09", "--end", "2025-12-08"], "inverted range"),
        (["--assets", "NONSENSE!"], "NONSENSE!"),
        (["--lake", "nowhere"], "there is no lake"),
    ],
)
def test_wrong_arguments_are_explained_before_anything_is_done(
    troubled: Path, arguments: list[str], message: str
) -> None:
    done = run(troubled, "validate", *arguments, **EMBEDDED)
    assert done.exit_code in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert not (troubled / "quality").exists()


def test_logs_are_validated_when_they_are_named(troubled: Path) -> None:
    answer(troubled, code=1)
    document = answer(troubled, "quality_results")
    assert [(table["table"], table["ok"]) for table in document["tables"]] == [("quality_results", True)]


def test_a_project_that_is_half_written_is_explained(troubled: Path) -> None:
    answer(troubled, "--assets", "BTCUSD")
    project = troubled / "quality" / "gx"
    checkpoint = next((project / "checkpoints").glob("*.json"))
    for path in (checkpoint, project / "great_expectations.yml"):
        whole = path.read_text(encoding="utf-8")
        path.write_text(whole[: len(whole) // 2], encoding="utf-8")
        done = run(troubled, "validate", "--assets", "BTCUSD", **EMBEDDED)
        assert done.exit_code == 2
        assert f"{project} cannot be read" in done.stderr
        assert "Traceback" not in done.output
        path.write_text(whole, encoding="utf-8")
    assert answer(troubled, "--assets", "BTCUSD")["ok"]


def test_two_at_once_take_turns(week: Path, tmp_path: Path) -> None:
    own = {**EMBEDDED, "LAKEHOUSE__QUALITY__PATH": str(tmp_path / "quality")}
    both = [spawn(week, "validate", f"raw_market_data_{length}", "--json", **own) for length in ("1d", "4h")]
    ended = [(process.communicate(timeout=300), process.returncode) for process in both]
    assert [code for _, code in ended] == [0, 0]
    index = (tmp_path / "quality" / "data_docs" / "index.html").read_text(encoding="utf-8")
    assert "raw_market_data_1d" in index
    assert "raw_market_data_4h" in index


def test_a_process_of_its_own_shows_nothing_but_what_it_says(week: Path) -> None:
    code, out, err = shell(week, "validate", "raw_market_data_1d", "--json", **EMBEDDED)
    assert code == 0, err
    assert json.loads(out)["tables"][0]["rows"] == 14
    assert err == ""
    assert not (ROOT / "gx").exists()
