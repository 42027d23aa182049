"""Checks a table against what is on disk: its log, its checkpoints and its data files. Changes nothing; no JVM."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pyarrow.fs as pafs

from pipelines.contracts import load_contracts
from pipelines.errors import StorageError
from pipelines.storage.creation import MARKER_TABLE
from pipelines.storage.files import store_of
from pipelines.storage.log_table import RECORDED
from pipelines.storage.recovery.findings import Code, Finding, FsckReport, anew, mend
from pipelines.storage.recovery.held_files import (
    LOG_FOLDER,
    HeldFile,
    StoredFile,
    held_files,
    is_data,
    rows_in,
    stored_files,
)
from pipelines.storage.recovery.log_check import check_log
from pipelines.storage.replay import replayed
from pipelines.storage.travel.log_files import log_files
from pipelines.storage.travel.snapshots import Snapshots
from pipelines.storage.undeclared import contract_of, is_declared

if TYPE_CHECKING:
    from pipelines.storage.coverage import CoverageLog
    from pipelines.storage.lake import Lake

_READS_AT_ONCE = 8


def suspects(lake: Lake, coverage: CoverageLog) -> list[str]:
    """Return every table that is there, or that coverage or a snapshot speaks of; sorted."""
    return sorted({*lake.names(), *lost_tables(lake, coverage)})


def lost_tables(lake: Lake, coverage: CoverageLog) -> dict[str, str]:
    """Return the tables that should be there and are not, each with who speaks of it."""
    said = {name: f"the snapshot {each.name}" for each in Snapshots(lake).list() for name in each.tables}
    said |= dict.fromkeys(_covered_tables(lake, coverage), "the coverage log")
    present = set(lake.names())
    if present and MARKER_TABLE not in present:
        said[MARKER_TABLE] = "every lake"
    return {name: by for name, by in sorted(said.items()) if name not in present}


def _covered_tables(lake: Lake, coverage: CoverageLog) -> set[str]:
    """Return the tables whose rows the coverage log vouches for; where nothing traded, no table was ever made."""
    if not lake.exists(MARKER_TABLE):
        return set()
    try:
        log = coverage.read()
    except StorageError:
        # The log's own check says what is wrong with it.
        return set()
    with_rows = {(row["dataset"], row["timeframe"]) for row in log.to_pylist() if row["rows"]}
    standing = {(series[0], series[2]) for (series, _), answers in replayed(log).items() if answers.done}
    contracts = [contract for contract in load_contracts().values() if not contract.is_log]
    tables = {(each.id, each.timeframe_of(name)): name for each in contracts for name in each.tables}
    return {tables[key] for key in with_rows & standing if key in tables}


def fsck(lake: Lake, coverage: CoverageLog, table_name: str, *, deep: bool = False) -> FsckReport:
    """Check one table.

    Args:
        lake: the lake.
        coverage: its log, which may speak of a table that is gone.
        table_name: the table.
        deep: open each data file of the newest version, and compare its rows with the log's.

    Raises:
        TableNotFoundError: there is no such table, and nothing says that there should be.
        StorageError: the store cannot be listed or read.
    """
    if not lake.exists(table_name):
        by = lost_tables(lake, coverage).get(table_name)
        if by is None:
            lake.open(table_name)
        return FsckReport(table_name, None, 0, (_lost(table_name, by or ""),))
    try:
        log = log_files(lake.root, table_name)
        checked = check_log(store_of(table_name, lake.root), log, table_name)
    except OSError as error:
        raise StorageError(f"cannot read the log of {table_name}: {error}") from error
    findings = list(checked.findings)
    try:
        table = lake.open(table_name)
        files = held_files(table, contract_of(table, table_name))
    except StorageError as error:
        if not any(finding.severity == "error" for finding in findings):
            line = str(error).splitlines()[0]
            findings.append(_error(Code.UNREADABLE_LOG, line, LOG_FOLDER, anew(table_name)))
        return FsckReport(table_name, None, 0, tuple(findings))
    there = stored_files(lake, table_name)
    # What nobody fetches is not forgotten; a bucket may keep it.
    mendable = is_declared(table_name) or not lake.root.is_local
    findings += _files(files, there, mend(table_name) if mendable else "")
    if deep:
        sound = {path: file for path, file in files.items() if path in there and there[path].bytes == file.bytes}
        findings += _contents(lake, table_name, sound, mend(table_name, deep=True) if mendable else "")
    findings += _left_behind(there, checked.named | files.keys())
    return FsckReport(table_name, table.version(), len(files), tuple(findings))


def _lost(table_name: str, by: str) -> Finding:
    remedy = anew(table_name)
    if table_name in RECORDED:
        remedy = mend(table_name)
    return _error(Code.LOST_TABLE, f"{by} speaks of it, and it has no log any more", LOG_FOLDER, remedy)


def _error(code: Code, what: str, where: str, remedy: str) -> Finding:
    return Finding(code, "error", what, where, remedy)


def _files(files: dict[str, HeldFile], there: dict[str, StoredFile], remedy: str) -> Iterator[Finding]:
    for path, file in sorted(files.items()):
        if path not in there:
            yield _error(Code.MISSING_FILE, f"a data file is gone{_rows(file)}", path, remedy)
        elif there[path].bytes != file.bytes:
            what = f"a data file has {there[path].bytes:,} bytes, not {file.bytes:,}{_rows(file)}"
            yield _error(Code.WRONG_SIZE, what, path, remedy)


def _rows(file: HeldFile) -> str:
    if file.rows is None or file.span is None:
        return ""
    begin, end = (when.strftime("%Y-%m-%d %H:%M") for when in (file.span.start, file.span.end))
    return f": {file.rows:,} rows of {file.subject or 'all'}, {begin} to {end}"


def _contents(lake: Lake, table_name: str, files: dict[str, HeldFile], remedy: str) -> Iterator[Finding]:
    store = store_of(table_name, lake.root)
    with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        counts = dict(zip(files, pool.map(lambda path: _row_count(store, path), files), strict=True))
    for path, rows in sorted(counts.items()):
        if rows is None:
            yield _error(Code.UNREADABLE_FILE, f"a data file is garbled{_rows(files[path])}", path, remedy)
        elif files[path].rows not in (None, rows):
            what = f"a data file has {rows:,} rows, the log says {files[path].rows:,}"
            yield _error(Code.WRONG_ROWS, what, path, remedy)


def _row_count(store: pafs.FileSystem, path: str) -> int | None:
    """Return the rows that a file really has, all of its pages read; None if it cannot be read."""
    try:
        with store.open_input_file(path) as handle:
            return rows_in(handle)
    except OSError:
        return None


def _left_behind(there: dict[str, StoredFile], named: frozenset[str]) -> Iterator[Finding]:
    orphans = [file for path, file in there.items() if is_data(path) and path not in named]
    if orphans:
        size = sum(file.bytes for file in orphans)
        what = f"data files of writes that never committed: {len(orphans)} ({size:,} bytes); vacuum removes them"
        yield Finding(Code.ORPHANS, "info", what)
    left = [path for path in there if path.endswith((".tmp", ".corrupt")) or ".tmp." in path]
    if left:
        yield Finding(Code.TEMPORARY_FILES, "info", f"temporary files and files set aside: {len(left)}", left[0])
