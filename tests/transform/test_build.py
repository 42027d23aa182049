"""What is stale is made anew, tested, and nothing else: with dbt and Spark, on a few bars."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from pipelines.errors import StorageError
from pipelines.instruments import InstrumentRegistry
from pipelines.storage import DeltaLakeManager, QualityResult
from pipelines.transform import facts
from pipelines.transform.build import CHECK, Request, transform
from pipelines.transform.plan import Planner
from pipelines.transform.project import Project
from pipelines.transform.runner import UP_TO_DATE, WOULD_BUILD, DbtRun, dbt_environment, prepare
from tests.conftest import make_settings
from tests.transform.test_runner import START, bars, decision, land, records

SELECT = ("decision_history", "int_closes")
TABLES = ["market_data_enriched", "multi_timeframe_analysis", "decision_history", "int_closes"]


class NoSparkManager(DeltaLakeManager):
    """A lake that must not be touched with Spark."""

    def spark(self) -> SparkSession:
        raise AssertionError("Spark was started")


class Workbench:
    """A lake, its dry twin, and where dbt writes; the module's tests tell one story."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        settings = make_settings(folder, {"storage": {"engine": "embedded"}})
        self.lake = DeltaLakeManager(settings.delta_lake.storage_path, settings)
        self.dry = NoSparkManager(settings.delta_lake.storage_path, settings)

    def run(self, *, full_refresh: bool = False) -> DbtRun:
        done = transform(Request(SELECT, full_refresh), self.lake, self.folder / "dbt")
        assert done.ok, [(node.name, node.status, node.message) for node in done.nodes if not node.ok]
        return done

    def outlook(self) -> dict[str, str]:
        done = transform(Request(SELECT), self.dry, self.folder / "dbt", dry_run=True)
        assert {node.status for node in done.nodes} <= {UP_TO_DATE, WOULD_BUILD}
        return {node.name: node.message for node in done.nodes if node.status == WOULD_BUILD}

    def versions(self) -> list[int]:
        return [self.lake.layer("silver").made(name).version for name in TABLES]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Workbench:
    bench = Workbench(tmp_path_factory.mktemp("build"))
    for timeframe, count in (("5m", 300), ("1h", 30)):
        land(bench.lake, bars("BTCUSD", timeframe, 0, count))
    bench.lake.append("raw_ai_decisions", records("raw_ai_decisions", [decision("early", timedelta(hours=1))]), "run")
    return bench


@pytest.mark.spark
def test_the_first_run_makes_and_tests_everything_the_second_starts_no_spark(bench: Workbench) -> None:
    assert bench.outlook() == dict.fromkeys(TABLES, "not there yet")
    done = bench.run()
    kinds = [node.kind for node in done.nodes]
    assert kinds.count("model") == len(TABLES)
    assert {"test", "unit_test"} <= set(kinds)
    again = transform(Request(SELECT), bench.dry, bench.folder / "dbt")
    assert [(node.name, node.status) for node in again.nodes] == [(name, UP_TO_DATE) for name in TABLES]
    kept = bench.lake.quality.read(kind="suite").to_pylist()
    assert {(row["table_name"], row["success"]) for row in kept} == {(name, True) for name in TABLES}
    rows = {row["table_name"]: row["rows_checked"] for row in kept}
    assert rows["market_data_enriched"] == 330


@pytest.mark.spark
def test_new_bars_are_told_and_make_one_commit_each(bench: Workbench) -> None:
    """Also where there is nothing to be made of them: no decision comes after them."""
    land(bench.lake, bars("BTCUSD", "5m", 300, 12))
    since = (START + 300 * timedelta(minutes=5)).strftime("%Y-%m-%d %H:%M")
    assert bench.outlook() == dict.fromkeys(TABLES, f"changed: BTCUSD 5m from {since}")
    before = bench.versions()
    done = bench.run()
    assert bench.versions() == [version + 1 for version in before]
    assert "unit_test" not in {node.kind for node in done.nodes}
    assert bench.outlook() == {}


