"""The dead letter queue read back: what its files hold, which of them a user means, and the rows by reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.data_quality.dlq import REFUSED_AT
from pipelines.data_quality.dlq_stream import Row, head_of, rows_of
from pipelines.data_quality.reasons import kinds_of
from pipelines.errors import ConfigError, DeadLetterError, InvalidRangeError
from pipelines.sources.base import MARKET_DATA
from pipelines.timeframes import parse_instant

if TYPE_CHECKING:
    from pipelines.data_quality.dlq import DeadLetterQueue

NO_REASON = "(no reason)"
# From another hand there may be as many as rows.
MOST_DISTINCT = 1000
OTHERS = "(others)"
_NAME = re.compile(r"dlq_.*_([0-9a-f]{8,64})")
_SEPARATORS = re.compile(r"[-/_\s]")


@dataclass(frozen=True, slots=True)
class RowFilter:
    """Which rows count: of a dataset, asset pair (any spelling) and provider, and by a part of the reason."""

    dataset: str | None = None
    asset: str | None = None
    provider: str | None = None
    reason: str | None = None

    def __bool__(self) -> bool:
        return any((self.dataset, self.asset, self.provider, self.reason))

    def admits(self, head: Head, record: Row, reason: str) -> bool:
        """Say whether a row of a file counts."""
        return (
            (self.dataset is None or self.dataset == head.dataset)
            and (self.asset is None or _compact(self.asset) == _compact(head.of("asset_pair", record)))
            and (self.provider is None or self.provider == head.of("provider", record))
            and (self.reason is None or self.reason.lower() in reason.lower())
        )


@dataclass(frozen=True)
class Head:
    """What a file says of all its rows; `timestamp` is when it was written (aware UTC), None if it does not tell."""

    path: Path
    timestamp: datetime | None
    error: str
    context: Mapping[str, Any]

    @property
    def identity(self) -> str:
        """The id in the file's name; the whole name for a file that was not named by the queue."""
        found = _NAME.fullmatch(self.path.stem)
        return found[1] if found else self.path.stem

    @cached_property
    def dataset(self) -> str | None:
        """Contract id of the rows; bars where the file names a timeframe alone."""
        named = self.context.get("dataset")
        if named is None and "timeframe" in self.context:
            return MARKET_DATA
        return None if named is None else str(named)

    @property
    def refused_at(self) -> datetime | None:
        """When the rows were refused first, aware UTC: before all replays."""
        return _instant(self.context.get(REFUSED_AT)) or self.timestamp

    def of(self, name: str, record: Mapping[str, Any]) -> object:
        """Return a value that the file says of all rows, else the row's own."""
        return self.context[name] if name in self.context else record.get(name)


