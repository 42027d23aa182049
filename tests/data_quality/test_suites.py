"""Suites as files: those of the repository say what the contracts say, those of a project keep what was added."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import great_expectations as gx
import pyarrow as pa
import pytest
import yaml
from great_expectations.expectations import ExpectColumnMaxToBeBetween, ExpectColumnValuesToBeBetween
from hypothesis import given
from hypothesis import settings as example_budget
from hypothesis import strategies as st

from pipelines.config import PROJECT_ROOT, Settings
from pipelines.contracts import Contract, load_contracts
from pipelines.data_quality import DataQualityFramework
from pipelines.data_quality import stored_suites as suites
from pipelines.data_quality.checkpoints import CheckedPart
from pipelines.data_quality.expectations import build_suite, check_result, ephemeral_context, run
from pipelines.data_quality.frames import LocalFrame
from pipelines.data_quality.lake_validation import validate_table
from pipelines.data_quality.quality_project import QualityProject
from pipelines.data_quality.table_parts import parts_of
from pipelines.errors import ContractError
from pipelines.storage import DeltaLakeManager
from pipelines.storage.scan import Selection
from tests.conftest import make_settings
from tests.storage.bars import bars

SUITE = "market_data_quality"
MARKET_DATA = "raw_market_data"
TABLE = "raw_market_data_1h"


def market_data() -> Contract:
    return load_contracts()[MARKET_DATA]


def project_in(settings: Settings) -> QualityProject:
    return QualityProject(settings.quality.path, keep_runs=20)


def store(project: QualityProject, contract: Contract, parts: Iterable[CheckedPart] = ()) -> Any:
    """Run a checkpoint over parts that are given, which stores the suite."""
    return project.check(TABLE, contract, SUITE, iter(parts), "run")


def stored(project: QualityProject, name: str = SUITE) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(suites.stored_suite(project.path, name).read_text(encoding="utf-8"))
    return document


def reasons(document: dict[str, Any]) -> list[str]:
    return [each["meta"]["reason"] for each in document["expectations"] if "reason" in (each.get("meta") or {})]


# ---- in the repository


def test_the_suites_of_the_repository_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert suites.main(["--check"]) == 0, "run python -m pipelines.data_quality.stored_suites"
    assert capsys.readouterr().err == ""


def test_stale_absent_and_strange_suites_are_noticed_and_mended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--path", str(tmp_path / "suites")]
    assert suites.main(["--check", *folder]) == 1
    assert suites.main(folder) == 0
    assert suites.main(["--check", *folder]) == 0
    first = {path.name: path.read_bytes() for path in (tmp_path / "suites").iterdir()}
    (tmp_path / "suites" / f"{SUITE}.json").write_text("{}", encoding="utf-8")
    (tmp_path / "suites" / "of_no_contract.json").write_text("{}", encoding="utf-8")
    capsys.readouterr()
    assert suites.main(["--check", *folder]) == 1
    told = capsys.readouterr().err
    assert f"{SUITE}.json is stale" in told
    assert "of_no_contract.json is stale" in told
    assert suites.main(folder) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "suites").iterdir()} == first


def test_every_rule_and_column_of_every_contract_is_in_its_suite() -> None:
    """The contracts are read as plain YAML here, not with the code that made the suites."""
    for path in sorted((PROJECT_ROOT / "config" / "contracts").glob("*.yaml")):
        contract = yaml.safe_load(path.read_text(encoding="utf-8"))
        name = f"{contract['id'].removeprefix('raw_')}_quality"
        document = json.loads((suites.SUITES / f"{name}.json").read_text(encoding="utf-8"))
        assert (document["name"], document["meta"]) == (
            name,
            {"contract": contract["id"], "contract_version": contract["version"]},
        )
        told, schema = reasons(document), contract["schema"][0]
        assert [rule["name"] for rule in schema.get("quality", []) if rule["name"] not in told] == []
        needed = [
            column["name"]
            for column in schema["properties"]
            if column.get("required")
            and {"property": "providedBy", "value": "storage"} not in column.get("customProperties", [])
        ]
        nulls = [e for e in document["expectations"] if e["type"] == "expect_column_values_to_not_be_null"]
        assert [e["kwargs"]["column"] for e in nulls] == needed
        assert (suites.SUITES / f"{name}_live.json").exists() == any(
            sla["property"] == "latency" for sla in contract.get("slaProperties", [])
        )


def test_a_suite_of_the_repository_is_one_that_great_expectations_reads() -> None:
    for path in suites.SUITES.glob("*.json"):
        text = path.read_text(encoding="utf-8")
        suite = gx.ExpectationSuite(**json.loads(text))
        assert suite.name == path.stem
        assert suites.suite_text(suite) == text
        assert '"id"' not in text


def test_a_live_suite_expects_one_thing_more() -> None:
    plain, live = (
        reasons(json.loads((suites.SUITES / f"{name}.json").read_text(encoding="utf-8")))
        for name in (SUITE, f"{SUITE}_live")
    )
    assert [reason for reason in live if reason not in plain] == ["newest rows missing"]
    assert [reason for reason in plain if reason not in live] == []


# ---- in a project


def test_a_changed_contract_makes_its_suite_anew_and_keeps_what_was_added(settings: Settings) -> None:
    project, contract = project_in(settings), market_data()
    store(project, contract)
    before = stored(project)
    assert before["meta"]["contract_version"] == contract.version

    context = gx.get_context(mode="file", context_root_dir=project.path / "gx")
    suite = context.suites.get(SUITE)
    suite.add_expectation(ExpectColumnMaxToBeBetween(column="high", max_value=5, meta={"reason": "mine"}))
    generated = next(e for e in suite.expectations if (e.meta or {}).get("reason") == "high < low")
    generated.rule = "high >= 0"
    generated.save()

    changed = replace(
        contract,
        version="9.9.9",
        row_rules=tuple(rule for rule in contract.row_rules if rule.reason != "negative volume"),
    )
    store(project_in(settings), changed)
    after = stored(project)
    assert after["meta"] | {"great_expectations_version": ""} == {
        "contract": MARKET_DATA,
        "contract_version": "9.9.9",
        "great_expectations_version": "",
    }
    assert Counter(reasons(before)) - Counter(reasons(after)) == Counter(["negative volume"])
    assert Counter(reasons(after)) - Counter(reasons(before)) == Counter(["mine"])
    rules = {e["meta"]["reason"]: e["kwargs"].get("rule") for e in after["expectations"]}
    assert rules["high < low"] == "high >= low"
    # What has not changed is still the same expectation to whoever refers to it.
    same = {e["id"] for e in before["expectations"]} & {e["id"] for e in after["expectations"]}
    assert len(same) == len(before["expectations"]) - 2
    store(project, changed)
    assert stored(project)["expectations"] == after["expectations"]


def test_what_was_added_counts_in_data_frames_too(settings: Settings) -> None:
    store(project_in(settings), market_data())
    context = gx.get_context(mode="file", context_root_dir=Path(settings.quality.path) / "gx")
    context.suites.get(SUITE).add_expectation(ExpectColumnMaxToBeBetween(column="high", max_value=5))
    for live in (False, True):
        outcome = DataQualityFramework(settings).validate_dataframe(bars(), live=live)
        failed = {check.expectation for check in outcome.checks if not check.success}
        assert failed - {"expect_rows_to_satisfy_rule"} == {"expect_column_max_to_be_between"}
        assert not outcome
        assert outcome.failed_rows == 0


def test_a_stored_suite_that_cannot_be_read_is_named(settings: Settings) -> None:
    project = project_in(settings)
    store(project, market_data())
    path = suites.stored_suite(project.path, SUITE)
    for text in ("{", "[]", "{}", '{"name": "x", "expectations": [{"type": "expect_the_unexpected", "kwargs": {}}]}'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ContractError, match=f"{path}.*mend or remove it"):
            DataQualityFramework(settings).create_market_data_suite()


# ---- counts, and parts


def damaged(count: int = 600) -> pa.Table:
    """Bars of which some are out of bounds, which storage itself does not refuse."""
    frame = bars(count=count).to_pandas()
    frame.loc[frame.index % 50 == 7, ["open", "high", "low", "close"]] = 1e9
    return pa.Table.from_pandas(frame, schema=bars(count=1).schema, preserve_index=False)


def test_great_expectations_counts_the_rows_that_are_blamed() -> None:
    contract = market_data()
    columns = damaged().to_pydict()
    columns["close"][3] = None
    columns["close"][4], columns["open"][4] = float("nan"), float("inf")
    columns["price_side"][5] = "last"
    columns["volume"][10] = -1.0
    columns["asset_pair"][20] = "NONSENSE!"
    frame = LocalFrame(pa.table(columns), contract)
    results = run(ephemeral_context(), build_suite(contract, SUITE), frame.native(), spark=False)
    blamed = frame.failures().by_check
    counted = {check_result(each, {}).reason: (each.result or {})["unexpected_count"] for each in results}
    assert {reason: count for reason, count in counted.items() if count} == dict(blamed)
    assert set(blamed) >= {"null close", "not finite: close", "not finite: open", "unknown price_side", "unknown asset"}
    assert all(each.result["partial_unexpected_list"] == [] for each in results)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> DeltaLakeManager:
    """Three assets of different length, over four months, some bars out of bounds."""
    folder = tmp_path_factory.mktemp("lake")
    settings = make_settings(folder, {"storage": {"engine": "embedded"}})
    manager = DeltaLakeManager(settings.delta_lake.storage_path, settings)
    start = datetime(2025, 1, 20, tzinfo=UTC)
    rows = [
        bars(start=start, count=2000, assets=("BTCUSD",)),
        bars(start=start + timedelta(days=30), count=500, assets=("ETHUSD", "SOLUSD")),
        bars(start=start, count=100, assets=("BTCUSD",), provider="oanda"),
    ]
    frame = pa.concat_tables(rows).to_pandas()
    frame.loc[[5, 900, 1999, 2100], ["open", "high", "low", "close"]] = 1e9
    manager.append(TABLE, pa.Table.from_pandas(frame, schema=rows[0].schema, preserve_index=False), "r1")
    # Restated: a second version of some bars.
    manager.append(TABLE, bars(start=start + timedelta(days=40), count=200, assets=("BTCUSD",), shift=3.0), "r2")
    return manager


def version_of(manager: DeltaLakeManager) -> int:
    return next(info.version for info in manager.tables() if info.name == TABLE)


@pytest.mark.parametrize("most", [1, 50, 700, 1200, 10_000])
@given(data=st.data())
@example_budget(max_examples=10)
def test_parts_hold_each_row_once_and_keep_versions_and_months_together(
    lake: DeltaLakeManager, most: int, data: st.DataObject
) -> None:
    day = st.none() | st.integers(0, 120).map(lambda days: datetime(2025, 1, 15, tzinfo=UTC) + timedelta(days=days))
    edges = sorted(data.draw(st.tuples(day, day)), key=lambda each: each or datetime.min.replace(tzinfo=UTC))
    pairs = data.draw(st.none() | st.sets(st.sampled_from(["BTCUSD", "ETHUSD", "SOLUSD"]), min_size=1))
    wanted = Selection(*edges, tuple(sorted(pairs)) if pairs else None)
    version = version_of(lake)
    parts = parts_of(lake, TABLE, market_data(), wanted, version, most)
    expected = lake.read_table(TABLE, wanted.start, wanted.end, wanted.assets, version=version)
    months: Counter[tuple[str, str]] = Counter()
    total = 0
    for part in parts:
        rows = lake.read_table(TABLE, part.start, part.end, part.assets, version=version)
        assert len(rows) == part.rows
        total += len(rows)
        held = set(zip(rows["asset_pair"], rows["timestamp"].dt.strftime("%Y-%m"), strict=True))
        months.update(held)
        assert part.rows <= most or len(held) == 1
    assert total == len(expected)
    assert set(months.values()) <= {1}
    newest = expected.groupby("asset_pair")["timestamp"].max()
    for part in parts:
        rows = lake.read_table(TABLE, part.start, part.end, part.assets, version=version)
        ends = rows.groupby("asset_pair")["timestamp"].max()
        assert part.newest == all(newest[pair] == when for pair, when in ends.items())


def test_parts_add_up_to_the_whole(lake: DeltaLakeManager, tmp_path: Path) -> None:
    found = {}
    for most in (10_000, 300):
        settings = lake.settings.model_copy(
            update={"quality": lake.settings.quality.model_copy(update={"rows_per_part": most})}
        )
        manager = DeltaLakeManager(lake.storage_path, settings)
        project = QualityProject(tmp_path / str(most), keep_runs=20)
        found[most] = validate_table(manager, project, TABLE, version_of(lake), Selection(), "run")
    whole, cut = found[10_000], found[300]
    assert (whole.parts, cut.parts) == (1, 8)
    assert whole.rows == cut.rows == 3300
    assert whole.failed_rows == cut.failed_rows == 4
    grave = [[check for check in each.checks if check.severity == "critical"] for each in (whole, cut)]
    assert grave[0] == grave[1]
    assert [(check.reason, check.failed_rows) for check in grave[0] if not check.success] == [
        ("price out of bounds", 4)
    ]
    records = [record for path in cut.dlq_files for record in json.loads(path.read_text(encoding="utf-8"))["records"]]
    assert [record["reason"] for record in records] == ["price out of bounds"] * 4


def checked(contract: Contract, added: Any, tables: Iterable[pa.Table]) -> Iterator[CheckedPart]:
    suite = build_suite(contract, SUITE, by_hand=[added])
    for table in tables:
        frame = LocalFrame(table, contract)
        yield CheckedPart(frame.total, run(ephemeral_context(), suite, frame.native(), spark=False))


@pytest.mark.parametrize(("mostly", "success"), [(0.85, True), (0.95, False)])
def test_a_share_that_may_fail_is_the_tables(settings: Settings, mostly: float, success: bool) -> None:
    """A tenth of the rows lie below the bound, all of them in the second part."""
    project, contract = project_in(settings), market_data()

    def added() -> ExpectColumnValuesToBeBetween:
        return ExpectColumnValuesToBeBetween(column="close", min_value=50, mostly=mostly)

    store(project, contract)
    context = gx.get_context(mode="file", context_root_dir=project.path / "gx")
    context.suites.get(SUITE).add_expectation(added())
    tables = [bars(count=90, assets=("BTCUSD",)), bars(count=10, assets=("ETHUSD",), shift=-90.0)]
    result = store(project_in(settings), contract, checked(contract, added(), tables))
    (own,) = [each for each in result.results if each.expectation_config.type == "expect_column_values_to_be_between"]
    assert (own.success, own.result["unexpected_count"], own.result["element_count"]) == (success, 10, 100)
    assert result.success is success
    kept = list((project.path / "gx" / "validations").rglob("*.json"))
    assert any(json.loads(path.read_text(encoding="utf-8"))["meta"]["batch_parameters"]["rows"] == 100 for path in kept)


def test_a_lake_in_s3_is_validated_as_one_on_a_disk(s3_server: object, s3_lake_path: str, tmp_path: Path) -> None:
    settings = make_settings(tmp_path, {"storage": {"engine": "embedded"}, "quality": {"rows_per_part": 500}})
    manager = DeltaLakeManager(s3_lake_path, settings)
    manager.append(TABLE, damaged(), "r1")
    found = validate_table(manager, project_in(settings), TABLE, version_of(manager), Selection(), "run")
    assert (found.rows, found.parts, found.failed_rows) == (1200, 2, 24)
    assert [check.reason for check in found.checks if not check.success and check.severity == "critical"] == [
        "price out of bounds"
    ]
