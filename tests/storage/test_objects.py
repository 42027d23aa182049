"""The small files beside a lake's tables: whole or absent, put once, never outside the lake."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from pipelines.errors import StorageError
from pipelines.storage.names import lake_root
from pipelines.storage.stores.objects import Objects, objects_of


@pytest.fixture(params=["local", "s3"])
def objects(request, tmp_path) -> Objects:
    address = tmp_path / "lake" if request.param == "local" else request.getfixturevalue("s3_lake_path")
    return objects_of(lake_root(address))


def test_what_is_put_is_read(objects):
    objects.put("_things/a.json", b"one")
    objects.put("_things/a.json", b"two")
    assert objects.read("_things/a.json") == b"two"
    objects.delete("_things/a.json")
    objects.delete("_things/a.json")
    with pytest.raises(FileNotFoundError):
        objects.read("_things/a.json")


def test_a_new_file_is_put_once(objects):
    objects.put_new("_things/a.json", b"one")
    with pytest.raises(FileExistsError):
        objects.put_new("_things/a.json", b"two")
    assert objects.read("_things/a.json") == b"one"


def test_of_many_writers_one_wins(objects):
    won: list[bytes] = []
    start = threading.Barrier(8)

    def write(mine: bytes) -> None:
        start.wait()
        try:
            objects.put_new("_things/a.json", mine)
        except FileExistsError:
            return
        won.append(mine)

    threads = [threading.Thread(target=write, args=(bytes([i]) * 1000,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [objects.read("_things/a.json")]
    assert [entry.path for entry in objects.list("_things")] == ["_things/a.json"]


def test_a_listing_has_the_files_right_in_a_folder_by_name(objects):
    for path in ("_things/b", "_things/a", "_things/deep/c", "_things_too/d", "e"):
        objects.put(path, b"12345")
    found = list(objects.list("_things"))
    assert [(entry.path, entry.size) for entry in found] == [("_things/a", 5), ("_things/b", 5)]
    assert all(abs(datetime.now(UTC) - entry.modified) < timedelta(minutes=5) for entry in found)
    assert list(objects.list("_none")) == []


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "./a", "a\\b", "a\n", "a b", "é"]
)
def test_no_path_leaves_the_lake(objects, path):
    for use in (objects.read, objects.delete, lambda bad: list(objects.list(bad)), lambda bad: objects.put(bad, b"x")):
        with pytest.raises(StorageError, match="not a path in a lake"):
            use(path)


def test_what_is_being_written_is_not_listed(tmp_path):
    objects = objects_of(lake_root(tmp_path))
    objects.put("_things/a", b"x")
    (tmp_path / "_things" / ".b.0123.tmp").write_bytes(b"half")
    assert [entry.path for entry in objects.list("_things")] == ["_things/a"]


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    objects = objects_of(lake_root(tmp_path))
    objects.put("_things/a", b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipelines.storage.stores.objects.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        objects.put("_things/a", b"new")
    assert objects.read("_things/a") == b"old"
    assert [path.name for path in (tmp_path / "_things").iterdir()] == ["a"]


def test_other_stores_are_refused():
    with pytest.raises(StorageError, match="local disk or in S3"):
        objects_of(lake_root("gs://bucket/lake"))
