"""The dead letter queue: the documented format, whole files or none, the same rows once, and no secret."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.data_quality import DeadLetterQueue
from pipelines.edge import RefusedRow

NAME = re.compile(r"dlq_\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d_[0-9a-f]{8}\.json")
ERROR = "schema_validation_failed"
CONTEXT = {"asset_pair": "BTCUSD", "timeframe": "1h", "provider": "alpha_vantage"}
SECRET = "S3cr3tS3cr3t"


def row(**record: object) -> RefusedRow:
    return RefusedRow(record, "high < low", None)


def read(path: Path) -> dict[str, object]:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_documented_format(tmp_path: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0, tzinfo=None)
    path = DeadLetterQueue(tmp_path / "dlq").write(
        ERROR, CONTEXT, [row(date="2025-12-14 09:00:00", high=42000, low=42500)]
    )
    document = read(path)
    stamp = datetime.fromisoformat(str(document.pop("timestamp")))
    assert document == {
        "error": ERROR,
        "context": CONTEXT,
        "records": [{"date": "2025-12-14 09:00:00", "high": 42000, "low": 42500, "reason": "high < low"}],
    }
    assert NAME.fullmatch(path.name)
    assert path.name.startswith(f"dlq_{stamp.isoformat().replace(':', '-')}_")
    assert before <= stamp <= datetime.now(UTC).replace(tzinfo=None)
    assert list(read(path)) == ["timestamp", "error", "context", "records"]


def test_values_that_json_lacks(tmp_path: Path) -> None:
    given_row = row(
        when=datetime(2025, 1, 1, tzinfo=UTC),
        day=date(2025, 1, 1),
        price=math.nan,
        top=math.inf,
        votes=[{"provider": "a", "confidence": None}],
        raw=b"\xff",
        flag=True,
        odd="a\ud800b",
    )
    record = read(DeadLetterQueue(tmp_path).write(ERROR, {}, [given_row]))["records"][0]
    assert record == {
        "when": "2025-01-01T00:00:00+00:00",
        "day": "2025-01-01",
        "price": "nan",
        "top": "inf",
        "votes": [{"provider": "a", "confidence": None}],
        "raw": "b'\\xff'",
        "flag": True,
        "odd": "a\ud800b",
        "reason": "high < low",
    }


anything = st.text(st.characters())
leaf = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), anything, st.binary(), st.datetimes())
record_of_anything = st.dictionaries(anything, st.recursive(leaf, st.lists, max_leaves=5), max_size=5)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(record_of_anything, max_size=4))
def test_any_record_is_written_and_none_is_lost(tmp_path: Path, records: list[dict[str, object]]) -> None:
    path = DeadLetterQueue(tmp_path).write(ERROR, {}, [RefusedRow(record, "bad", None) for record in records])
    written = read(path)["records"]
    assert [entry["reason"] for entry in written] == ["bad"] * len(records)
    assert [set(entry) for entry in written] == [set(record) | {"reason"} for record in records]


def test_the_same_rows_are_written_once(tmp_path: Path) -> None:
    queue = DeadLetterQueue(tmp_path)
    first = queue.write(ERROR, CONTEXT, [row(high=1), row(high=2)])
    content = first.read_bytes()
    assert queue.write(ERROR, CONTEXT, [row(high=1), row(high=2)]) == first
    assert queue.write(ERROR, CONTEXT, iter([row(high=1), row(high=2)])) == first
    assert first.read_bytes() == content
    others = {
        queue.write(ERROR, CONTEXT, [row(high=1)]),
        queue.write(ERROR, CONTEXT, [row(high=2), row(high=1)]),
        queue.write("other", CONTEXT, [row(high=1), row(high=2)]),
        queue.write(ERROR, {}, [row(high=1), row(high=2)]),
    }
    assert len(others) == 4
    assert queue.files() == sorted({first, *others})


def test_a_taken_id_hides_no_other_rows(tmp_path: Path) -> None:
    queue = DeadLetterQueue(tmp_path)
    path = queue.write(ERROR, CONTEXT, [row(high=1)])
    path.write_text(path.read_text(encoding="utf-8").replace("42", "43").replace("BTCUSD", "ETHUSD"), encoding="utf-8")
    other = queue.write(ERROR, CONTEXT, [row(high=1)])
    assert other != path
    assert NAME.fullmatch(other.name)
    assert read(other)["context"] == CONTEXT
    assert queue.write(ERROR, CONTEXT, [row(high=1)]) == other


def test_many_writers_of_the_same_rows_write_one_file(tmp_path: Path) -> None:
    def write(_: int) -> Path:
        return DeadLetterQueue(tmp_path).write(ERROR, CONTEXT, [row(high=i) for i in range(200)])

    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(write, range(16)))
    assert len(paths) == 1
    assert list(tmp_path.iterdir()) == list(paths)


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def torn() -> Iterator[RefusedRow]:
        yield row(high=1)
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        DeadLetterQueue(tmp_path).write(ERROR, CONTEXT, torn())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [100, 5_000])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, limit: int) -> None:
    """The limit on a process's file size fails writes as a full disk does, after some bytes."""
    script = f"""
import resource, signal
from pipelines.data_quality import DeadLetterQueue
from types import SimpleNamespace as RefusedRow
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    rows = (RefusedRow(record={{"i": i}}, reason="bad") for i in range(10_000))
    DeadLetterQueue({str(tmp_path)!r}).write("full", {{}}, rows)
except OSError as error:
    print(error.errno)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "27"
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OSError, match="file"):
        DeadLetterQueue(tmp_path / "file" / "dlq").write(ERROR, CONTEXT, [row(high=1)])


def test_the_file_is_readable_by_others(tmp_path: Path) -> None:
    path = DeadLetterQueue(tmp_path).write(ERROR, CONTEXT, [row(high=1)])
    assert os.stat(path).st_mode & 0o777 == 0o644  # noqa: PTH116


def test_many_rows_take_little_memory(tmp_path: Path) -> None:
    script = f"""
