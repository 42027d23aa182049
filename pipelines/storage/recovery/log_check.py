"""Looks at the files of a table's log one by one: what of them is cut off, missing or wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from pipelines.storage.recovery.findings import Code, Finding, anew, mend
from pipelines.storage.recovery.held_files import LOG_FOLDER
from pipelines.storage.travel.log_files import LogFiles

LAST_CHECKPOINT = "_last_checkpoint"
# Spark's name and delta-rs's name of the number of files that a write adds.
_ADDED = ("numFiles", "num_added_files")
_READS_AT_ONCE = 8
_DEFAULT_INTERVAL = 10
_LATE = 10


def commit_path(version: int) -> str:
    """Return the path of a commit file in a table's folder."""
    return f"{LOG_FOLDER}/{version:020d}.json"


@dataclass(frozen=True, slots=True)
class LogCheck:
    """What is wrong with a log, and every data file that a commit of it names."""

    findings: tuple[Finding, ...]
    named: frozenset[str]


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit file: what is wrong with it, None if nothing is, and the data files it adds or removes."""

    fault: str | None
    named: frozenset[str] = frozenset()


def check_log(store: pafs.FileSystem, log: LogFiles, table: str) -> LogCheck:
    """Look at a log's commits and checkpoints.

    A fault before a sound checkpoint costs time travel only; behind it, the table itself.
    """
    sound, broken = _checkpoints(store, log, table)
    with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        found = pool.map(lambda version: commit_of(read(store, commit_path(version))), log.commits)
        commits = dict(zip(log.commits, found, strict=True))
    # The newest state is read from here on.
    base, newest = max(sound, default=-1), max(log.commits, default=-1)
    findings = [*broken, *_last_checkpoint(store, log, table)]
    for version, commit in commits.items():
        if commit.fault is not None:
            newest_of_all = version == newest > base
            findings.append(_broken(table, version, commit.fault, newest=newest_of_all, behind=version <= base))
    # A log that was cleaned begins at a checkpoint.
    begin = min(*log.commits, base + 1) if sound and log.commits else 0
    gaps = sorted(set(range(begin, newest)) - set(log.commits))
    findings += [_gap(table, version, behind=version <= base) for version in gaps]
    findings += _late(base, newest, table)
    return LogCheck(tuple(findings), frozenset().union(*(commit.named for commit in commits.values())))


def commit_of(content: bytes) -> Commit:
    """Read a commit file; one that is cut off between two lines is noticed too."""
    if not content.strip():
        return Commit("is empty")
    try:
        actions = [json.loads(line) for line in content.splitlines()]
    except ValueError:
        return Commit("is cut off or garbled")
    if not all(isinstance(action, dict) for action in actions):
        return Commit("is garbled")
    named = [unquote(str(part["path"])) for action in actions for part in _files_of(action)]
    return Commit(_too_few(actions), frozenset(named))


def _files_of(action: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for kind in ("add", "remove"):
        if isinstance(action.get(kind), dict):
            yield action[kind]


def _too_few(actions: Sequence[Mapping[str, Any]]) -> str | None:
    info = _info(actions)
    metrics: Mapping[str, object] = info.get("operationMetrics") or {}
    said = next((int(str(metrics[name])) for name in _ADDED if str(metrics.get(name, "")).isdigit()), None)
    found = sum("add" in action for action in actions)
    if info.get("operation") == "WRITE" and said is not None and said != found:
        return f"names {found} of the {said} files that it says it adds"
    return None


def read(store: pafs.FileSystem, path: str) -> bytes:
    """Return the content of a small file in a table's folder."""
    with store.open_input_stream(path) as stream:
        content: bytes = stream.read()
    return content


def _checkpoints(store: pafs.FileSystem, log: LogFiles, table: str) -> tuple[list[int], list[Finding]]:
    """Return the versions whose checkpoints can be read, and what is wrong with the others."""
    whole = set(log.checkpoints)
    broken: list[tuple[int, str]] = []
    for version, file in log.files:
        path = f"{LOG_FOLDER}/{file.path.rpartition('/')[2]}"
        if ".checkpoint." not in path or not path.endswith(".parquet"):
            continue
        try:
            with store.open_input_file(path) as handle:
                pq.read_metadata(handle)
        except (OSError, pa.ArrowException):
            whole.discard(version)
            broken.append((version, path))
    return sorted(whole), [_bad_checkpoint(table, log, whole, version, path) for version, path in broken]


def _bad_checkpoint(table: str, log: LogFiles, sound: set[int], version: int, path: str) -> Finding:
    # Without it the state comes from an earlier checkpoint, or from the first commit, and all commits since.
    start = max((each for each in sound if each < version), default=-1)
    replaceable = set(range(start + 1, version + 1)) <= set(log.commits) or any(each > version for each in sound)
    remedy = mend(table) if replaceable else anew(table)
    return Finding(Code.BAD_CHECKPOINT, "error", "the checkpoint cannot be read", path, remedy, version)


def _last_checkpoint(store: pafs.FileSystem, log: LogFiles, table: str) -> Iterator[Finding]:
    path = f"{LOG_FOLDER}/{LAST_CHECKPOINT}"
    remedy = mend(table)
    try:
        content = read(store, path)
    except FileNotFoundError:
        return
    try:
        named = int(json.loads(content)["version"])
    except (ValueError, KeyError, TypeError):
        yield Finding(Code.BAD_LAST_CHECKPOINT, "error", "it is garbled", path, remedy)
        return
    # One that is there and cannot be read is reported as such.
    if named not in log.checkpoints:
        what = f"it names checkpoint {named}, which is not there"
        yield Finding(Code.BAD_LAST_CHECKPOINT, "error", what, path, remedy)


def _broken(table: str, version: int, fault: str, *, newest: bool, behind: bool) -> Finding:
    path, what = commit_path(version), f"commit {version} {fault}"
    if newest:
        return Finding(Code.TRUNCATED_COMMIT, "error", what, path, mend(table), version)
    if behind:
        what += "; a later checkpoint stands in for it, only versions before that cannot be read"
        return Finding(Code.BROKEN_COMMIT, "info", what, path, "", version)
    return Finding(Code.BROKEN_COMMIT, "error", what, path, anew(table), version)


def _gap(table: str, version: int, *, behind: bool) -> Finding:
    path, what = commit_path(version), f"commit {version} is missing"
    if behind:
        what += "; a later checkpoint stands in for it, only versions before that cannot be read"
        return Finding(Code.LOG_GAP, "info", what, path, "", version)
    return Finding(Code.LOG_GAP, "error", what, path, anew(table), version)


def _late(base: int, newest: int, table: str) -> Iterator[Finding]:
    since = newest - base
    if since > _LATE * _DEFAULT_INTERVAL:
        what = f"{since} commits since the last checkpoint: every read goes through all of them"
        yield Finding(Code.NO_CHECKPOINT, "warning", what, LOG_FOLDER, mend(table), newest)


def commit_info(content: bytes) -> Mapping[str, Any]:
    """Return what a commit file says of itself; empty if it says nothing or cannot be read."""
    try:
        actions = [json.loads(line) for line in content.splitlines()]
    except ValueError:
        return {}
    return _info([action for action in actions if isinstance(action, dict)])


def _info(actions: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return next((action["commitInfo"] for action in actions if isinstance(action.get("commitInfo"), dict)), {})
