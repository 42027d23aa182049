"""What changed between two versions of bronze, by its log: against a comparison of the rows themselves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake

from pipelines.contracts import contract_for
from pipelines.storage import DeltaLakeManager

TABLE = "raw_market_data_1h"
START = datetime(2025, 1, 31, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)


def land(lake: DeltaLakeManager, asset: str, hours: list[int], close: float = 10.0) -> int:
    same = {"asset_pair": asset, "timeframe": "1h", "open": 10.0, "high": 20.0, "low": 5.0, "close": close,
            "volume": 1.0, "provider": "coinbase", "price_side": "trade", "is_adjusted": False,
            "is_derived": False}  # fmt: skip
    rows = [{**same, "timestamp": START + hour * HOUR} for hour in hours]
    columns = [column for column in contract_for(TABLE).columns if column.provided != "storage"]
    data = pa.table({c.name: pa.array([row[c.name] for row in rows], c.arrow_type) for c in columns})
    return lake.append(TABLE, data, "run").version


def test_new_and_restated_rows_count_from_the_first(embedded_lake: DeltaLakeManager) -> None:
    first = land(embedded_lake, "BTCUSD", list(range(10)))
    land(embedded_lake, "BTCUSD", [10, 11])
    land(embedded_lake, "BTCUSD", [7], close=11.0)
    last = land(embedded_lake, "ETHUSD", [3])
    assert embedded_lake.changed_between(TABLE, first, last) == {"BTCUSD": START + 7 * HOUR, "ETHUSD": START + 3 * HOUR}
    assert embedded_lake.changed_between(TABLE, last, last) == {}
    assert embedded_lake.pin(TABLE).version == last


def test_compaction_changes_nothing_and_a_restore_does(embedded_lake: DeltaLakeManager) -> None:
    land(embedded_lake, "BTCUSD", [0, 1])
    before = land(embedded_lake, "BTCUSD", [2])
    embedded_lake.optimize_table(TABLE)
    compacted = embedded_lake.pin(TABLE).version
    assert compacted > before
    assert embedded_lake.changed_between(TABLE, before, compacted) == {}
    newer = land(embedded_lake, "BTCUSD", [3])
    embedded_lake.restore_table(TABLE, version=compacted)
    restored = embedded_lake.pin(TABLE).version
    found = embedded_lake.changed_between(TABLE, newer, restored)
    assert found is not None
    assert found["BTCUSD"] <= START + 3 * HOUR


def test_a_log_that_does_not_reach_back_says_so(embedded_lake: DeltaLakeManager) -> None:
    first = land(embedded_lake, "BTCUSD", [0])
    land(embedded_lake, "BTCUSD", [1])
    last = land(embedded_lake, "BTCUSD", [2])
    DeltaTable(f"{embedded_lake.storage_path}/{TABLE}").create_checkpoint()
    Path(embedded_lake.storage_path, TABLE, "_delta_log", f"{first + 1:020}.json").unlink()
    assert embedded_lake.changed_between(TABLE, first, last) is None
    assert embedded_lake.changed_between(TABLE, first + 1, last) == {"BTCUSD": START + 2 * HOUR}


def test_what_made_a_table_is_read_through_what_tidies_up(embedded_lake: DeltaLakeManager) -> None:
    layer = embedded_lake.layer("silver")
    address = f"{layer.address}/bars"
    rows = pa.table({"a": [1, 2]})
    assert layer.names() == []
    for _ in range(3):
        write_deltalake(
            address, rows, mode="append", commit_properties=CommitProperties(custom_metadata={"userMetadata": "mine"})
        )
    assert layer.names() == ["bars"]
    DeltaTable(address).optimize.compact()
    made = layer.made("bars")
    write_deltalake(address, rows, mode="append")
    assert (made.version, made.note) == (2, "mine")
    assert (layer.made("bars").version, layer.made("bars").note) == (4, None)
    assert layer.rows("bars") == 8


def decide(lake: DeltaLakeManager, name: str, hour: int, asset: str = "BTCUSD") -> int:
    row = {"decision_id": name, "asset_pair": asset, "timestamp": START + hour * HOUR, "action": "BUY",
           "confidence": 0.6, "provider": "files", "strategy": "voting"}  # fmt: skip
    columns = [column for column in contract_for("raw_ai_decisions").columns if column.provided != "storage"]
    data = pa.table({c.name: pa.array([row.get(c.name)], c.arrow_type) for c in columns})
    return lake.append("raw_ai_decisions", data, "run").version


def test_a_record_that_moves_counts_from_where_it_was(embedded_lake: DeltaLakeManager) -> None:
    decide(embedded_lake, "a", 1, "ETHUSD")
    first = decide(embedded_lake, "b", 2)
    second = decide(embedded_lake, "c", 9)
    last = decide(embedded_lake, "a", 10)
    assert embedded_lake.changed_between("raw_ai_decisions", first, second) == {"BTCUSD": START + 9 * HOUR}
    assert embedded_lake.changed_between("raw_ai_decisions", second, last) == {
        "BTCUSD": START + 10 * HOUR, "ETHUSD": START + HOUR
    }  # fmt: skip


def test_of_records_that_are_gone_nothing_is_known(embedded_lake: DeltaLakeManager) -> None:
    first = decide(embedded_lake, "a", 1)
    second = decide(embedded_lake, "a", 5)
    embedded_lake.restore_table("raw_ai_decisions", version=first)
    restored = embedded_lake.pin("raw_ai_decisions").version
    assert embedded_lake.changed_between("raw_ai_decisions", second, restored) is None


def test_rows_from_an_instant_on_are_counted_by_their_files(embedded_lake: DeltaLakeManager) -> None:
    land(embedded_lake, "BTCUSD", list(range(10)))
    land(embedded_lake, "BTCUSD", [10, 11])
    land(embedded_lake, "ETHUSD", [3])
    pin = embedded_lake.pin(TABLE)
    assert (pin.rows, pin.assets) == (13, {"BTCUSD", "ETHUSD"})
    assert pin.rows_since({"BTCUSD": START + 10 * HOUR}, "timestamp") == 2
    # The file of the tenth row has five others: those of its month.
    assert pin.rows_since({"BTCUSD": START + 9 * HOUR}, "timestamp") == 8
    assert pin.rows_since({"BTCUSD": START + 12 * HOUR, "ETHUSD": START}, "timestamp") == 1
    assert pin.rows_since({}, "timestamp") == 0
