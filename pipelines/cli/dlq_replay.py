"""Replaying dead letters from a terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.cli.dlq_files import Filters, queue_of, show_unreadable
from pipelines.cli.failures import DONE, FAILED
from pipelines.cli.lakes import lake_for_writing
from pipelines.cli.options import engine_override
from pipelines.cli.progress import progress_display
from pipelines.cli.render import Heading, count, counted, duration, say, show_json, show_table
from pipelines.config import Settings, load_settings
from pipelines.data_quality.dlq_reading import RowFilter, Unreadable, find_file, read_files
from pipelines.data_quality.replay import Replay, ReplayedFile, ReplayResult
from pipelines.errors import ConfigError, MixedOriginError

if TYPE_CHECKING:
    from pipelines.data_quality.dlq import DeadLetterQueue
    from pipelines.storage import DeltaLakeManager

_NUMBERS = ("rows", "new", "restated", "repeated", "refused")


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """What to replay, as given: names of files, or all of them, and filters that choose among them."""

    files: tuple[str, ...]
    everything: bool
    filters: Filters
    dry_run: bool

    def paths(self, queue: DeadLetterQueue) -> tuple[list[Path], list[Unreadable]]:
        """Return the files to replay, and those that cannot be read.

        Raises:
            ConfigError: files and --all are both given or both missing, or a file is not there.
        """
        if self.everything == bool(self.files):
            raise ConfigError("name the files to replay, or give --all; `lakehouse dlq list` shows them")
        named = queue.files() if self.everything else [find_file(queue, name) for name in self.files]
        paths = list(dict.fromkeys(named))
        wanted = RowFilter(*self.filters)
        if not wanted:
            return paths, []
        found = list(read_files(paths, wanted))
        bad = [each for each in found if isinstance(each, Unreadable)]
        return [each.path for each in found if not isinstance(each, Unreadable)], bad


def run_replay(
    request: ReplayRequest,
    engine: str | None,
    lake: str | None,
    *,
    sample: bool,
    config_file: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Replay files and print what came of each; returns the exit code."""
    if lake and sample:
        raise ConfigError("give either --lake or --sample, not both")
    settings = load_settings(config_file, engine_override(engine))
    queue = queue_of(settings)
    paths, unreadable = request.paths(queue)
    with progress_display(quiet=quiet or as_json, counting="chunks") as display:
        replay = Replay(queue, settings, _lakes(settings, lake, sample=sample), display)
        result = replay.run(paths, dry_run=request.dry_run)
    if as_json:
        show_json({"dlq": str(queue.path), **result.as_dict(), "unreadable": [each.as_dict() for each in unreadable]})
    else:
        _show(result, queue.path)
        show_unreadable(unreadable)
    return DONE if result.ok and not unreadable else FAILED


def _lakes(settings: Settings, lake: str | None, *, sample: bool) -> Callable[[bool], DeltaLakeManager]:
    """Return what finds the lake for made-up rows and for real ones."""

    @cache
    def found(synthetic: bool) -> DeltaLakeManager:
        if sample and not synthetic:
            raise MixedOriginError("--sample is the lake of synthetic data, and these rows are real; leave it out")
        return lake_for_writing(settings, lake, synthetic=synthetic).manager

    return found


def _show(result: ReplayResult, queue: Path) -> None:
    say(f"Dead letters {queue}", "bold")
    if not result.files:
        say("nothing to replay")
        return
    if result.dry_run:
        say("Dry run: nothing is written or moved")
    say()
    headings = [Heading("file"), Heading("asset"), *(Heading(name, number=True) for name in _NUMBERS)]
    good = [each for each in result.files if each.error is None]
    total = ["total", "", *(count(sum(getattr(each, name) for each in good)) for name in _NUMBERS)]
    if good:
        show_table(headings, [_row(each) for each in good], total if len(good) > 1 else None)
        say()
    for each in good:
        _show_outcome(each)
    failed = [each for each in result.files if each.error is not None]
    if failed:
        say(f"{counted(len(failed), 'files')} could not be replayed:", "red")
        for each in failed:
            say(f"  {each.error}", "red")
    say(f"{duration(result.seconds)}")


def _row(file: ReplayedFile) -> list[str]:
    return [file.path.name, file.subject or "-", *(count(getattr(file, name)) for name in _NUMBERS)]


def _show_outcome(file: ReplayedFile) -> None:
    """Say why rows of a file are refused still, and where they are now."""
    if not file.refused:
        return
    why = ", ".join(f"{reason}: {count(number)}" for reason, number in file.reasons.most_common())
    where = f"; now in {file.dlq_file.name}" if file.dlq_file and file.dlq_file != file.path else ""
    say(f"{file.path.name}: refused still ({why}){where}")
