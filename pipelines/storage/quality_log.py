"""The log of what was checked and how it ended: the table `quality_results`, which dashboards and dbt read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from pipelines.contracts import contract_for
from pipelines.storage.creation import ensure_table
from pipelines.storage.log_table import LogTable
from pipelines.storage.scan import literal, quoted
from pipelines.storage.stores.locks import turn
from pipelines.timeframes import utc_now

if TYPE_CHECKING:
    from pipelines.config import DeltaLakeSettings
    from pipelines.storage.lake import Lake

QUALITY_TABLE = "quality_results"

Kind = Literal["edge", "suite", "gaps", "repair", "freshness", "agreement"]
Severity = Literal["critical", "warning", "info"]


@dataclass(frozen=True, slots=True)
class QualityResult:
    """How one check of a run ended.

    Attributes:
        kind: what checked.
        dataset: contract id.
        check_name: the check, in the words a refused row is told.
        severity: what a failure means.
        success: whether it passed.
        rows_checked: rows looked at; for gaps, the bars expected.
        rows_failed: rows that failed; for gaps, the bars missing.
        table_name: physical table; None where it was about none.
        asset_pair: asset pair or series; None for all of them.
        timeframe: bar length; None for other datasets, or for all.
        provider: whose rows were checked; None for several.
        observed: the figure behind the check in its own unit, as seconds of lag or basis points.
        details: more about it, as JSON; never values of rows.
    """

    kind: Kind
    dataset: str
    check_name: str
    severity: Severity
    success: bool
    rows_checked: int
    rows_failed: int
    table_name: str | None = None
    asset_pair: str | None = None
    timeframe: str | None = None
    provider: str | None = None
    observed: float | None = None
    details: str | None = None


class QualityLog:
    """The table `quality_results` of one lake."""

    def __init__(self, lake: Lake, settings: DeltaLakeSettings) -> None:
        self._lake = lake
        self._settings = settings
        self._log = LogTable(lake, QUALITY_TABLE, settings.commit_retries)

    def record(self, results: Sequence[QualityResult], run_id: str, *, synthetic: bool = False) -> int | None:
        """Append a run's results in one commit and return its version; without results nothing happens.

        Raises:
            MixedOriginError: the lake holds data of the other origin.
            StorageError: the log cannot be written; nothing was committed.
        """
        if not results:
            return None
        ensure_table(self._lake, QUALITY_TABLE, self._settings, synthetic=synthetic)
        stamp = {"run_id": run_id, "checked_at": utc_now()}
        rows = [asdict(result) | stamp for result in results]
        with turn(self._lake.root, QUALITY_TABLE):
            version = self._log.append(pa.Table.from_pylist(rows, schema=contract_for(QUALITY_TABLE).arrow_schema))
            self._log.compact_if_scattered()
        return version

    def read(self, *, kind: Kind | None = None, run_id: str | None = None, since: datetime | None = None) -> pa.Table:
        """Return the results of a kind and run, recorded at or after an instant (aware UTC), oldest first."""
        where = [f"{quoted(name)} = {literal(value)}" for name, value in (("kind", kind), ("run_id", run_id)) if value]
        if since is not None:
            where.append(f"{quoted('checked_at')} >= {literal(since)}")
        return self._log.read(where)
