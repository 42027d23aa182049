"""Replaying dead letters: good rows land once, the rest is refused anew, and only then the old file is put away.

Rows are appended, then their coverage is recorded, then the file of the rows still refused gets its name, then the old
one goes to the archive. A kill in between leaves the old file, and the same again lands nothing twice: appended rows
are known by key and values, coverage is a set, and the new file's id is made from its content.
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.batch.progress import Progress
from pipelines.data_quality.dlq import REFUSED_AT, REPLAYED_FROM, DeadLetterQueue
from pipelines.data_quality.dlq_reading import Head, read_file, reasons_in
from pipelines.data_quality.dlq_stream import rows_of
from pipelines.data_quality.replay_landing import Landed, ReplayLanding
from pipelines.data_quality.replay_rows import PLACE, Page, Teller
from pipelines.edge import RefusedRow, validate
from pipelines.errors import DeadLetterError, LakehouseError
from pipelines.timeframes import utc_now

if TYPE_CHECKING:
    from pipelines.config import Settings
    from pipelines.storage import DeltaLakeManager

CHUNK_ROWS = 50_000
_REFUSED = "schema_validation_failed"


@dataclass(slots=True)
class ReplayedFile:
    """What became of a file's rows: `rows` = `new` + `restated` + `repeated` + `refused`, unless `error` says why not.

    Attributes:
        path: where the file was.
        dataset: contract id, "" where it is not known.
        subject: asset pair or series, "" where rows differ in it.
        new: rows landed for the first time; in a dry run, that would be.
        restated: rows landed as a newer version of a known one.
        repeated: rows that the lake, or an earlier row, had already.
        refused: rows that are refused still.
        reasons: why, with how many rows; a row may have several.
        dlq_file: the file that holds them now; `path` itself where nothing has changed.
        archived: where the file is now, None if it stayed.
        error: why it could not be replayed; what had landed until then is known the next time.
    """

    path: Path
    dataset: str = ""
    subject: str = ""
    rows: int = 0
    new: int = 0
    restated: int = 0
    repeated: int = 0
    refused: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    dlq_file: Path | None = None
    archived: Path | None = None
    error: str | None = None

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        numbers = {name: getattr(self, name) for name in ("rows", "new", "restated", "repeated", "refused")}
        return {
            "path": str(self.path),
            "dataset": self.dataset,
            "asset_pair": self.subject,
            **numbers,
            "reasons": dict(self.reasons.most_common()),
            "dlq_file": str(self.dlq_file) if self.dlq_file else None,
            "archived": str(self.archived) if self.archived else None,
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What a replay did, per file; `seconds` is wall time."""

    run_id: str
    files: Sequence[ReplayedFile]
    seconds: float
    dry_run: bool

    @property
    def ok(self) -> bool:
        """Whether every file was replayed, though rows of it may be refused still."""
        return all(each.error is None for each in self.files)

    def total(self, name: str) -> int:
        """Sum a count, as "new" or "refused", over all files."""
        return sum(int(getattr(each, name)) for each in self.files)

    def as_dict(self) -> dict[str, object]:
        """Return the result as plain JSON values."""
        return {
            "run_id": self.run_id,
            "ok": self.ok,
            "dry_run": self.dry_run,
            "seconds": round(self.seconds, 3),
            **{name: self.total(name) for name in ("rows", "new", "restated", "repeated", "refused")},
            "files": [each.as_dict() for each in self.files],
        }


