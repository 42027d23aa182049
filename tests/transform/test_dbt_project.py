"""The dbt project reads as a whole without a lake, says what it is made of, and refuses to run where that harms."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import PROJECT_ROOT
from pipelines.contracts import load_contracts
from pipelines.storage import DeltaLakeManager
from pipelines.transform import sources
from pipelines.transform.runner import run_dbt

DBT = PROJECT_ROOT / "dbt"
BIN = Path(sys.executable).parent


def plain(folder: Path, *arguments: str, cwd: Path = DBT) -> subprocess.CompletedProcess[str]:
    """Run a tool as a user in dbt/ would, but with its litter elsewhere."""
    environment = os.environ | {"DBT_TARGET_PATH": str(folder / "target"), "DBT_LOG_PATH": str(folder / "logs")}
    return subprocess.run(
        [str(BIN / arguments[0]), *arguments[1:]],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a plain `dbt parse`, and its manifest."""
    folder = tmp_path_factory.mktemp("dbt")
    done = plain(folder, "dbt", "--warn-error", "parse")
    assert done.returncode == 0, done.stdout
    return folder, json.loads((folder / "target" / "manifest.json").read_text())


def models(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {node["name"]: node for node in manifest["nodes"].values() if node["resource_type"] == "model"}


def test_generated_files_are_fresh() -> None:
    assert sources.main(["--check"]) == 0


def test_a_stale_file_is_found_and_written_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sources.main(["--models", str(tmp_path)]) == 0
    page = tmp_path / "staging" / "sources.yml"
    page.write_text(page.read_text().replace("asset_pair", "asset"))
    assert sources.main(["--models", str(tmp_path), "--check"]) == 1
    assert "python -m pipelines.transform.sources" in capsys.readouterr().err
    assert sources.main(["--models", str(tmp_path)]) == 0
    assert page.read_text() == (sources.MODELS / "staging" / "sources.yml").read_text()


def test_every_bronze_table_and_column_is_a_source(parsed: tuple[Path, dict[str, Any]]) -> None:
    # Of ticks models read the bars.
    found = {node["name"]: set(node["columns"]) for node in parsed[1]["sources"].values()}
    wanted = {
        table: {column.name for column in contract.columns}
        for contract in load_contracts().values() if not contract.is_log and contract.id != "raw_market_ticks"
        for table in contract.tables
    }  # fmt: skip
    assert found == wanted


def test_every_model_and_column_is_documented_and_every_model_tested(parsed: tuple[Path, dict[str, Any]]) -> None:
    manifest = parsed[1]
    tested = {
        name
        for node in manifest["nodes"].values() if node["resource_type"] == "test"
        for name in node["depends_on"]["nodes"]
    }  # fmt: skip
    for name, model in models(manifest).items():
        assert model["description"], name
        assert model["columns"], name
        assert all(column["description"] and column["data_type"] for column in model["columns"].values()), name
        assert model["unique_id"] in tested, name


def test_tables_are_delta_and_say_how_they_merge(parsed: tuple[Path, dict[str, Any]]) -> None:
    for name, model in models(parsed[1]).items():
        config = model["config"]
        assert config["file_format"] == "delta", name
        if config["materialized"] in {"view", "ephemeral"}:
            continue
        assert config["materialized"] == "incremental", name
        assert config["incremental_strategy"] == "merge", name
        assert config["unique_key"], name
        assert config["on_schema_change"] == "fail", name


def test_ls_and_docs_need_no_lake(parsed: tuple[Path, dict[str, Any]]) -> None:
    folder = parsed[0]
    listed = plain(folder, "dbt", "--quiet", "ls", "--resource-type", "model")
    assert listed.returncode == 0
    assert "finance_lakehouse.silver.market_data_enriched" in listed.stdout.split()
    docs = plain(folder, "dbt", "docs", "generate", "--empty-catalog")
    assert docs.returncode == 0, docs.stdout
    assert (folder / "target" / "index.html").is_file()


@pytest.mark.parametrize("command", ["build", "run", "test"])
def test_a_plain_run_says_what_to_run_instead(parsed: tuple[Path, dict[str, Any]], command: str) -> None:
    done = plain(parsed[0], "dbt", command)
    assert done.returncode == 2
    assert "run `lakehouse transform`" in done.stdout
    assert f"`lakehouse dbt {command}" in done.stdout
    assert not [name for name in ("metastore_db", "spark-warehouse", "derby.log") if (DBT / name).exists()]


def test_commands_that_only_read_the_project_start_no_spark(embedded_lake: DeltaLakeManager, tmp_path: Path) -> None:
    done = run_dbt(["--quiet", "ls", "--resource-type", "model"], embedded_lake, tmp_path / "dbt")
    assert done.ok
    assert "finance_lakehouse.silver.market_data_enriched" in done.lines
    assert (tmp_path / "dbt" / "target").is_dir()
    assert "LAKEHOUSE_DBT_SESSION" not in os.environ
