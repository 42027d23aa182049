"""Running dbt over a lake, and showing what it did."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from pipelines.cli.dbt_words import check_command, check_variables
from pipelines.cli.failures import DONE, FAILED, VERBOSE
from pipelines.cli.lakes import ChosenLake, lake_for_reading
from pipelines.cli.render import Heading, console, counted, duration, say, show_json, show_table
from pipelines.config import Settings, load_settings
from pipelines.errors import ConfigError
from pipelines.transform.build import Request, transform
from pipelines.transform.runner import UP_TO_DATE, WOULD_BUILD, DbtRun, NodeResult, run_dbt
from pipelines.transform.telling import OnNode


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to transform, and from when, as it was given."""

    select: tuple[str, ...]
    full_refresh: bool
    as_of: str | None
    snapshot: str | None
    variables: str | None
    dry_run: bool


def run_transform(wanted: Wanted, lake: str | None, *, sample: bool, config_file: Path | None, as_json: bool) -> None:
    """Make anew what is stale and test it, and print how it went.

    Raises:
        ConfigError: both an instant and a snapshot are given, or a variable is wrong.
    """
    if wanted.as_of and wanted.snapshot:
        raise ConfigError("give either --as-of or --snapshot, not both")
    settings, values = _variables(wanted.variables, config_file)
    chosen = lake_for_reading(settings, lake, sample=sample)
    request = Request(
        select=wanted.select,
        full_refresh=wanted.full_refresh,
        as_of=wanted.as_of,
        snapshot=wanted.snapshot,
        variables=json.dumps(values),
        synthetic=chosen.synthetic,
    )
    started = time.monotonic()
    with _progress() as on_node, _hushed():
        done = transform(request, chosen.manager, folder(settings), on_node=on_node, dry_run=wanted.dry_run)
    if wanted.select and not done.nodes:
        raise ConfigError(f"--select {' '.join(wanted.select)}: there is no such model; `lakehouse dbt ls` lists them")
    spent = time.monotonic() - started
    if as_json:
        show_json({**chosen.as_dict(), "dry_run": wanted.dry_run, "seconds": round(spent, 2), **done.as_dict()})
    else:
        _show(chosen, done, spent, dry_run=wanted.dry_run)
        if not done.ok:
            say(f"dbt's log has more: {folder(settings) / 'logs' / 'dbt.log'}", stderr=True)
    click.get_current_context().exit(DONE if done.ok else FAILED)


def run_dbt_command(arguments: Sequence[str], lake: str | None, *, sample: bool, config_file: Path | None) -> None:
    """Run a dbt command, which prints for itself; the settings are its variables, and `--vars` wins.

    Raises:
        UsageError: it is no command of dbt's, with dbt's own message.
    """
    command, *others = check_command(arguments)
    settings = load_settings(config_file)
    chosen = lake_for_reading(settings, lake, sample=sample)
    given = [command, "--vars", json.dumps(settings.transform.variables()), *others]
    done = run_dbt(given, chosen.manager, folder(settings))
    click.get_current_context().exit(DONE if done.ok else FAILED)


def folder(settings: Settings) -> Path:
    """Return where dbt's artifacts and logs go: what makes its next start faster, and the documentation site."""
    return Path(settings.resolve(settings.transform.path))


def _variables(text: str | None, config_file: Path | None) -> tuple[Settings, dict[str, object]]:
    """Return the settings with the variables that are settings, and all variables."""
    given = check_variables(text or "{}")
    known = load_settings(config_file).transform.variables()
    settings = load_settings(config_file, {"transform": {name: given[name] for name in given.keys() & known.keys()}})
    return settings, given | settings.transform.variables()


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep what dbt prints off stdout, which is for the answer alone; all of it is in dbt's log."""
    verbose = click.get_current_context().meta.get(VERBOSE)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(sys.stderr if verbose else nowhere):
        yield


@contextmanager
def _progress() -> Iterator[OnNode]:
    """Show a bar on a terminal, and nothing elsewhere; yields what is to be told of each model and test."""
    out = console(stderr=True)
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=out,
        transient=True,
        disable=not out.is_terminal,
    )
    with bar:
        task = bar.add_task("looking for what has changed", total=None)
        yield lambda name, number, total: bar.update(task, description=name, completed=number - 1, total=total)


def _show(chosen: ChosenLake, done: DbtRun, spent: float, *, dry_run: bool) -> None:
    chosen.show()
    if done.suffix:
        say(f"As it was then, in silver{done.suffix} and gold{done.suffix}; what is live stays as it is")
    models = [node for node in done.nodes if node.kind == "model"]
    due = [node for node in models if node.status != UP_TO_DATE]
    if due:
        say()
        last = Heading("why", fold=True) if dry_run else Heading("seconds", number=True)
        show_table([Heading("model"), Heading("result"), last], [_row(node) for node in due])
    wrong = [node for node in done.nodes if not node.ok]
    if wrong:
        say(stderr=True)
    for node in wrong:
        say(f"{node.name}: {node.status}: {node.message}", "red", stderr=True)
    say(f"\n{_summary(done, due, wrong)} ({duration(spent)}).", "red" if wrong else "green")


def _summary(done: DbtRun, due: Sequence[NodeResult], wrong: Sequence[NodeResult]) -> str:
    """Say it in a line: 4 models built, 12 up to date, 31 tests."""
    models = sum(node.kind == "model" for node in done.nodes)
    if not due and not wrong:
        return (
            f"All {counted(models, 'models')} are up to date" if models > 1 else f"{done.nodes[0].name} is up to date"
        )
    built = sum(node.ok for node in due)
    verb = "would be built" if any(node.status == WOULD_BUILD for node in due) else "built"
    parts = [f"{counted(built, 'models')} {verb}"]
    if models > len(due):
        parts.append(f"{models - len(due)} up to date")
    if tests := sum(node.kind != "model" for node in done.nodes):
        parts.append(f"{counted(tests, 'tests')} run")
    if wrong:
        parts.append(counted(len(wrong), "problems"))
    return ", ".join(parts)


def _row(node: NodeResult) -> list[str]:
    return [node.name, node.status, node.message if node.status == WOULD_BUILD else f"{node.seconds:.1f}"]