class Replay:
    """Runs refused rows through the contract as it is now; safe to kill at any instant and to run again.

    Args:
        dlq: the queue; files elsewhere can be replayed too, and stay where they are.
        settings: for what providers are capable of.
        lake_for: returns the lake that takes synthetic rows, or real ones.
        progress: hears of every chunk.
        clock: the present, aware UTC.
        chunk_rows: rows held at a time.
    """

    def __init__(
        self,
        dlq: DeadLetterQueue,
        settings: Settings,
        lake_for: Callable[[bool], DeltaLakeManager],
        progress: Progress | None = None,
        clock: Callable[[], datetime] = utc_now,
        chunk_rows: int = CHUNK_ROWS,
    ) -> None:
        self._dlq = dlq
        self._settings = settings
        self._lake_for = lake_for
        self._progress = progress or Progress()
        self._clock = clock
        self._chunk_rows = chunk_rows

    def run(self, files: Iterable[Path], *, dry_run: bool = False) -> ReplayResult:
        """Replay files one after the other; one that cannot be replayed is left and does not hold up the others.

        Args:
            files: dead letter files.
            dry_run: validate and compare with the lake, but write and move nothing.
        """
        started, run_id = time.monotonic(), uuid.uuid4().hex
        done = [self._guarded(path, run_id, dry_run=dry_run) for path in files]
        return ReplayResult(run_id, done, time.monotonic() - started, dry_run)

    def _guarded(self, path: Path, run_id: str, *, dry_run: bool) -> ReplayedFile:
        outcome = ReplayedFile(path)
        try:
            with _alone_with(path):
                self._replay(outcome, run_id, dry_run=dry_run)
        except DeadLetterError as error:
            outcome.error = str(error)
        except (LakehouseError, OSError, pa.ArrowException) as error:
            outcome.error = f"{path} is left as it is: {error}"
        if outcome.error is not None:
            self._progress.failed()
        return outcome

    def _replay(self, outcome: ReplayedFile, run_id: str, *, dry_run: bool) -> None:
        # Read to its end first: nothing of a file that turns out to be cut may land.
        head = read_file(outcome.path)
        outcome.dataset = head.dataset or ""
        outcome.subject = str(head.context.get("asset_pair", ""))
        teller = Teller(head, self._settings, self._clock)
        landing = ReplayLanding(self._lake_for, head.refused_at, run_id, dry_run=dry_run)
        self._progress.planned(-(-head.rows // self._chunk_rows))
        refused = self._refused(head, teller, landing, outcome)
        first = next(refused, None)
        if dry_run:
            for _ in refused:
                continue
            return
        if first is not None:
            outcome.dlq_file = self._dlq.write(_REFUSED, _with_lineage(head), chain([first], refused))
        if outcome.path.resolve() in (place.resolve() for place in self._dlq.files()) and not _same(outcome):
            outcome.archived = self._dlq.archive(outcome.path)

    def _refused(
        self, head: Head, teller: Teller, landing: ReplayLanding, outcome: ReplayedFile
    ) -> Iterator[RefusedRow]:
        """Land a file's good rows chunk by chunk and yield the others, as they were."""
        stream = rows_of(head.path)
        while rows := list(islice(stream, self._chunk_rows)):
            verdicts: dict[int, str] = {}
            written = 0
            for page in teller.pages(rows, verdicts):
                landed = _land(page, landing, verdicts)
                outcome.new += landed.new
                outcome.restated += landed.restated
                outcome.repeated += landed.repeated
                written += landed.new + landed.restated
            outcome.rows += len(rows)
            outcome.refused += len(verdicts)
            self._progress.fetched(len(rows))
            self._progress.landed(written)
            for place in sorted(verdicts):
                outcome.reasons.update(set(reasons_in(verdicts[place])))
                yield RefusedRow(rows[place][0], verdicts[place], None)


def _land(page: Page, landing: ReplayLanding, verdicts: dict[int, str]) -> Landed:
    """Land what of a page is good; the reasons of the rest go to `verdicts`, by place."""
    checked = validate(page.table, page.told.context)
    for row in checked.refused:
        verdicts[_place(row.record)] = row.reason
    landed = landing.land(page.told, checked.good)
    verdicts.update(landed.superseded)
    return Landed(landed.new, landed.restated, landed.repeated + checked.repeated)


def _place(record: Mapping[str, object]) -> int:
    return int(str(record[PLACE]))


def _with_lineage(head: Head) -> dict[str, object]:
    """Return the context of the rows still refused: the file they were refused in first, and when that was."""
    origin: dict[str, object] = {REPLAYED_FROM: head.path.name}
    if head.refused_at is not None:
        origin[REFUSED_AT] = head.refused_at.isoformat()
    return {**origin, **head.context} if REPLAYED_FROM in head.context else {**head.context, **origin}


def _same(outcome: ReplayedFile) -> bool:
    """Say whether the rows still refused are the file itself: all of it, for the same reasons."""
    return outcome.dlq_file is not None and outcome.dlq_file.resolve() == outcome.path.resolve()


@contextmanager
def _alone_with(path: Path) -> Iterator[None]:
    """Hold a file's lock, so that two replays of it at once do not both write what is refused still.

    Raises:
        DeadLetterError: another replay has put it away meanwhile, or it cannot be opened.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise DeadLetterError(f"{path} cannot be read: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not path.exists() or not os.path.samestat(os.fstat(handle), path.stat()):
            raise DeadLetterError(f"{path} was replayed by another process meanwhile")
        yield
    finally:
        os.close(handle)