@dataclass(frozen=True)
class DlqFile(Head):
    """A dead letter file; `rows` are those that a filter admits, `reasons` and `subjects` count them.

    A row with several reasons counts for each; `subjects` are asset pairs or series.
    """

    rows: int = 0
    first_reason: str = ""
    reasons: Mapping[str, int] = field(default_factory=dict)
    subjects: Mapping[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """Return the file as plain JSON values."""
        return {
            "id": self.identity,
            "path": str(self.path),
            "timestamp": self.timestamp.isoformat() if self.timestamp else None,
            "error": self.error,
            "context": dict(self.context),
            "rows": self.rows,
            "reasons": dict(self.reasons),
            "subjects": dict(self.subjects),
        }


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file that could not be read, and why; it is left where it is."""

    path: Path
    error: str

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        return {"path": str(self.path), "error": self.error}


@dataclass(frozen=True, slots=True)
class DlqStatistics:
    """Files and rows of the queue, rows by reason and by (dataset, asset pair or series), and what is unreadable."""

    files: int
    rows: int
    by_reason: Mapping[str, int]
    by_dataset: Mapping[tuple[str, str], int]
    unreadable: Sequence[Unreadable] = ()

    def as_dict(self) -> dict[str, object]:
        """Return the numbers as plain JSON values."""
        return {
            "files": self.files,
            "rows": self.rows,
            "by_reason": dict(self.by_reason),
            "by_dataset": [
                {"dataset": dataset, "asset_pair": subject, "rows": rows}
                for (dataset, subject), rows in self.by_dataset.items()
            ],
            "unreadable": [each.as_dict() for each in self.unreadable],
        }


def read_head(path: Path) -> Head:
    """Return what a file says of all its rows.

    Raises:
        DeadLetterError: the file cannot be read.
    """
    found = head_of(path)
    context = found.get("context")
    return Head(
        path,
        _instant(found.get("timestamp")),
        str(found.get("error") or ""),
        context if isinstance(context, dict) else {},
    )


def read_file(path: Path, wanted: RowFilter | None = None) -> DlqFile:
    """Read a file from end to end and count its rows; memory does not grow with it.

    Raises:
        DeadLetterError: the file cannot be read, is not whole JSON, or is no dead letter file.
    """
    head = read_head(path)
    reasons, subjects = Counter[str](), Counter[str]()
    rows, first = 0, ""
    for record, reason in rows_of(path):
        if wanted and not wanted.admits(head, record, reason):
            continue
        first = first or reason
        rows += 1
        for each in set(reasons_in(reason)):
            _count(reasons, each)
        _count(subjects, _subject(head, record))
    return DlqFile(
        head.path, head.timestamp, head.error, head.context, rows, first, _sorted(reasons), _sorted(subjects)
    )


def read_files(paths: Iterable[Path], wanted: RowFilter | None = None) -> Iterator[DlqFile | Unreadable]:
    """Yield what each file holds; one that cannot be read does not hold up the others.

    With a filter, files without an admitted row are passed over.
    """
    for path in paths:
        try:
            found = read_file(path, wanted)
        except DeadLetterError as error:
            yield Unreadable(path, str(error))
            continue
        if found.rows or not wanted:
            yield found


def statistics(dlq: DeadLetterQueue, wanted: RowFilter | None = None) -> DlqStatistics:
    """Count the rows of a queue, the most frequent reason first; its archive is not looked at."""
    files = rows = 0
    by_reason, by_dataset = Counter[str](), Counter[tuple[str, str]]()
    unreadable: list[Unreadable] = []
    for found in read_files(dlq.files(), wanted):
        if isinstance(found, Unreadable):
            unreadable.append(found)
            continue
        files, rows = files + 1, rows + found.rows
        by_reason.update(found.reasons)
        by_dataset.update({(found.dataset or "", subject): number for subject, number in found.subjects.items()})
    return DlqStatistics(files, rows, dict(by_reason.most_common()), dict(by_dataset.most_common()), unreadable)


def find_file(dlq: DeadLetterQueue, name: str) -> Path:
    """Return the file that a path, a name in the queue or the unique beginning of an id means.

    Raises:
        ConfigError: there is none, or several; names them.
    """
    place = Path(name).expanduser()
    if place.is_file():
        return place
    files = dlq.files()
    matching = [path for path in files if name and (path.name == name or _identity(path).startswith(name))]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise ConfigError(f"{name!r} is the beginning of several ids: {', '.join(path.name for path in matching)}")
    raise ConfigError(f"no dead letter file {name!r} in {dlq.path}; `lakehouse dlq list` shows them")


def reasons_in(reason: str) -> list[str]:
    """Return the single reasons of a row that was refused for several."""
    return kinds_of(reason) if reason else [NO_REASON]


def _identity(path: Path) -> str:
    found = _NAME.fullmatch(path.stem)
    return found[1] if found else path.stem


def _subject(head: Head, record: Row) -> str:
    for name in ("asset_pair", "series_id"):
        if isinstance(value := head.of(name, record), str):
            return value
    return "(none)"


def _count(counter: Counter[str], name: str) -> None:
    counter[name if name in counter or len(counter) < MOST_DISTINCT else OTHERS] += 1


def _sorted(counter: Counter[str]) -> dict[str, int]:
    return dict(counter.most_common())


def _compact(pair: object) -> str:
    return _SEPARATORS.sub("", str(pair)).upper()


def _instant(value: object) -> datetime | None:
    """Read a time; the queue writes UTC without an offset."""
    try:
        return parse_instant(value) if isinstance(value, str) else None
    except InvalidRangeError:
        return None
