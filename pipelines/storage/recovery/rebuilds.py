"""Tables under reconstruction: what coverage promised of them is noted in the lake until it is there again. No JVM."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines.contracts import Contract, contract_for
from pipelines.errors import InvalidRangeError, StorageError, TableNotFoundError
from pipelines.intervals import Interval, IntervalSet
from pipelines.storage.names import checked_name
from pipelines.storage.recovery.held_files import held_files, stored_files
from pipelines.storage.replay import replayed
from pipelines.storage.stores.locks import turn
from pipelines.storage.stores.objects import objects_of
from pipelines.storage.travel.snapshots import Snapshots
from pipelines.timeframes import utc_now

if TYPE_CHECKING:
    from pipelines.storage.coverage import CoverageLog
    from pipelines.storage.lake import Lake

SET_ASIDE = "_set_aside"
_FOLDER = "_rebuild"


@dataclass(frozen=True, slots=True)
class Promise:
    """What one provider vouched for of one subject."""

    subject: str
    provider: str
    spans: IntervalSet

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        spans = [[part.start.isoformat(), part.end.isoformat()] for part in self.spans]
        return {"subject": self.subject, "provider": self.provider, "spans": spans}


@dataclass(frozen=True, slots=True)
class RebuildPlan:
    """What is to come back, and where the old table goes.

    `rows` are those of the old table by subject ("" where a file is not about one), None if its log cannot be read;
    `started` says that the old table is out of the way and its coverage taken back.
    """

    table: str
    synthetic: bool
    promises: tuple[Promise, ...]
    aside: str
    rows: dict[str, int] | None
    started: bool = False

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        return {
            "table": self.table,
            "synthetic": self.synthetic,
            "promises": [promise.as_dict() for promise in self.promises],
            "aside": self.aside,
            "rows": self.rows,
            "started": self.started,
        }


class Rebuilds:
    """The rebuilds of one lake's tables; each step can be repeated, so that a killed one is gone on with."""

    def __init__(self, lake: Lake, coverage: CoverageLog) -> None:
        self._lake = lake
        self._coverage = coverage

    def plan(self, table_name: str) -> RebuildPlan:
        """Return the plan of a rebuild that is under way, else a new one from what is covered now; writes nothing.

        Raises:
            InvalidRangeError: the table is a log, which has nothing to be rebuilt from.
            TableNotFoundError: nothing is known of the table.
            StorageError: the plan or the coverage log cannot be read.
        """
        contract = contract_for(table_name)
        if contract.is_log:
            raise InvalidRangeError(
                f"{table_name} is a log and has nothing to be rebuilt from; `lakehouse fsck --repair` mends it"
            )
        try:
            return _parsed(objects_of(self._lake.root).read(_path(table_name)))
        except FileNotFoundError:
            return self._new(table_name, contract)
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{_path(table_name)} in {self._lake.root.address} is garbled: {error}") from error

    def start(self, plan: RebuildPlan) -> RebuildPlan:
        """Note the plan, take the table's coverage back and set what is left of the table aside.

        Coverage goes first: a kill in between costs a refetch only.

        Raises:
            StorageError: a snapshot pins the table, or the lake cannot be written; calling it again goes on.
        """
        if plan.started:
            return plan
        self._check_pins(plan.table)
        contract, objects = contract_for(plan.table), objects_of(self._lake.root)
        objects.put(_path(plan.table), _written(plan))
        with turn(self._lake.root, plan.table):
            frame = contract.timeframe_of(plan.table)
            run_id = uuid.uuid4().hex
            self._coverage.retract(contract.id, frame, None, run_id)
            self._set_aside(plan)
            # What a backfill recorded meanwhile is about the old table.
            self._coverage.retract(contract.id, frame, None, run_id)
        plan = replace(plan, started=True)
        objects.put(_path(plan.table), _written(plan))
        return plan

    def finish(self, plan: RebuildPlan) -> None:
        """Forget the plan: the table is whole again."""
        objects_of(self._lake.root).delete(_path(plan.table))

    def rows(self, table_name: str) -> dict[str, int] | None:
        """Return a table's rows by subject, from its log alone; None if it cannot be read."""
        try:
            files = held_files(self._lake.open(table_name), contract_for(table_name))
        except StorageError:
            return None
        found: Counter[str] = Counter()
        for file in files.values():
            found[file.subject or ""] += file.rows or 0
        return dict(found)

    def _new(self, table_name: str, contract: Contract) -> RebuildPlan:
        frame = contract.timeframe_of(table_name)
        standing = replayed(self._coverage.read(dataset=contract.id))
        promises = [
            Promise(subject, provider, answers.done)
            for ((_, subject, timeframe), provider), answers in standing.items()
            if timeframe == (frame.value if frame else None) and answers.done
        ]
        if not promises:
            raise TableNotFoundError(
                f"the coverage log knows nothing of {table_name} in {self._lake.root.address}, so there is nothing to "
                "rebuild it from; fetch what it should hold with `lakehouse backfill`"
            )
        return RebuildPlan(
            table=table_name,
            synthetic=bool(self._coverage.synthetic),
            promises=tuple(sorted(promises, key=lambda promise: (promise.subject, promise.provider))),
            aside=f"{SET_ASIDE}/{table_name}-{utc_now():%Y%m%dT%H%M%S%fZ}",
            rows=self.rows(table_name),
        )

    def _check_pins(self, table_name: str) -> None:
        """Refuse while a snapshot names versions of the table: those of the new one would be taken for them."""
        pinned = [each.name for each in Snapshots(self._lake).list() if table_name in each.tables]
        if pinned:
            raise StorageError(
                f"the snapshots {', '.join(pinned)} pin versions of {table_name}, and a rebuilt table counts its "
                "versions from 0 again; delete them first with `lakehouse snapshot delete NAME`"
            )

    def _set_aside(self, plan: RebuildPlan) -> None:
        if not self._lake.root.is_local:
            from pipelines.storage.recovery.bucket_versions import move  # noqa: PLC0415 - only for a lake in S3

            for path in stored_files(self._lake, plan.table):
                move(self._lake.root, f"{plan.table}/{path}", f"{plan.aside}/{path}")
            return
        table, target = self._lake.root.path / plan.table, self._lake.root.path / plan.aside
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if table.is_dir() and not target.exists():
                table.rename(target)
        except OSError as error:
            raise StorageError(f"cannot set {table} aside: {error.strerror}") from error


def _path(table_name: str) -> str:
    return f"{_FOLDER}/{checked_name(table_name)}.json"


def _written(plan: RebuildPlan) -> bytes:
    return json.dumps(plan.as_dict(), indent=2).encode()


def _parsed(content: bytes) -> RebuildPlan:
    found = json.loads(content)
    promises = tuple(
        Promise(part["subject"], part["provider"], IntervalSet(_interval(*span) for span in part["spans"]))
        for part in found["promises"]
    )
    return RebuildPlan(found["table"], found["synthetic"], promises, found["aside"], found["rows"], found["started"])


def _interval(start: str, end: str) -> Interval:
    return Interval(datetime.fromisoformat(start), datetime.fromisoformat(end))
