"""Rebuilds a table from what it was made of: the same series, intervals and providers, through the normal backfill."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines.batch.coverage import CoverageMap
from pipelines.batch.engine import Backfill
from pipelines.batch.jobs import Job
from pipelines.batch.progress import Progress
from pipelines.batch.results import BackfillResult
from pipelines.contracts import contract_for
from pipelines.instruments import load_registry
from pipelines.intervals import IntervalSet
from pipelines.timeframes import utc_now

if TYPE_CHECKING:
    from pipelines.config import Settings
    from pipelines.storage import DeltaLakeManager
    from pipelines.storage.recovery.rebuilds import Promise, RebuildPlan

# What was loaded from files can only be loaded again.
_FILES = "files"


@dataclass(frozen=True, slots=True)
class Kept:
    """How much of a promise is there again; `promised` and `back` are spans of event time."""

    promise: Promise
    back: IntervalSet

    @property
    def whole(self) -> bool:
        """Whether all of it is covered again."""
        return not self.promise.spans - self.back

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        missing = [[part.start.isoformat(), part.end.isoformat()] for part in self.promise.spans - self.back]
        return {**self.promise.as_dict(), "missing": missing}


@dataclass(frozen=True, slots=True)
class RebuildResult:
    """What came back against what coverage had promised; rows are by subject, None where the old log was unreadable."""

    plan: RebuildPlan
    backfill: BackfillResult
    kept: Sequence[Kept]
    rows: dict[str, int] | None

    @property
    def ok(self) -> bool:
        """Whether all that was promised is there again."""
        return self.backfill.ok and all(each.whole for each in self.kept)

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        return {
            "table": self.plan.table,
            "ok": self.ok,
            "aside": self.plan.aside,
            "rows_before": self.plan.rows,
            "rows": self.rows,
            "promises": [each.as_dict() for each in self.kept],
            "backfill": self.backfill.as_dict(),
        }


class Rebuild:
    """Rebuilds one table; safe to kill at any instant and to run again, which goes on where it was.

    Args:
        manager: the lake.
        settings: as for a backfill.
        table_name: the table; bars that are built from finer ones are built again.
        progress: hears of every step.
        clock: the present, aware UTC.

    Raises:
        TableNotFoundError: coverage knows nothing of the table.
        InvalidRangeError: the table is the coverage log.
    """

    def __init__(
        self,
        manager: DeltaLakeManager,
        settings: Settings,
        table_name: str,
        progress: Progress | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._manager = manager
        self._run = Backfill(manager, settings, progress, clock)
        self.plan = manager.rebuilds.plan(table_name)

    def stop(self) -> None:
        """Ask the run to end; what has been fetched is landed."""
        self._run.stop()

    @property
    def from_files(self) -> list[Promise]:
        """What was loaded from files: no provider has it, it has to be loaded again."""
        return [promise for promise in self.plan.promises if promise.provider == _FILES]

    def jobs(self) -> list[Job]:
        """Return what is asked for: every promised interval, of the provider that had vouched for it."""
        contract = contract_for(self.plan.table)
        frame = contract.timeframe_of(self.plan.table)
        about_assets = "asset_pair" in contract.arrow_schema.names
        return [
            Job(
                contract.id,
                promise.subject,
                span,
                load_registry().resolve(promise.subject) if about_assets else None,
                frame,
                promise.provider,
            )
            for promise in self.plan.promises
            if promise.provider != _FILES
            for span in promise.spans
        ]

    async def run(self) -> RebuildResult:
        """Set the table aside and fetch all of it again; the plan stays in the lake until everything is back.

        Raises:
            StorageError: the lake cannot be written; running it again goes on.
        """
        jobs = self.jobs()
        self.plan = await asyncio.to_thread(self._manager.rebuilds.start, self.plan)
        done = await self._run.run(jobs)
        result = RebuildResult(self.plan, done, self._kept(), self._manager.rebuilds.rows(self.plan.table))
        if result.ok:
            self._manager.rebuilds.finish(self.plan)
        return result

    def _kept(self) -> list[Kept]:
        contract = contract_for(self.plan.table)
        frame = contract.timeframe_of(self.plan.table)
        coverage = CoverageMap.from_table(self._manager.coverage.read(dataset=contract.id))
        return [
            Kept(each, coverage.done((contract.id, each.subject, frame.value if frame else None), each.provider))
            for each in self.plan.promises
        ]
