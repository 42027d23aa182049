"""A contract that gains nullable columns evolves its table; what would lose or change data is refused."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import duckdb
import pyarrow as pa
import pytest
from bars import bars

from pipelines.contracts import Column, Contract, RowRule, contract_for
from pipelines.errors import ContractError, StorageError
from pipelines.storage import DeltaLakeManager, creation
from pipelines.storage import delta_lake_manager as door
from tests.storage.conftest import manager

TABLE = "raw_market_data_1h"
VENUE = Column("venue", "string", "Where it was traded.", False, False, False, True, "source", ())


def with_columns(*columns: Column, version: str = "1.1.0") -> Contract:
    return replace(contract_for(TABLE), version=version, columns=columns)


def changed(column: str, **changes: object) -> tuple[Column, ...]:
    return tuple(replace(c, **changes) if c.name == column else c for c in contract_for(TABLE).columns)


@pytest.fixture
def declare(monkeypatch) -> Callable[[Contract], None]:
    """Put a contract in force, as a new release of the project would."""

    def use(contract: Contract) -> None:
        for module in (creation, door):
            monkeypatch.setattr(module, "contract_for", lambda _: contract)

    return use


def reopened(lake: DeltaLakeManager) -> DeltaLakeManager:
    return DeltaLakeManager(lake.storage_path, lake.settings)


def properties(lake: DeltaLakeManager) -> dict[str, str]:
    return dict(lake._lake.open(TABLE).metadata().configuration)


def test_a_new_nullable_column_evolves_the_table(any_lake, declare):
    any_lake.append(TABLE, bars(count=2), "old")
    assert properties(any_lake)["lakehouse.contract.version"] == contract_for(TABLE).version
    declare(with_columns(*contract_for(TABLE).columns, VENUE))
    lake = reopened(any_lake)
    rows = bars(count=3).append_column("venue", pa.array(["LSE"] * 6))
    result = lake.append(TABLE, rows, "new")
    # A value where there was none is a new version of the row.
    assert (result.new, result.restated) == (2, 4)
    assert properties(lake)["lakehouse.contract.version"] == "1.1.0"
    found = lake.read_table(TABLE)
    assert found["venue"].isna().sum() == 4
    assert (found["venue"] == "LSE").sum() == 6
    # Old and new files together are compacted into one shape.
    assert lake.optimize_table(TABLE).files_added == 2
    assert lake.read_table(TABLE)["venue"].isna().sum() == 4
    version = lake._lake.open(TABLE).version()
    reopened(lake).ensure_table(TABLE)
    assert lake._lake.open(TABLE).version() == version


@pytest.mark.parametrize(
    ("contract", "difference"),
    [
        (with_columns(*(c for c in contract_for(TABLE).columns if c.name != "volume")), r"- volume double"),
        (with_columns(*changed("volume", name="traded")), r"- volume double(.|\n)*"),
        (with_columns(*changed("volume", type="bigint")), r"~ volume: double in the table, int64 in the contract"),
        (with_columns(*changed("volume", required=True)), r"~ volume: may be null in the table, required"),
        (
            with_columns(*contract_for(TABLE).columns, replace(VENUE, required=True)),
            r"\+ venue string: new, but required",
        ),
        (
            with_columns(*changed("partition_asset_pair", partition=False)),
            r"~ partitioned by partition_date, partition_a",
        ),
    ],
    ids=["dropped", "renamed", "retyped", "required", "new and required", "repartitioned"],
)
def test_what_would_lose_or_change_data_is_refused_with_the_difference(embedded_lake, declare, contract, difference):
    embedded_lake.append(TABLE, bars(count=2), "old")
    version, before = embedded_lake._lake.open(TABLE).version(), properties(embedded_lake)
    declare(contract)
    with pytest.raises(ContractError, match=difference) as caught:
        reopened(embedded_lake).ensure_table(TABLE)
    assert "version 1.0.0 of the contract raw_market_data" in str(caught.value)
    assert (embedded_lake._lake.open(TABLE).version(), properties(embedded_lake)) == (version, before)
    assert len(embedded_lake.read_table(TABLE)) == 4


def test_a_column_that_is_required_no_longer_takes_nulls(embedded_lake, declare):
    embedded_lake.append(TABLE, bars(count=2), "old")
    declare(with_columns(*changed("price_side", required=False)))
    rows = bars(count=1, assets=("SOLUSD",)).set_column(9, "price_side", pa.array([None], pa.string()))
    assert reopened(embedded_lake).append(TABLE, rows, "new").new == 1


def test_changed_rules_take_the_place_of_the_old_ones(embedded_lake, declare):
    embedded_lake.append(TABLE, bars(count=2), "old")
    rules = (RowRule("high < low", "high >= low - 100", "error", True), RowRule("cheap", "close > 1", "error", True))
    declare(replace(contract_for(TABLE), version="1.2.0", row_rules=rules))
    lake = reopened(embedded_lake)
    lake.ensure_table(TABLE)
    names = {name for name in properties(lake) if name.startswith("delta.constraints.")}
    assert names == {"delta.constraints.high_low", "delta.constraints.cheap"}
    inverted = bars(count=1, assets=("SOLUSD",)).set_column(4, "high", pa.array([99.0]))
    assert lake.append(TABLE, inverted, "now allowed").new == 1
    cheap = bars(count=1, assets=("LTCUSD",), shift=-99.5)
    with pytest.raises(StorageError, match="constraint"):
        lake.append(TABLE, cheap, "now refused")


def test_rows_that_break_a_new_rule_are_named_as_the_reason(embedded_lake, declare):
    embedded_lake.append(TABLE, bars(count=2), "old")
    rules = (RowRule("impossible", "close < 0", "error", True),)
    declare(replace(contract_for(TABLE), version="1.2.0", row_rules=rules))
    with pytest.raises(StorageError, match=r"cannot bring raw_market_data_1h to version 1\.2\.0"):
        reopened(embedded_lake).ensure_table(TABLE)
    assert properties(embedded_lake)["lakehouse.contract.version"] == "1.0.0"


def test_several_processes_evolve_a_table_once(embedded_lake, declare, tmp_path):
    embedded_lake.append(TABLE, bars(count=2), "old")
    declare(with_columns(*contract_for(TABLE).columns, VENUE))
    lakes = [manager(tmp_path, embedded_lake.storage_path, "embedded") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda lake: lake.ensure_table(TABLE), lakes))
    assert properties(embedded_lake)["lakehouse.contract.version"] == "1.1.0"
    files = embedded_lake._lake.open(TABLE).file_uris()
    assert duckdb.sql(f"select count(*) from read_parquet({files})").fetchall() == [(4,)]
