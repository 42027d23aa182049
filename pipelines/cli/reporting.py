"""Making the quality report, and telling in a few lines what is in it."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.cli.lakes import ChosenLake, lake_for_reading
from pipelines.cli.recording import keep_results
from pipelines.cli.render import console, say, show_json
from pipelines.cli.series_choice import SeriesChoice
from pipelines.config import Settings, load_settings
from pipelines.data_quality.dlq import DeadLetterQueue
from pipelines.data_quality.report import QualityReport, gather
from pipelines.data_quality.report.page import headlines, page
from pipelines.errors import StorageError
from pipelines.intervals import Interval
from pipelines.timeframes import utc_now

if TYPE_CHECKING:
    import pyarrow as pa

_USUAL = timedelta(days=30)
_NAME = "quality_report.html"
_STYLES = {"critical": "red", "warning": "yellow", "ok": "green"}


def show_quality(
    choice: SeriesChoice,
    output: Path | None,
    lake: str | None,
    *,
    sample: bool,
    config_file: Path | None,
    as_json: bool,
) -> None:
    """Gather the report, write its page, and print what it comes to."""
    settings = load_settings(config_file)
    chosen = lake_for_reading(settings, lake, sample=sample)
    with console(stderr=True).status("…") as status:
        found = gather(
            chosen.manager,
            DeadLetterQueue(settings.resolve(settings.dlq.path)),
            choice.interval or newest_span(chosen.manager.coverage.read()),
            synthetic=chosen.synthetic,
            assets=choice.pairs,
            timeframes=choice.frames,
            on_step=lambda name: status.update(f"{name} …"),
        )
    keep_results(chosen, [each.as_result() for each in found.freshness])
    written = None if as_json and output is None else write_page(_place(output, settings), page(found))
    if as_json:
        show_json(found.as_dict())
        return
    _show(chosen, found)
    say(f"\nThe whole report: {written}")


def newest_span(coverage: pa.Table) -> Interval:
    """Return the newest 30 days that the coverage log knows of, up to now without any."""
    ends = [end for end in coverage["end"].to_pylist() if end <= utc_now()]
    newest = max(ends, default=utc_now())
    return Interval(newest - _USUAL, newest)


def write_page(place: Path, html: str) -> Path:
    """Write a page whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=place.parent, prefix=".", delete=False, encoding="utf-8") as stream:
            partial = Path(stream.name)
            try:
                stream.write(html)
                stream.close()
                partial.chmod(0o644)
                partial.replace(place)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {place}: {error.strerror or error}") from error
    return place


def _place(output: Path | None, settings: Settings) -> Path:
    if output is not None:
        return output.expanduser().absolute()
    return Path(settings.resolve(settings.quality.path)) / _NAME


def _show(chosen: ChosenLake, report: QualityReport) -> None:
    chosen.show()
    say()
    for each in headlines(report):
        say(f"{each.label:<13} {each.value:>8} {each.detail}", _STYLES.get(each.state))
