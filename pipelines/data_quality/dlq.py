"""The dead letter queue: refused rows as JSON files, each with its reason. Written whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.sources.redaction import HIDDEN, is_secret_name, redact
from pipelines.timeframes import utc_now

if TYPE_CHECKING:
    from pipelines.edge import RefusedRow

# What a replay adds to the context: the file the rows were refused in first, and when that was.
REPLAYED_FROM = "replayed_from"
REFUSED_AT = "refused_at"
LINEAGE = (REPLAYED_FROM, REFUSED_AT)
ARCHIVE = "archive"
_WORD = re.compile(r"[_\-.\s]+")
_CONTEXT = b' "context": '
_PREFIX, _SUFFIX = ".dlq_", ".partial"


class DeadLetterQueue:
    """A folder of `dlq_<timestamp>_<id>.json` files.

    A file holds `timestamp` (UTC), `error`, `context` and `records`, each record with its `reason`. The id is made
    from the content, so that a batch refused again, by a job that was killed and repeated, is not written twice.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def write(self, error: str, context: Mapping[str, object], refused: Iterable[RefusedRow]) -> Path:
        """Write one batch of refused rows and return its file; rows are taken one by one, never all held.

        Args:
            error: the kind of failure, as `schema_validation_failed`.
            context: what the rows have in common, as asset_pair, timeframe and provider.
            refused: the rows with their reasons.

        Raises:
            OSError: the file could not be written; nothing is left behind.
        """
        stamp = utc_now()
        self.path.mkdir(parents=True, exist_ok=True)
        with _unfinished(self.path) as partial:
            digest = _write(partial, stamp, error, context, refused)
            with _alone_in(self.path) as folder:
                target, exists = self._place(partial, stamp, digest)
                if not exists:
                    partial.replace(target)
                    os.fsync(folder)
        return target

    def files(self) -> list[Path]:
        """Return the queue's files, oldest first."""
        return sorted(self.path.glob("dlq_*.json"))

    def archive(self, path: Path) -> Path:
        """Move one of the queue's files to its folder `archive` and return its new place; atomic.

        Raises:
            OSError: it cannot be moved, and is still where it was.
        """
        folder = self.path / ARCHIVE
        folder.mkdir(exist_ok=True)
        with _alone_in(self.path) as queue, _alone_in(folder) as archive:
            target, number = folder / path.name, 1
            while target.exists():
                number += 1
                target = folder / f"{path.stem}-{number}{path.suffix}"
            path.rename(target)
            os.fsync(archive)
            os.fsync(queue)
        return target

    def _place(self, partial: Path, stamp: datetime, digest: str) -> tuple[Path, bool]:
        """Return the file that has this content already, or a name for a new one whose id is not taken."""
        for start in range(0, len(digest), 8):
            identity = digest[start : start + 8]
            taken = list(self.path.glob(f"dlq_*_{identity}.json"))
            if same := next((path for path in taken if _same_content(path, partial)), None):
                return same, True
            if not taken:
                break
        return self.path / f"dlq_{stamp.strftime('%Y-%m-%dT%H-%M-%S')}_{identity}.json", False


def record_json(row: RefusedRow) -> str:
    """Return a refused row with its reason as the queue writes it: JSON without secrets."""
    return _json(_clean({**row.record, "reason": row.reason}))


def _opening(error: str, context: Mapping[str, object]) -> str:
    return f' "error": {_json(error)},\n "context": {_json(_clean(context))},\n "records": ['


def _without_lineage(context: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in context.items() if name not in LINEAGE}


def _records(refused: Iterable[RefusedRow]) -> Iterator[str]:
    comma = ""
    for row in refused:
        yield f"{comma}\n  {record_json(row)}"
        comma = ","
    yield "\n ]\n}\n"


def _write(
    partial: Path, stamp: datetime, error: str, context: Mapping[str, object], refused: Iterable[RefusedRow]
) -> str:
    """Write the document and return the digest of what follows its timestamp, as if it had never been replayed."""
    digest = hashlib.sha256(_encoded(_opening(error, _without_lineage(context))))
    with partial.open("wb") as stream:
        stream.write(f'{{\n "timestamp": "{stamp.strftime("%Y-%m-%dT%H:%M:%S")}",\n'.encode())
        stream.write(_encoded(_opening(error, context)))
        for text in _records(refused):
            data = _encoded(text)
            digest.update(data)
            stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    return digest.hexdigest()


def _encoded(text: str) -> bytes:
    # Half a surrogate pair, which a source may well send, becomes its JSON escape.
    return text.encode("utf-8", "backslashreplace")


def _same_content(one: Path, other: Path) -> bool:
    """Compare what follows the timestamps; where the rows were replayed from does not count."""
    with one.open("rb") as left, other.open("rb") as right:
        for stream in (left, right):
            stream.readline()
            stream.readline()
        if left.readline() != right.readline() or _context(left.readline()) != _context(right.readline()):
            return False
        while block := left.read(1 << 20):
            if block != right.read(1 << 20):
                return False
        return not right.read(1)


def _context(line: bytes) -> bytes:
    """Return a context's line without its lineage; one that another hand wrote stays as it is."""
    try:
        found = json.loads(line.strip().removeprefix(_CONTEXT.strip()).removesuffix(b","))
        return _encoded(_json(_without_lineage(found)))
    except (ValueError, AttributeError):
        return line


@contextmanager
def _unfinished(folder: Path) -> Iterator[Path]:
    """Make a file to write into; it is gone afterwards unless it got another name."""
    with _alone_in(folder):
        _sweep(folder)
        handle, name = tempfile.mkstemp(dir=folder, prefix=_PREFIX, suffix=_SUFFIX)
        # Until it is closed, by its writer or by that one's end.
        fcntl.flock(handle, fcntl.LOCK_EX)
    partial = Path(name)
    # A private temporary file would stay readable by its owner alone after it gets its name.
    os.fchmod(handle, 0o644)
    try:
        yield partial
    finally:
        os.close(handle)
        partial.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Remove what killed writers have left."""
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        with suppress(OSError), path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


@contextmanager
def _alone_in(folder: Path) -> Iterator[int]:
    """Hold the folder's lock, so that two jobs that refuse the same rows at once write them once."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _clean(record: Mapping[str, object]) -> dict[str, object]:
    return {str(key): HIDDEN if _is_secret(str(key)) else _jsonable(value) for key, value in record.items()}


@lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    """Say whether the name or its tail names a secret, as in oanda_api_token or client-secret."""
    words = _WORD.split(name)
    return any(is_secret_name("_".join(words[start:])) for start in range(len(words)))


def _jsonable(value: object) -> object:
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return _clean(value)
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        return [_jsonable(item) for item in value]
    return str(value)
