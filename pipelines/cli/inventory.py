"""What a lake holds: its tables in numbers, and the coverage of every series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.cli.lakes import ChosenLake, NoLakeError, lake_for_reading
from pipelines.cli.render import Heading, count, counted, instant, percent, say, show_json, show_table, size
from pipelines.config import load_settings
from pipelines.storage.layers import LAYERS
from pipelines.storage.log_table import RECORDED
from pipelines.storage.series_coverage import SeriesCoverage, coverage_of
from pipelines.timeframes import Timeframe

if TYPE_CHECKING:
    from pipelines.storage import TableInfo


# Rows of each table, by layer.
Layers = Mapping[str, Mapping[str, int]]
_LOGS = {"ingest_coverage": "what is known to be covered", "quality_results": "what was checked"}


def show_status(lake: str | None, *, sample: bool, config_file: Path | None, as_json: bool) -> None:
    """Print what the lake holds; a lake that is not there yet is an answer, not an error, unless it was named."""
    settings = load_settings(config_file)
    try:
        chosen = lake_for_reading(settings, lake, sample=sample)
    except NoLakeError as error:
        if lake or sample:
            raise
        _show_nothing(str(error), as_json=as_json)
        return
    tables = chosen.manager.tables()
    series = coverage_of(chosen.manager.coverage.read())
    made = _made(chosen)
    if as_json:
        show_json(
            chosen.as_dict()
            | {
                "tables": [_table_dict(table) for table in tables],
                "layers": made,
                "coverage": [each.as_dict() for each in series],
            }
        )
        return
    _show(chosen, tables, made, series)


def _show_nothing(message: str, *, as_json: bool) -> None:
    if as_json:
        show_json({"lake": None, "synthetic": None, "tables": [], "layers": {}, "coverage": []})
    else:
        say(f"{message[0].upper()}{message[1:]}.")


def _table_dict(table: TableInfo) -> dict[str, object]:
    return {
        "name": table.name,
        "version": table.version,
        "rows": table.rows,
        "files": table.files,
        "bytes": table.bytes,
        "newest": table.newest.isoformat() if table.newest else None,
        "origin": table.origin,
    }


def _made(chosen: ChosenLake) -> Layers:
    """Return how many rows each table of silver and gold has."""
    found = {name: chosen.manager.layer(name) for name in LAYERS}
    return {name: {table: layer.rows(table) for table in layer.names()} for name, layer in found.items()}


def _show(chosen: ChosenLake, tables: Sequence[TableInfo], made: Layers, series: Sequence[SeriesCoverage]) -> None:
    chosen.show()
    say()
    numbers = ("rows", "files", "size", "version")
    headings = [Heading("table"), *(Heading(name, number=True) for name in numbers), Heading("newest (UTC)")]
    data = [table for table in tables if table.name not in RECORDED]
    rows = [
        [t.name, count(t.rows), count(t.files), size(t.bytes), str(t.version), instant(t.newest)]
        for t in sorted(data, key=_table_place)
    ]
    total = ["total", *(count(sum(getattr(t, name) for t in data)) for name in ("rows", "files"))]
    if rows:
        show_table(headings, rows, [*total, size(sum(t.bytes for t in data)), "", ""])
    for log in (table for table in tables if table.name in RECORDED):
        say(f"and {log.name}, {_LOGS[log.name]}: {counted(log.rows, 'rows')}, {counted(log.files, 'files')}")
    for layer, held in made.items():
        if held:
            say(f"and {layer}, made from these: {counted(len(held), 'tables')}, {counted(sum(held.values()), 'rows')}")
    if series:
        say()
        _show_coverage(series)


def _table_place(table: TableInfo) -> tuple[str, int]:
    """Sort tables by dataset, then by length of bar."""
    stem, _, suffix = table.name.rpartition("_")
    return (stem, Timeframe(suffix).seconds) if suffix in set(Timeframe) else (table.name, 0)


def _show_coverage(series: Sequence[SeriesCoverage]) -> None:
    bars_only = all(each.timeframe for each in series)
    headings = [
        *([] if bars_only else [Heading("dataset")]),
        Heading("asset" if bars_only else "subject"),
        Heading("timeframe"),
        Heading("providers"),
        Heading("covered from (UTC)"),
        Heading("until"),
        Heading("coverage", number=True),
        Heading("gaps", number=True),
        Heading("rejected", number=True),
    ]
    rows = [
        [
            *([] if bars_only else [each.dataset]),
            each.subject,
            each.timeframe or "",
            ", ".join(each.providers),
            instant(each.start),
            instant(each.end),
            percent(each.share),
            count(each.gaps),
            count(each.rejected),
        ]
        for each in series
    ]
    show_table(headings, rows)
