"""Dead letter files read back: exactly, in little memory, whoever wrote them; damaged ones are named and left."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.data_quality import DeadLetterQueue
from pipelines.data_quality.dlq_reading import (
    MOST_DISTINCT,
    NO_REASON,
    OTHERS,
    DlqFile,
    RowFilter,
    Unreadable,
    find_file,
    read_file,
    read_files,
    statistics,
)
from pipelines.data_quality.dlq_stream import rows_of
from pipelines.edge import RefusedRow
from pipelines.errors import ConfigError, DeadLetterError
from tests.data_quality.dead_letters import ERROR, HOURS, bar, bury


@pytest.fixture
def queue(tmp_path: Path) -> DeadLetterQueue:
    return DeadLetterQueue(tmp_path / "dlq")


def rows(path: Path) -> list[dict[str, Any]]:
    return [{**record, "reason": reason} for record, reason in rows_of(path)]


anything = st.text(st.characters())
leaf = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), anything, st.datetimes())
values = st.recursive(leaf, lambda inner: st.lists(inner) | st.dictionaries(anything, inner), max_leaves=5)
record_of_anything = st.dictionaries(anything, values, max_size=5)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(record_of_anything, max_size=4), st.dictionaries(anything, leaf, max_size=3), anything, st.integers(0, 2)
)
def test_what_is_written_is_read(
    tmp_path: Path, records: list[dict[str, object]], context: dict[str, object], reason: str, form: int
) -> None:
    path = DeadLetterQueue(tmp_path).write(ERROR, context, [RefusedRow(record, reason, None) for record in records])
    document = json.loads(path.read_text(encoding="utf-8"))
    # As another hand may print it: keys sorted, indented, and all but ASCII escaped.
    if form:
        path.write_text(json.dumps(document, indent=form, sort_keys=form > 1), encoding="utf-8")
    assert rows(path) == document["records"]
    found = read_file(path)
    assert (found.rows, found.error, dict(found.context)) == (len(records), ERROR, document["context"])
    assert found.timestamp == datetime.fromisoformat(document["timestamp"]).replace(tzinfo=UTC)
    path.unlink()


def test_numbers_are_those_that_json_reads(tmp_path: Path) -> None:
    text = '{"timestamp": "x", "records": [{"a": 1e400, "b": -0.0, "c": 12345678901234567890123, "d": 0.1, "e": 1E2}]}'
    path = tmp_path / "dlq_x.json"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    (found,) = rows(path)
    expected = json.loads(text)["records"][0]
    assert {name: (value, type(value)) for name, value in found.items() if name != "reason"} == {
        name: (value, type(value)) for name, value in expected.items()
    }
    assert math.copysign(1, found["b"]) == -1
    assert read_file(path).timestamp is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b'{"timestamp": "2025-12-14T10:30:00", "error": "x", "context": {}, "records": [{"a": 1},', "is cut"),
        (b'{"timestamp": "2025-', "is cut"),
        (b"PK\x03\x04", "is not JSON"),
        (b'{"records": [{"a": NaN}]}', "is not JSON"),
        (b'{"records": []} {"records": []}', "is not JSON"),
        (b'{"records": [{"a": "\xff"}]}', "is not JSON"),
        (b'{"records": [{"a": "\\ud800", "b": "\xff"}]}', "is not JSON"),
        (b"[]", "no list of records"),
        (b"3", "no list of records"),
        (b'{"records": {}}', "no list of records"),
        (b'{"records": [1]}', "record 1 is no object"),
    ],
)
def test_a_damaged_file_is_named_and_does_not_hold_up_the_others(
    queue: DeadLetterQueue, content: bytes, message: str
) -> None:
    sound = bury(queue, [bar(0)])
    broken = queue.path / "dlq_2025-01-01T00-00-00_00000000.json"
    broken.write_bytes(content)
    with pytest.raises(DeadLetterError, match=message):
        read_file(broken)
    bad, good = read_files(queue.files())
    assert isinstance(bad, Unreadable)
    assert isinstance(good, DlqFile)
    assert bad.path == broken
    assert broken.name in bad.error
    assert good.path == sound
    found = statistics(queue)
    assert (found.files, found.rows, [each.path for each in found.unreadable]) == (1, 1, [broken])
    assert broken.read_bytes() == content


def test_a_folder_or_a_file_that_is_gone_is_named(queue: DeadLetterQueue) -> None:
    (queue.path / "dlq_folder.json").mkdir(parents=True)
    (bad,) = statistics(queue).unreadable
    assert "directory" in bad.error
    with pytest.raises(DeadLetterError, match="No such file"):
        read_file(queue.path / "gone.json")


def test_rows_are_counted_by_reason_and_subject(queue: DeadLetterQueue) -> None:
    refused = [("high < low", 3), ("high < low; negative volume", 2), ("null open", 1), ("", 1)]
    queue.write(ERROR, HOURS, [RefusedRow(bar(i), why, None) for why, n in refused for i in range(n)])
    context = {"suite": "market_data_quality", "dataset": "raw_market_data"}
    mixed = [
        RefusedRow({"asset_pair": pair, "i": i}, "high < low", None) for i, pair in enumerate(["ETHUSD", "BTCUSD"])
    ]
    queue.write(ERROR, context, mixed)
    queue.write(ERROR, {"dataset": "macro_indicators"}, [RefusedRow({"series_id": "DGS10"}, "null value", None)])
    found = statistics(queue)
    # As `jq -r '.records[].reason' | sort | uniq -c` counts, with rows of two reasons under both.
    lines = Counter(row["reason"] for path in queue.files() for row in json.loads(path.read_text("utf-8"))["records"])
    by_hand = Counter[str]()
    for line, number in lines.items():
        by_hand.update({part or NO_REASON: number for part in line.split("; ")})
    assert found.by_reason == dict(by_hand)
    assert next(iter(found.by_reason)) == "high < low"
    assert found.by_dataset == {
        ("raw_market_data", "BTCUSD"): 8,
        ("raw_market_data", "ETHUSD"): 1,
        ("macro_indicators", "DGS10"): 1,
    }
    assert (found.files, found.rows, found.unreadable) == (3, 10, [])


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (RowFilter(), 4),
        (RowFilter(asset="btc-usd"), 3),
        (RowFilter(provider="oanda"), 1),
        (RowFilter(reason="HIGH"), 3),
        (RowFilter(asset="BTCUSD", reason="null"), 1),
        (RowFilter(dataset="macro_indicators"), 0),
    ],
)
def test_filters(queue: DeadLetterQueue, wanted: RowFilter, expected: int) -> None:
    queue.write(ERROR, HOURS, [RefusedRow(bar(0), "high < low", None), RefusedRow(bar(1), "null open", None)])
    shared = {"dataset": "raw_market_data"}
    queue.write(ERROR, shared, [RefusedRow({"asset_pair": "EURUSD", "provider": "oanda"}, "high < low", None)])
    queue.write(ERROR, shared, [RefusedRow({"asset_pair": "BTCUSD", "provider": "x"}, "high < low", None)])
    assert statistics(queue, wanted).rows == expected
    assert sum(each.rows for each in read_files(queue.files(), wanted)) == expected


def test_as_many_reasons_as_rows_are_not_all_held(queue: DeadLetterQueue) -> None:
    number = MOST_DISTINCT + 500
    queue.write(ERROR, HOURS, [RefusedRow({}, f"line {i} is odd", None) for i in range(number)])
    found = statistics(queue).by_reason
    assert len(found) == MOST_DISTINCT + 1
    assert (found[OTHERS], sum(found.values())) == (500, number)


def test_files_are_found_by_path_name_and_the_beginning_of_an_id(queue: DeadLetterQueue, tmp_path: Path) -> None:
    paths = [
        queue.path / f"dlq_2025-01-01T00-00-0{i}_{identity}.json" for i, identity in enumerate(["ab12cd34", "ab99ef00"])
    ]
    queue.path.mkdir()
    for path in paths:
        path.write_text('{"records": []}', encoding="utf-8")
    assert find_file(queue, "ab1") == paths[0]
    assert find_file(queue, "ab99ef00") == paths[1]
    assert find_file(queue, paths[0].name) == paths[0]
    assert find_file(queue, str(paths[0])) == paths[0]
    with pytest.raises(ConfigError, match="several"):
        find_file(queue, "ab")
    for name in ("", "zz"):
        with pytest.raises(ConfigError, match="dlq list"):
            find_file(queue, name)


def test_many_rows_take_little_memory(tmp_path: Path) -> None:
    queue = DeadLetterQueue(tmp_path)
    queue.write(ERROR, HOURS, (RefusedRow({"i": i, "text": "x" * 200}, "bad", None) for i in range(100_000)))
    script = f"""
import resource
from pathlib import Path
from pipelines.data_quality import DeadLetterQueue
from pipelines.data_quality.dlq_reading import statistics
statistics(DeadLetterQueue(Path({str(tmp_path / "none")!r})))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = statistics(DeadLetterQueue(Path({str(tmp_path)!r})))
print(found.rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    number, grown = map(int, done.stdout.split())
    assert number == 100_000
    assert grown < 10_000  # KiB, for a file of 23 MB
