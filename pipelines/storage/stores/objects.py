"""The few small files that a lake keeps beside its tables, on local disk or in S3; also lists the tables' logs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

from pipelines.errors import StorageError
from pipelines.storage.stores.s3 import client, error_code, explained

if TYPE_CHECKING:
    from pipelines.storage.names import LakeRoot
    from pipelines.storage.stores.s3 import Place

_PATH = re.compile(r"[A-Za-z0-9_.=-]+(/[A-Za-z0-9_.=-]+)*")
_TEMPORARY = re.compile(r"\..*\.tmp")
_TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_ABSENT = {"NoSuchKey", "404"}


@dataclass(frozen=True, slots=True)
class Listed:
    """One file: its path from the lake's root, its bytes, and when it was last written (aware UTC)."""

    path: str
    size: int
    modified: datetime


class Objects(Protocol):
    """Small files by path from the lake's root; each is written whole or not at all.

    Every method raises StorageError for a path that leaves the lake, and where the store refuses or cannot be reached.
    """

    def read(self, path: str) -> bytes:
        """Return a file's content.

        Raises:
            FileNotFoundError: there is none.
        """

    def put_new(self, path: str, data: bytes) -> None:
        """Write a file that must not be there yet; of several writers at once, one wins.

        Raises:
            FileExistsError: it is there.
        """

    def put(self, path: str, data: bytes) -> None:
        """Write a file, in place of the one that may be there."""

    def delete(self, path: str) -> None:
        """Remove a file; one that is not there is removed already."""

    def list(self, folder: str) -> Iterator[Listed]:
        """Yield the files right in a folder, by name; none if there is no such folder."""


def objects_of(root: LakeRoot) -> Objects:
    """Return the small files of a lake.

    Raises:
        StorageError: the lake is neither on local disk nor in S3.
    """
    if root.is_local:
        return LocalObjects(root.path)
    if not root.is_s3:
        raise StorageError(f"{root.address}: this needs a lake on local disk or in S3")
    return S3Objects(root.place)


class LocalObjects:
    """Files in a folder, synced before they get their name."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str) -> bytes:
        """Return a file's content."""
        return (self._root / _checked(path)).read_bytes()

    def put_new(self, path: str, data: bytes) -> None:
        """Write a file that must not be there yet."""
        target = self._root / _checked(path)
        with _written(target, data) as temporary:
            os.link(temporary, target)

    def put(self, path: str, data: bytes) -> None:
        """Write a file, in place of the one that may be there."""
        target = self._root / _checked(path)
        with _written(target, data) as temporary:
            temporary.replace(target)

    def delete(self, path: str) -> None:
        """Remove a file."""
        (self._root / _checked(path)).unlink(missing_ok=True)

    def list(self, folder: str) -> Iterator[Listed]:
        """Yield the files right in a folder, by name."""
        place = self._root / _checked(folder)
        if not place.is_dir():
            return
        with os.scandir(place) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            # A file may go while the folder is read; what is being written has no name yet.
            with suppress(FileNotFoundError):
                if entry.is_file() and not _TEMPORARY.fullmatch(entry.name):
                    stat = entry.stat()
                    modified = datetime.fromtimestamp(stat.st_mtime, UTC)
                    yield Listed(f"{folder}/{entry.name}", stat.st_size, modified)


class S3Objects:
    """Objects of a bucket under a prefix; S3 writes each at once, and a new one only if it is absent."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._client = client()

    def read(self, path: str) -> bytes:
        """Return a file's content."""
        with self._reported("read", path):
            return self._client.get_object(Bucket=self._place.bucket, Key=self._key(path))["Body"].read()

    def put_new(self, path: str, data: bytes) -> None:
        """Write a file that must not be there yet."""
        with self._reported("write", path):
            self._client.put_object(Bucket=self._place.bucket, Key=self._key(path), Body=data, IfNoneMatch="*")

    def put(self, path: str, data: bytes) -> None:
        """Write a file, in place of the one that may be there."""
        with self._reported("write", path):
            self._client.put_object(Bucket=self._place.bucket, Key=self._key(path), Body=data)

    def delete(self, path: str) -> None:
        """Remove a file."""
        with self._reported("remove", path):
            self._client.delete_object(Bucket=self._place.bucket, Key=self._key(path))

    def list(self, folder: str) -> Iterator[Listed]:
        """Yield the files right in a folder, by name."""
        start, pages = self._place.key(""), self._client.get_paginator("list_objects_v2")
        with self._reported("list", folder):
            for page in pages.paginate(Bucket=self._place.bucket, Prefix=f"{self._key(folder)}/", Delimiter="/"):
                for found in page.get("Contents", []):
                    path = found["Key"].removeprefix(start)
                    yield Listed(path, found["Size"], found["LastModified"].astimezone(UTC))

    def _key(self, path: str) -> str:
        return self._place.key(_checked(path))

    @contextmanager
    def _reported(self, doing: str, path: str) -> Iterator[None]:
        """Turn what S3 answers into what the caller is told to expect."""
        from botocore.exceptions import ClientError  # noqa: PLC0415 - slow to import

        with explained(self._place.bucket, f"cannot {doing} {path}"):
            try:
                yield
            except ClientError as error:
                if error_code(error) in _TAKEN:
                    raise FileExistsError(path) from None
                if error_code(error) in _ABSENT:
                    raise FileNotFoundError(path) from None
                raise


def _checked(path: str) -> str:
    if not _PATH.fullmatch(path) or any(part in {".", ".."} for part in path.split("/")):
        raise StorageError(f"{path!r} is not a path in a lake")
    return path


@contextmanager
def _written(target: Path, data: bytes) -> Iterator[Path]:
    """Write a synced temporary file beside the target, for the caller to name; then sync the name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