import resource
from pipelines.data_quality import DeadLetterQueue
from types import SimpleNamespace as RefusedRow
queue = DeadLetterQueue({str(tmp_path)!r})
queue.write("few", {{}}, [RefusedRow(record={{"i": 0}}, reason="bad")])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
queue.write("many", {{}}, (RefusedRow(record={{"i": i, "text": "x" * 200}}, reason="bad") for i in range(40_000)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) < 5_000  # KiB, for a file of 10 MB


def test_no_secret_gets_in(tmp_path: Path) -> None:
    record = {
        "api_key": SECRET,
        "Authorization": SECRET,
        "oanda_api_token": SECRET,
        "client-secret": SECRET,
        "url": f"https://host/q?symbol=A&apikey={SECRET}&x=1",
        "other_url": f"https://host/q?client_secret={SECRET}",
        "header": f"Authorization: Bearer {SECRET}",
        "nested": {"deep": [{"token": SECRET}, f"password={SECRET}"]},
    }
    context = {"request": f"GET /q?token={SECRET}", "api_key": SECRET}
    path = DeadLetterQueue(tmp_path).write(ERROR, context, [RefusedRow(record, f"bad answer to ?token={SECRET}", None)])
    assert SECRET not in path.read_text(encoding="utf-8")
    assert SECRET not in path.name
    written = read(path)["records"][0]
    assert written["url"] == "https://host/q?symbol=A&apikey=***&x=1"
    assert written["api_key"] == "***"


@pytest.mark.parametrize(
    "headline",
    [
        "Basic Attention Token jumps 20%",
        "Bearer bonds and basic materials: what to know",
        "Tokens: keys to the market",
        'He said: "the token\'s secret" is out',
    ],
)
def test_headlines_are_left_alone(tmp_path: Path, headline: str) -> None:
    path = DeadLetterQueue(tmp_path).write(ERROR, {}, [row(title=headline, tokenized=True, secretary="Ann")])
    record = read(path)["records"][0]
    assert (record["title"], record["tokenized"], record["secretary"]) == (headline, True, "Ann")


def test_the_package_imports_without_the_slow_libraries() -> None:
    script = (
        "import sys, pipelines.data_quality as d; d.DeadLetterQueue; "
        "print([m for m in ('great_expectations', 'pyspark', 'pandas', 'polars') if m in sys.modules]); "
        "d.DataQualityFramework; print([m for m in ('great_expectations', 'pyspark') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]


def test_what_a_killed_writer_left_is_swept_and_what_another_writes_is_not(tmp_path: Path) -> None:
    left = tmp_path / ".dlq_killed.partial"
    left.write_text("{", encoding="utf-8")
    seen: list[Path] = []

    def slow() -> Iterator[RefusedRow]:
        yield row(high=1)
        (mine,) = tmp_path.glob(".dlq_*.partial")
        DeadLetterQueue(tmp_path).write(ERROR, CONTEXT, [row(high=2)])
        seen.append(mine)
        assert mine.exists()
        yield row(high=3)

    path = DeadLetterQueue(tmp_path).write(ERROR, CONTEXT, slow())
    assert seen
    assert not left.exists()
    assert len(read(path)["records"]) == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_where_rows_were_replayed_from_is_no_part_of_their_id(tmp_path: Path) -> None:
    queue = DeadLetterQueue(tmp_path)
    first = queue.write(ERROR, CONTEXT, [row(high=1)])
    lineage = {"replayed_from": "dlq_x.json", "refused_at": "2025-12-14T10:30:00+00:00"}
    assert queue.write(ERROR, {**CONTEXT, **lineage}, [row(high=1)]) == first
    assert queue.write(ERROR, {**lineage, **CONTEXT}, [row(high=2)]) == queue.write(ERROR, CONTEXT, [row(high=2)])
    assert len(queue.files()) == 2


def test_the_archive_keeps_every_file(tmp_path: Path) -> None:
    queue = DeadLetterQueue(tmp_path)
    places = []
    for _ in range(3):
        path = queue.write(ERROR, CONTEXT, [row(high=1)])
        named = path.rename(tmp_path / "dlq_2025-12-14T10-30-00_00000000.json")
        places.append(queue.archive(named))
    assert len(set(places)) == 3
    assert sorted((tmp_path / "archive").iterdir()) == sorted(places)
    assert queue.files() == []
