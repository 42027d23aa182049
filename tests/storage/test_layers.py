"""The last rows of stored partitions, found without reading more than their instants; the oracle is sorting."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.storage.layers import Layer, Stretch
from pipelines.storage.names import LakeRoot

START = datetime(2025, 2, 1, tzinfo=UTC)
numbers = st.lists(st.integers(0, 50), unique=True, max_size=20)


def rows_of(asset: str, minutes: list[int]) -> pa.Table:
    return pa.table(
        {
            "timeframe": ["1m"] * len(minutes),
            "asset_pair": [asset] * len(minutes),
            "timestamp": pa.array([START + timedelta(minutes=each) for each in minutes], pa.timestamp("us", "UTC")),
        }
    )


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    held=st.fixed_dictionaries({"BTCUSD": st.lists(numbers, max_size=3), "O'X": st.lists(numbers, max_size=3)}),
    start=st.integers(0, 30),
    length=st.integers(0, 30),
    rows=st.integers(1, 6),
)
def test_stretches_are_cut_down_to_their_last_rows(
    tmp_path_factory, held: dict[str, list[list[int]]], start: int, length: int, rows: int
) -> None:
    folder: Path = tmp_path_factory.mktemp("lake")
    layer = Layer(LakeRoot(str(folder)), "silver")
    by = ["timeframe", "asset_pair"]
    write_deltalake(f"{layer.address}/bars", rows_of("ADAUSD", [1]), partition_by=by)
    for asset, parts in held.items():
        seen: set[int] = set()
        for part in parts:
            write_deltalake(f"{layer.address}/bars", rows_of(asset, [n for n in part if n not in seen]), mode="append")
            seen |= set(part)
    first, last = START + timedelta(minutes=start), START + timedelta(minutes=start + length)
    stretches = [Stretch({"timeframe": "1m", "asset_pair": asset}, first, last) for asset in held]
    wanted = {}
    for asset, parts in held.items():
        instants = sorted({START + timedelta(minutes=number) for part in parts for number in part})
        if chosen := [at for at in instants if first <= at < last][-rows:]:
            wanted[asset] = chosen[0]
    found = layer.last_rows("bars", stretches, rows)
    assert {each.partition["asset_pair"]: each.start for each in found} == wanted
    assert all(each.end == last for each in found)
    assert layer.last_rows("bars", [], rows) == []
