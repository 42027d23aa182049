"""Where replayed rows land: in their table, unless it knows better by now, and in the coverage log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from pipelines.batch.coverage import COVERED, CoverageMap
from pipelines.batch.load import subject_column
from pipelines.contracts import load_contracts
from pipelines.data_quality.replay_rows import PLACE
from pipelines.errors import ConcurrentWriteError
from pipelines.intervals import Interval, IntervalSet
from pipelines.storage import CoverageEntry
from pipelines.storage.replay import RETRACTED

if TYPE_CHECKING:
    from pipelines.contracts import Contract
    from pipelines.data_quality.replay_rows import Told
    from pipelines.storage import DeltaLakeManager
    from pipelines.timeframes import Timeframe

SUPERSEDED = "the lake has a newer version"
_NEVER = datetime.min.replace(tzinfo=UTC)
_INSTANT = timedelta(microseconds=1)
_KNOWN = "ingested_at"
_STORED = "__stored"


@dataclass(frozen=True, slots=True)
class Landed:
    """What became of good rows; `superseded` has the reason of those that must not land, by place."""

    new: int = 0
    restated: int = 0
    repeated: int = 0
    superseded: Mapping[int, str] = field(default_factory=dict)


class ReplayLanding:
    """Lands the good rows of one file.

    A row whose key got another version after the file was written stays refused: landed now it would be the newest
    version, though it is the older one. So does the second of two rows that contradict each other.
    """

    def __init__(
        self, lake_for: Callable[[bool], DeltaLakeManager], refused_at: datetime | None, run_id: str, *, dry_run: bool
    ) -> None:
        self._lake_for = lake_for
        self._refused_at = refused_at or _NEVER
        self._run_id = run_id
        self._dry_run = dry_run
        self._coverage: dict[bool, CoverageMap] = {}

    def land(self, told: Told, good: pa.Table) -> Landed:
        """Append rows and record their coverage; in a dry run only count.

        Args:
            told: what the edge was told of them.
            good: contract columns and `__place`.

        Raises:
            MixedOriginError: the lake holds data of the other origin.
            ConcurrentWriteError: the table was restored meanwhile, or other writers were faster on every attempt.
            StorageError: the lake cannot be read or written.
        """
        if not good.num_rows:
            return Landed()
        contract = load_contracts()[told.context.contract.id]
        manager = self._lake_for(told.synthetic)
        manager.check_origin(synthetic=told.synthetic)
        table = contract.table_for(told.context.timeframe)
        frame = _against_stored(good, manager.newest_versions(table, good), contract)
        late = pl.col(_KNOWN).is_not_null() & ~pl.col("__equal") & (pl.col(_KNOWN) > self._refused_at)
        superseded = dict.fromkeys(frame.filter(late)[PLACE].to_list(), SUPERSEDED)
        if self._dry_run:
            return _counted(frame.filter(~late), superseded)
        mask = frame.select(~late).to_series().to_arrow()
        rows = good.filter(mask).drop_columns([PLACE])
        if not rows.num_rows:
            return Landed(superseded=superseded)
        appended = manager.append(table, rows, self._run_id, synthetic=told.synthetic)
        self._cover(manager, told, contract, rows)
        if manager.undone_since(table, appended.version):
            self._take_back(manager, told, contract, rows)
        return Landed(appended.new, appended.restated, appended.repeated, superseded)

    def _cover(self, manager: DeltaLakeManager, told: Told, contract: Contract, rows: pa.Table) -> None:
        """Record the time of landed rows as covered, where it is not; so it is not reported as rejected any longer."""
        if told.synthetic not in self._coverage:
            self._coverage[told.synthetic] = CoverageMap.from_table(manager.coverage.read(dataset=contract.id))
        known = self._coverage[told.synthetic]
        frame, provider = told.context.timeframe, told.context.provider
        name = frame.value if frame else None
        spans = self._spans(told, contract, rows)
        entries: list[CoverageEntry] = []
        for subject, landed in spans.items():
            series = (contract.id, subject, name)
            for part in landed - known.covered(series, provider):
                known.add(series, provider, COVERED, part)
                entries.append(
                    CoverageEntry(contract.id, subject, name, provider, part.start, part.end, COVERED, rows.num_rows)
                )
        manager.coverage.record(entries, self._run_id, synthetic=told.synthetic)
        for longer in told.built:
            self._reopen(manager, known, told, longer, spans)

    def _reopen(
        self,
        manager: DeltaLakeManager,
        known: CoverageMap,
        told: Told,
        longer: Timeframe,
        landed: Mapping[str, IntervalSet],
    ) -> None:
        """Take back that longer bars are rejected which the landed ones were missing from: a backfill builds them."""
        dataset, provider = told.context.contract.id, told.context.provider
        found: dict[str, IntervalSet] = {}
        for subject, spans in landed.items():
            series = (dataset, subject, longer.value)
            whole = IntervalSet(Interval(longer.floor(part.start), longer.ceil(part.end)) for part in spans)
            if reopened := whole & known.rejected(series, provider):
                found[subject] = reopened
                for part in reopened:
                    known.add(series, provider, RETRACTED, part)
        if found:
            manager.coverage.retract(dataset, longer, found, self._run_id)

    def _take_back(self, manager: DeltaLakeManager, told: Told, contract: Contract, rows: pa.Table) -> None:
        """Claim none of it: rows that were there when they were appended may be gone."""
        spans = self._spans(told, contract, rows)
        manager.coverage.retract(contract.id, told.context.timeframe, spans, self._run_id)
        raise ConcurrentWriteError(f"{contract.id} was restored or repaired while it was appended to; run it again")

    def _spans(self, told: Told, contract: Contract, rows: pa.Table) -> dict[str, IntervalSet]:
        """Return the time of rows by what they are about; empty for rows without a time."""
        if contract.event_time is None:
            return {}
        step = told.context.timeframe.step if told.context.timeframe else _INSTANT
        subject = subject_column(contract)
        found: dict[str, list[Interval]] = {}
        for name, when in zip(rows[subject].to_pylist(), rows[contract.event_time].to_pylist(), strict=True):
            if name is not None and when is not None:
                found.setdefault(str(name), []).append(Interval(when, when + step))
        return {name: IntervalSet(parts) for name, parts in found.items()}


def _against_stored(good: pa.Table, stored: pa.Table | None, contract: Contract) -> pl.DataFrame:
    """Return the rows with the instant their key's newest version became known, and whether it has the same values."""
    keys, values = list(contract.keys), list(contract.value_columns)
    frame = pl.DataFrame(good).select(*keys, *values, PLACE)
    if stored is None:
        return frame.with_columns(
            pl.lit(None, dtype=pl.Datetime("us", "UTC")).alias(_KNOWN), pl.lit(value=False).alias("__equal")
        )
    joined = frame.join(
        pl.DataFrame(stored), on=keys, how="left", nulls_equal=True, suffix=_STORED, maintain_order="left"
    )
    equal = [pl.col(name).eq_missing(pl.col(name + _STORED)) for name in values]
    return joined.with_columns(pl.all_horizontal(pl.col(_KNOWN).is_not_null(), *equal).alias("__equal"))


def _counted(frame: pl.DataFrame, superseded: Mapping[int, str]) -> Landed:
    known = frame[_KNOWN].is_not_null()
    repeated = int(frame["__equal"].sum())
    return Landed(int((~known).sum()), int(known.sum()) - repeated, repeated, superseded)
