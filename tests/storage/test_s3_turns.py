"""Turns in S3: one at a time, taken over from the dead, never in the way of correctness, errors that name the fix."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
import uuid

import pytest

from pipelines.config import PROJECT_ROOT
from pipelines.errors import StorageError
from pipelines.storage.names import lake_root
from pipelines.storage.stores.leases import Lease, lease
from pipelines.storage.stores.locks import turn
from pipelines.storage.stores.s3 import place

HOLDER = """
import sys, time
from pipelines.storage.stores.leases import lease
from pipelines.storage.stores.s3 import place
path, rounds, hold, start = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.stdin.readline()
for _ in range(rounds):
    with lease(place(path), "some_table", 60, seconds=5) as held:
        began = time.time()
        print(held, began, flush=True)
        time.sleep(hold)
        print(held, time.time(), flush=True)
"""


def holder(path: str, rounds: int, hold: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, path, str(rounds), str(hold)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT)


def test_two_processes_take_turns(s3_server, s3_lake_path):
    processes = [holder(s3_lake_path, 5, 0.05) for _ in range(2)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60)[0].split() for process in processes]
    spans = []
    for words in outputs:
        assert set(words[::2]) == {"True"}
        times = [float(word) for word in words[1::2]]
        spans += zip(times[::2], times[1::2], strict=True)
    spans.sort()
    assert len(spans) == 10
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))


def test_a_killed_holders_lease_is_taken_over_once_it_lapses(s3_server, s3_lake_path):
    process = holder(s3_lake_path, 1, 600)
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline().startswith("True")
    process.kill()
    process.communicate()
    root = lake_root(s3_lake_path)
    with turn(root, "some_table", patience_seconds=0.5) as held:
        assert not held
    began = time.monotonic()
    with turn(root, "some_table") as held:
        assert held
    assert time.monotonic() - began < 10


def test_a_lease_is_renewed_while_it_is_held(s3_server, s3_lake_path):
    where = place(s3_lake_path)
    with lease(where, "some_table", 1, seconds=2) as held:
        assert held
        with lease(where, "some_table", 6, seconds=2) as other:
            assert not other
    with lease(where, "some_table", 1, seconds=2) as held:
        assert held
    with lease(where, "another_table", 0, seconds=2) as first, lease(where, "third_table", 0, seconds=2) as second:
        assert (first, second) == (True, True)


def test_of_many_who_find_it_lapsed_one_takes_it(s3_server, s3_lake_path):
    where = place(s3_lake_path)
    gone = Lease(where, "some_table", 0.0)
    assert gone.take()
    waiting = [Lease(where, "some_table", 60.0) for _ in range(3)]
    seen = [each._read() for each in waiting]
    assert all(each.lapsed for each in seen)
    taken = [each._write(60.0, if_match=found.etag) for each, found in zip(waiting, seen, strict=True)]
    assert taken == [True, False, False]
    assert not gone.renew()
    assert waiting[0].renew()


def test_whoever_waits_in_vain_goes_on(s3_server, s3_lake_path):
    root = lake_root(s3_lake_path)
    with turn(root, "some_table") as first, turn(root, "some_table", patience_seconds=0.2) as second:
        assert (first, second) == (True, False)


def test_what_is_no_lease_holds_nobody_up(s3_server, s3_lake_path):
    where = place(s3_lake_path)
    key = where.key(".locks/some_table.lease")
    s3_server.client().put_object(Bucket=where.bucket, Key=key, Body=b"not json")
    with lease(where, "some_table", 0) as held:
        assert held


def test_problems_name_the_fix(s3_server, monkeypatch):
    missing = f"absent-{uuid.uuid4().hex[:8]}"
    with pytest.raises(StorageError, match=f"no bucket {missing} at http.*create it with `aws s3 mb s3://{missing}"):
        turn(lake_root(f"s3://{missing}/lake"), "some_table").__enter__()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match=r"keys are not accepted .*check AWS_ACCESS_KEY_ID") as caught:
        turn(lake_root("s3://lakehouse-tests/lake"), "some_table").__enter__()
    assert "wrong" not in str(caught.value)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match="no keys; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        turn(lake_root("s3://lakehouse-tests/lake"), "some_table").__enter__()
