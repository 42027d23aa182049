"""Loading files, or only looking at what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipelines.batch.jobs import parse_timeframe
from pipelines.batch.load import FailedFile, FileLoad
from pipelines.batch.preview import SeriesPreview, preview
from pipelines.cli.failures import DONE, FAILED
from pipelines.cli.interrupt import run_stoppable
from pipelines.cli.lakes import lake_for_writing
from pipelines.cli.outcome import exit_code_of, show_result
from pipelines.cli.progress import progress_display
from pipelines.cli.render import Heading, count, counted, instant, say, show_json, show_table
from pipelines.cli.running import command_again
from pipelines.errors import ConfigError, SourceError
from pipelines.instruments import load_registry
from pipelines.sources.base import MARKET_DATA
from pipelines.sources.files import FileSpec, FilesSource
from pipelines.timeframes import utc_now

if TYPE_CHECKING:
    import click

    from pipelines.config import Settings

_MOST_SHOWN = 5


@dataclass(frozen=True, slots=True)
class FileArguments:
    """The arguments of a load, as given."""

    path: str
    asset: str | None
    timeframe: str | None
    map: tuple[str, ...]
    tz: str | None
    dataset: str

    def spec(self) -> FileSpec:
        """Return what to read, checked as far as that goes without reading.

        Raises:
            ConfigError: no such file or dataset, a wrong mapping or zone, or options that do not go together.
            InvalidRangeError: an unknown timeframe.
            UnknownAssetError: an unknown asset.
        """
        if self.dataset == MARKET_DATA and self.timeframe is None:
            raise ConfigError("bars need a length: give --timeframe 1m, 5m, 15m, 1h, 4h or 1d")
        if self.dataset != MARKET_DATA and self.timeframe is not None:
            raise ConfigError(f"--timeframe is for {MARKET_DATA}; {self.dataset} has none, leave it out")
        frame = parse_timeframe(self.timeframe) if self.timeframe else None
        instrument = load_registry().resolve(self.asset) if self.asset else None
        spec = FileSpec(self.path, self.dataset, instrument, frame, self._mapping(), self.tz)
        try:
            contract = spec.contract()
            spec.files()
        except SourceError as error:
            raise ConfigError(str(error)) from None
        if instrument and "asset_pair" not in contract.arrow_schema.names:
            raise ConfigError(f"{self.dataset} is not about assets; leave --asset out")
        return spec

    def _mapping(self) -> dict[str, str]:
        pairs = [text.partition("=") for text in self.map]
        for name, sign, column in pairs:
            if not (name.strip() and sign and column.strip()):
                raise ConfigError(f"--map takes COLUMN=FILE_COLUMN, as timestamp=date, not {name + sign + column!r}")
        return {name.strip(): column.strip() for name, _, column in pairs}


def run_load(
    ctx: click.Context,
    arguments: FileArguments,
    settings: Settings,
    lake: str | None,
    *,
    price_side: str,
    adjusted: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Load the files and print what came of it; returns the exit code."""
    spec = arguments.spec()
    chosen = lake_for_writing(settings, lake, synthetic=False)
    capabilities = replace(FilesSource.capabilities, price_side=price_side, adjusted=adjusted)
    if not as_json:
        chosen.show()
        say(f"{arguments.path}: {counted(len(spec.files()), 'files')}\n")
    with progress_display(quiet=quiet or as_json, counting="pages") as display:
        run = FileLoad(chosen.manager, settings, display, capabilities=capabilities)
        result = run_stoppable(lambda: run.run(spec), run.stop, display)
    if as_json:
        show_json(chosen.as_dict() | result.as_dict())
    else:
        show_result(result, command_again(ctx), unit="files", problems=_problems(result.failed_files))
    return exit_code_of(result)


def show_preview(arguments: FileArguments, settings: Settings, *, as_json: bool) -> int:
    """Print what the files hold and what of it would be refused; returns 1 if one cannot be read."""
    series, failed = preview(arguments.spec(), utc_now())
    if as_json:
        files = [{"path": each.path, "error": each.error} for each in failed]
        show_json({"dry_run": True, "series": [each.as_dict() for each in series], "failed_files": files})
    else:
        say("Dry run: nothing is written\n")
        _show_series(series, settings.ingest.max_rejected_ratio)
        for line in _problems(failed):
            say(line, "red")
    return FAILED if failed else DONE


def _show_series(series: Sequence[SeriesPreview], most_refused: float) -> None:
    headings = [Heading("subject"), Heading("timeframe"), *(Heading(name, number=True) for name in ("rows", "good"))]
    headings += [Heading("to be refused", number=True), Heading("first (UTC)"), Heading("last")]
    rows = [
        [
            each.subject,
            each.timeframe or "",
            count(each.rows),
            count(each.good),
            count(sum(each.reasons.values())),
            instant(each.first),
            instant(each.last),
        ]
        for each in series
    ]
    if rows:
        show_table(headings, rows)
    for each in series:
        for reason, number in each.reasons.most_common(_MOST_SHOWN):
            say(f"{each.subject}: {count(number)} x {reason}", "yellow")
        if each.rows and sum(each.reasons.values()) / each.rows > most_refused:
            say(f"{each.subject}: more than {most_refused:.0%} of a batch; it would be refused whole", "red")


def _problems(failed: Sequence[FailedFile]) -> list[str]:
    if not failed:
        return []
    lines = [
        f"{counted(len(failed), 'files')} could not be read:",
        *(f"  {each.error}" for each in failed[:_MOST_SHOWN]),
    ]
    return [*lines, f"  and {len(failed) - _MOST_SHOWN} more"] if len(failed) > _MOST_SHOWN else lines