@pytest.mark.spark
def test_compaction_of_bronze_makes_nothing_stale(bench: Workbench) -> None:
    before = bench.lake.pin("raw_market_data_5m").version
    bench.lake.optimize_table("raw_market_data_5m")
    assert bench.lake.pin("raw_market_data_5m").version > before
    assert bench.outlook() == {}


@pytest.mark.spark
def test_what_has_not_passed_its_tests_is_tested_again_and_not_made_again(bench: Workbench) -> None:
    failed = QualityResult(
        kind="suite", dataset="silver", check_name=CHECK, severity="critical", success=False, rows_checked=1,
        rows_failed=1, table_name="int_closes", details=json.dumps({"version": 0, "failed": ["one"]}),
    )  # fmt: skip
    bench.lake.quality.record([failed], "run")
    assert list(bench.outlook()) == ["int_closes"]
    before = bench.versions()
    done = bench.run()
    assert "test" in {node.kind for node in done.nodes}
    assert bench.versions() == before
    assert bench.outlook() == {}


@pytest.mark.spark
def test_other_facts_of_an_asset_make_its_rows_stale(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    known = facts.load_registry()
    other = known.resolve("BTCUSD").model_copy(update={"calendar": "forex"})
    registry = InstrumentRegistry({"BTCUSD": other}, frozenset({"USD"}), frozenset({"BTC"}))
    monkeypatch.setattr(facts, "load_registry", lambda: registry)
    stale = bench.outlook()
    assert list(stale) == TABLES
    assert all("BTCUSD" in why and "from 1970-01-01" in why for why in stale.values())


@pytest.mark.spark
def test_what_cannot_be_planned_fails_and_is_made_good_later(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    land(bench.lake, bars("BTCUSD", "5m", 312, 1))
    before = bench.versions()

    def plan(_self: Planner, _unique_id: str) -> None:
        raise StorageError("the log cannot be read")

    with monkeypatch.context() as patched:
        patched.setattr(Planner, "plan", plan)
        with pytest.raises(StorageError, match="the log cannot be read"):
            transform(Request(SELECT), bench.lake, bench.folder / "dbt")
    assert bench.versions() == before
    assert list(bench.outlook()) == TABLES


@pytest.mark.spark
@pytest.mark.soak
def test_a_full_refresh_makes_the_same_again(bench: Workbench) -> None:
    bench.run()
    before = bench.versions()
    bench.run(full_refresh=True)
    assert bench.versions() == [version + 1 for version in before]
    assert bench.outlook() == {}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("project")
    settings = make_settings(folder, {"storage": {"engine": "embedded"}})
    lake = DeltaLakeManager(settings.delta_lake.storage_path, settings)
    with dbt_environment(folder / "dbt"):
        return prepare([], lake)[1].project


def digests(project: Project) -> dict[str, str]:
    return {node.name: project.expected(node) for node in project.models()}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def test_a_definition_is_that_of_all_it_is_made_from(project: Project) -> None:
    before = digests(project)
    assert digests(project) == before
    node = next(node for node in project.models() if node.name == "multi_timeframe_analysis")
    raw, node.raw_code = node.raw_code, node.raw_code + " -- another"
    try:
        stale = changed(before, digests(project))
    finally:
        node.raw_code = raw
    assert {"multi_timeframe_analysis", "decision_history", "mart_provider_attribution"} <= stale
    assert not {"market_data_enriched", "trade_lifecycle", "yield_curve"} & stale


def test_only_the_variables_that_a_model_reads_are_part_of_it(project: Project) -> None:
    before = digests(project)
    other = Project(project.manifest, {"risk_free_rate": 0.5})
    same = Project(project.manifest, {"risk_free_rate": 0.6})
    stale = changed(digests(same), digests(other))
    assert "mart_trading_performance" in stale
    assert not {"market_data_enriched", "mart_market_regime_stats", "int_equity_days"} & stale
    assert "market_data_enriched" in changed(before, digests(other))


def test_models_come_after_what_they_are_made_from(project: Project) -> None:
    order = [node.name for node in project.models()]
    for node in project.models():
        assert all(order.index(parent.name) < order.index(node.name) for parent in project.parents(node))
