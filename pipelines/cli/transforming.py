"""Running dbt over a lake, and showing what it did."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from pipelines.cli.failures import DONE, FAILED
from pipelines.cli.lakes import ChosenLake, lake_for_reading
from pipelines.cli.render import Heading, console, count, counted, duration, say, show_json, show_table
from pipelines.config import PROJECT_ROOT, load_settings
from pipelines.errors import ConfigError
from pipelines.transform.runner import DbtRun, NodeResult, run_dbt

# dbt's artifacts and logs: what makes its next start faster, and the docs site.
FOLDER = PROJECT_ROOT / "data" / "transform"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to transform, and from when."""

    select: tuple[str, ...] = ()
    full_refresh: bool = False
    as_of: str | None = None
    snapshot: str | None = None
    variables: str | None = None

    def arguments(self) -> list[str]:
        """Return it as dbt takes it; tests of bronze are left to `lakehouse validate`."""
        chosen = [f"+{word}" for words in self.select for word in words.split()]
        return [
            "--quiet",
            "build",
            *(["--select", *chosen] if chosen else []),
            *["--exclude", "source:*"],
            *(["--full-refresh"] if self.full_refresh else []),
            *(["--vars", self.variables] if self.variables else []),
        ]


def run_transform(wanted: Wanted, lake: str | None, *, sample: bool, config_file: Path | None, as_json: bool) -> None:
    """Build models and run their tests, and print how it went.

    Raises:
        ConfigError: both an instant and a snapshot are given.
    """
    if wanted.as_of and wanted.snapshot:
        raise ConfigError("give either --as-of or --snapshot, not both")
    chosen = lake_for_reading(load_settings(config_file), lake, sample=sample)
    started = time.monotonic()
    with console(stderr=True).status("starting Spark …") as status:
        done = run_dbt(
            wanted.arguments(),
            chosen.manager,
            FOLDER,
            as_of=wanted.as_of,
            snapshot=wanted.snapshot,
            on_node=lambda name: status.update(f"{name} …"),
        )
    spent = time.monotonic() - started
    if as_json:
        show_json({**chosen.as_dict(), "seconds": round(spent, 2), **done.as_dict()})
    else:
        _show(chosen, done, spent)
    click.get_current_context().exit(DONE if done.ok else FAILED)


def run_dbt_command(arguments: Sequence[str], lake: str | None, *, sample: bool, config_file: Path | None) -> None:
    """Run a dbt command, which prints for itself."""
    chosen = lake_for_reading(load_settings(config_file), lake, sample=sample)
    done = run_dbt(arguments or ["--help"], chosen.manager, FOLDER)
    click.get_current_context().exit(DONE if done.ok else FAILED)


def _show(chosen: ChosenLake, done: DbtRun, spent: float) -> None:
    chosen.show()
    if done.suffix:
        say(f"Built into silver{done.suffix} and gold{done.suffix}; what is live is as it was")
    say()
    tables = [node for node in done.nodes if node.kind == "model"]
    show_table([Heading("model"), Heading("result"), Heading("seconds", number=True)], [_row(each) for each in tables])
    wrong = [node for node in done.nodes if not node.ok]
    for node in wrong:
        say(f"{node.name}: {node.status}: {node.message}", "red", stderr=True)
    tests = len(done.nodes) - len(tables)
    failed = f", {counted(len(wrong), 'problems')}" if wrong else ""
    say(f"\n{counted(len(tables), 'models')}, {counted(tests, 'tests')}{failed} ({duration(spent)}).")


def _row(node: NodeResult) -> list[str]:
    rows = f" ({count(node.failures)})" if node.failures else ""
    return [node.name, f"{node.status}{rows}", f"{node.seconds:.1f}"]
