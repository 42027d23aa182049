"""`lakehouse dlq`, `agreement` and `restatements` as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from pipelines.data_quality import DeadLetterQueue
from pipelines.edge import RefusedRow
from pipelines.storage import DeltaLakeManager
from tests.cli.shell import run, shell
from tests.conftest import make_settings
from tests.data_quality.dead_letters import ERROR, HOURS, bar, records, stored
from tests.storage.bars import bars

EMBEDDED = {"LAKEHOUSE__STORAGE__ENGINE": "embedded"}


@pytest.fixture
def queue(tmp_path: Path) -> DeadLetterQueue:
    """Two files: three rows of BTCUSD at coinbase, of which two are good, and one made up."""
    found = DeadLetterQueue(tmp_path / "dlq")
    rows = [(bar(0), "bad feed"), (bar(1, high=50.0), "high < low; close not in range"), (bar(2), "bad feed")]
    found.write(ERROR, HOURS, [RefusedRow(row, why, None) for row, why in rows])
    found.write(ERROR, {**HOURS, "provider": "sample", "asset_pair": "ETHUSD"}, [RefusedRow(bar(0), "bad feed", None)])
    return found


def real(folder: Path) -> DeltaLakeManager:
    return DeltaLakeManager(folder / "real", make_settings(folder, {"storage": {"engine": "embedded"}}))


def lakehouse(folder: Path, *arguments: str) -> Result:
    return run(folder, *arguments, **EMBEDDED)


def answer(result: Result, code: int = 0) -> dict[str, Any]:
    assert result.exit_code == code, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def of_asset(queue: DeadLetterQueue, asset: str) -> Path:
    return next(path for path in queue.files() if json.loads(path.read_text("utf-8"))["context"]["asset_pair"] == asset)


# ---- looking


def test_list_shows_the_files(tmp_path: Path, queue: DeadLetterQueue) -> None:
    said = lakehouse(tmp_path, "dlq", "list")
    assert said.exit_code == 0
    for path in queue.files():
        assert path.stem[-8:] in said.stdout
    assert "high < low" not in said.stdout
    for word in ("BTCUSD", "ETHUSD", "coinbase", "sample", "bad feed", "1h", ERROR):
        assert word in said.stdout
    found = answer(lakehouse(tmp_path, "dlq", "list", "--asset", "BTCUSD", "--reason", "high", "--json"))
    assert [(each["rows"], each["context"]["asset_pair"]) for each in found["files"]] == [(1, "BTCUSD")]


def test_show_takes_the_beginning_of_an_id(tmp_path: Path, queue: DeadLetterQueue) -> None:
    path = of_asset(queue, "BTCUSD")
    said = lakehouse(tmp_path, "dlq", "show", path.stem[-8:-2], "--limit", "1")
    assert said.exit_code == 0
    assert "bad feed" in said.stdout
    assert "2 more" in said.stdout
    found = answer(lakehouse(tmp_path, "dlq", "show", str(path), "--limit", "0", "--json"))
    assert found["records"] == records(path)
    some = answer(lakehouse(tmp_path, "dlq", "show", path.name, "--reason", "high", "--json"))
    assert some["records"] == records(path)[1:2]
    assert lakehouse(tmp_path, "dlq", "show", "nothing").exit_code == 2


def test_stats_count_by_reason(tmp_path: Path, queue: DeadLetterQueue) -> None:
    found = answer(lakehouse(tmp_path, "dlq", "stats", "--json"))
    assert found["by_reason"] == {"bad feed": 3, "high < low": 1, "close not in range": 1}
    assert found["by_dataset"][0] == {"dataset": "raw_market_data", "asset_pair": "BTCUSD", "rows": 3}
    said = lakehouse(tmp_path, "dlq", "stats", "--provider", "coinbase").stdout
    assert "3 rows in 1 file" in said
    assert "2  bad feed" in said


def test_an_empty_queue(tmp_path: Path) -> None:
    for command in (["list"], ["stats"], ["replay", "--all"]):
        said = lakehouse(tmp_path, "dlq", *command)
        assert said.exit_code == 0, said.output
    assert answer(lakehouse(tmp_path, "dlq", "list", "--json"))["files"] == []


def test_a_damaged_file_is_named_and_the_others_are_shown(tmp_path: Path, queue: DeadLetterQueue) -> None:
    path = of_asset(queue, "BTCUSD")
    path.write_bytes(path.read_bytes()[:-20])
    for command in (["list"], ["stats"], ["replay", "--all"], ["replay", "--all", "--asset", "ETHUSD"]):
        said = lakehouse(tmp_path, "dlq", *command)
        assert said.exit_code == 1, command
        assert path.name in said.stdout
        assert "is cut" in said.stdout
        assert "ETHUSD" in said.stdout or command[0] == "replay"
    assert path.exists()
    assert lakehouse(tmp_path, "dlq", "show", str(path)).exit_code == 1


# ---- replaying


def test_replay_lands_each_row_in_the_lake_of_its_kind(tmp_path: Path, queue: DeadLetterQueue) -> None:
    trial = answer(lakehouse(tmp_path, "dlq", "replay", "--all", "--dry-run", "--json"))
    assert (trial["new"], trial["refused"], trial["dry_run"]) == (3, 1, True)
    assert len(queue.files()) == 2
    assert not (tmp_path / "real").exists()
    found = answer(lakehouse(tmp_path, "dlq", "replay", "--all", "--json"))
    assert (found["rows"], found["new"], found["refused"]) == (4, 3, 1)
    assert len(stored(real(tmp_path))) == 2
    made_up = DeltaLakeManager(tmp_path / "sample", real(tmp_path).settings)
    assert made_up.coverage.synthetic is True
    assert len(stored(made_up)) == 1
    (left,) = queue.files()
    assert len(records(left)) == 1
    assert len(list((queue.path / "archive").iterdir())) == 2


def test_replay_of_one_says_what_is_left(tmp_path: Path, queue: DeadLetterQueue) -> None:
    path = of_asset(queue, "BTCUSD")
    code, out, err = shell(tmp_path, "dlq", "replay", path.stem[-8:], **EMBEDDED)
    assert code == 0, err
    assert "refused still (" in out
    assert "high < low: 1" in out
    assert len(queue.files()) == 2


def test_replay_filters_choose_files(tmp_path: Path, queue: DeadLetterQueue) -> None:
    found = answer(lakehouse(tmp_path, "dlq", "replay", "--all", "--provider", "sample", "--json"))
    assert [each["asset_pair"] for each in found["files"]] == ["ETHUSD"]
    assert answer(lakehouse(tmp_path, "dlq", "replay", "--all", "--dataset", "nothing", "--json"))["files"] == []


def test_rows_do_not_go_to_a_lake_of_the_other_kind(tmp_path: Path, queue: DeadLetterQueue) -> None:
    found = answer(lakehouse(tmp_path, "dlq", "replay", "--all", "--sample", "--json"), code=1)
    by_asset = {each["asset_pair"]: each for each in found["files"]}
    assert "synthetic" in by_asset["BTCUSD"]["error"]
    assert by_asset["ETHUSD"]["new"] == 1
    elsewhere = answer(lakehouse(tmp_path, "dlq", "replay", "--all", "--lake", str(tmp_path / "new"), "--json"))
    assert elsewhere["new"] == 2
    assert not (tmp_path / "real").exists()


@pytest.mark.parametrize(
    "arguments", [[], ["--all", "FILE"], ["nothing"], ["--all", "--lake", "x", "--sample"], ["--all", "--engine", "x"]]
)
def test_wrong_arguments(tmp_path: Path, queue: DeadLetterQueue, arguments: list[str]) -> None:
    assert lakehouse(tmp_path, "dlq", "replay", *arguments).exit_code == 2
    assert len(queue.files()) == 2


# ---- agreement and restatements


def test_agreement_is_shown_and_kept(tmp_path: Path) -> None:
    lake = real(tmp_path)
    for provider, shift in (("coinbase", 0.0), ("files", 1.0)):
        lake.append("raw_market_data_1h", bars(count=5, provider=provider, shift=shift), "run")
    found = answer(lakehouse(tmp_path, "agreement", "--assets", "btc-usd", "--limit", "2", "--json"))
    (pair,) = found["agreement"]
    assert (found["tolerance_bp"], pair["bars"], pair["beyond"], len(pair["worst"])) == (50.0, 5, 5, 2)
    kept = lake.quality.read(kind="agreement").to_pylist()
    assert [(row["asset_pair"], row["success"], row["rows_checked"], row["rows_failed"]) for row in kept] == [
        ("BTCUSD", False, 5, 5)
    ]
    said = lakehouse(tmp_path, "agreement", "--tolerance-bp", "300")
    assert said.exit_code == 0
    assert "beyond 300 bp" in said.stdout
    assert len(lake.quality.read(kind="agreement")) == 3
    assert "No two providers" in lakehouse(tmp_path, "agreement", "--timeframe", "1d").stdout
    for wrong in (["--timeframe", "7h"], ["--assets", "nobodyknows"], ["--end", "2025-01-01"]):
        assert lakehouse(tmp_path, "agreement", *wrong).exit_code == 2


def test_restatements_are_shown(tmp_path: Path) -> None:
    lake = real(tmp_path)
    for shift in (0.0, 1.0):
        lake.append("raw_market_data_1h", bars(count=5, shift=shift), "run")
    found = answer(lakehouse(tmp_path, "restatements", "--limit", "3", "--json"))
    assert (found["total"], len(found["restatements"]), len(found["series"])) == (10, 3, 2)
    said = lakehouse(tmp_path, "restatements", "--assets", "ETHUSD", "--limit", "2").stdout
    assert "close 100.0 → 101.0" in said
    assert "3 more" in said
    assert "No bar" in lakehouse(tmp_path, "restatements", "--start", "2030-01-01", "--end", "2030-01-02").stdout
