"""The commits of a table, for people and for programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cli.lakes import lake_for_reading
from pipelines.cli.render import Heading, count, say, show_json, show_table
from pipelines.config import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

# Spark's name and delta-rs's name of the same number.
_ROWS = ("numOutputRows", "num_added_rows")
_ADDED = ("numFiles", "numAddedFiles", "num_added_files")
_REMOVED = ("numRemovedFiles", "num_removed_files")


def show_history(
    table: str, limit: int, lake: str | None, *, sample: bool, config_file: Path | None, as_json: bool
) -> None:
    """Print the newest commits of a table."""
    chosen = lake_for_reading(load_settings(config_file), lake, sample=sample)
    frame = chosen.manager.get_table_history(table)
    commits = [dict(zip(frame.columns, row, strict=True)) for row in frame.head(limit).itertuples(index=False)]
    if as_json:
        show_json({**chosen.as_dict(), "table": table, "commits": [_json(commit) for commit in commits]})
        return
    chosen.show()
    say()
    headings = [
        Heading("version", number=True),
        Heading("time (UTC)"),
        Heading("operation"),
        Heading("rows added", number=True),
        Heading("files added", number=True),
        Heading("removed", number=True),
    ]
    show_table(headings, [_row(commit) for commit in commits])
    if len(frame) > limit:
        say(f"\n{count(len(frame) - limit)} older commits; --limit shows more")


def _row(commit: Mapping[str, Any]) -> list[str]:
    metrics: Mapping[str, Any] = commit["operationMetrics"]
    numbers = [_metric(metrics, names) for names in (_ROWS, _ADDED, _REMOVED)]
    # With milliseconds, so that it can be pasted after --as-of.
    time = commit["timestamp"].isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return [str(commit["version"]), time, str(commit["operation"]), *numbers]


def _metric(metrics: Mapping[str, Any], names: tuple[str, ...]) -> str:
    found = next((metrics[name] for name in names if isinstance(metrics.get(name), int)), None)
    return "" if found is None else count(found)


def _json(commit: Mapping[str, Any]) -> dict[str, object]:
    return {name: _absent_as_none(value) for name, value in commit.items()}


def _absent_as_none(value: object) -> object:
    """Return None where pandas has NaN for a missing text."""
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124 - only NaN differs from itself
