"""What a load would do: the files are read and checked, nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from pipelines.batch.load import FailedFile, job_of, pages_by_subject, span_of
from pipelines.contracts import Contract
from pipelines.edge import EdgeContext, validate
from pipelines.errors import SourceError
from pipelines.sources.base import Page
from pipelines.sources.files import FileSpec, FilesSource


@dataclass(slots=True)
class SeriesPreview:
    """One series: its rows, how many of them are good, its span, and why the others would be refused."""

    subject: str
    timeframe: str | None
    rows: int = 0
    good: int = 0
    first: datetime | None = None
    last: datetime | None = None
    reasons: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        return {
            "asset_pair": self.subject,
            "timeframe": self.timeframe,
            "rows": self.rows,
            "good": self.good,
            "first": self.first.isoformat() if self.first else None,
            "last": self.last.isoformat() if self.last else None,
            "reasons": dict(self.reasons.most_common()),
        }


def preview(spec: FileSpec, now: datetime) -> tuple[list[SeriesPreview], list[FailedFile]]:
    """Read and check what a spec names, page by page; repeats in different pages are not noticed.

    Raises:
        SourceError: there is no such file, or the spec does not fit its dataset.
    """
    contract, found, failed = spec.contract(), dict[str, SeriesPreview](), list[FailedFile]()
    for path in spec.files():
        part = replace(spec, path=path)
        try:
            for subject, page in pages_by_subject(part, contract):
                job = job_of(part, subject)
                frame = job.timeframe.value if job.timeframe else None
                series = found.setdefault(job.subject, SeriesPreview(job.subject, frame))
                context = EdgeContext(
                    contract, FilesSource.name, now, instrument=job.instrument, timeframe=job.timeframe
                )
                _note(series, page, contract, context)
        except SourceError as error:
            failed.append(FailedFile(str(path), str(error)))
    return list(found.values()), failed


def _note(series: SeriesPreview, page: Page, contract: Contract, context: EdgeContext) -> None:
    checked = validate(page.table, context)
    series.rows += page.table.num_rows
    series.good += checked.good.num_rows
    series.reasons.update(row.reason for row in checked.refused)
    times: Iterable[datetime] = span_of(page, contract) or ()
    for time in times:
        series.first = min(series.first or time, time)
        series.last = max(series.last or time, time)
