"""Brings silver and gold up to date: runs dbt on what is stale, and not even Spark where nothing is."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.storage import QualityResult
from pipelines.storage.scan import Instant
from pipelines.transform.project import is_view
from pipelines.transform.runner import (
    UP_TO_DATE,
    WOULD_BUILD,
    DbtRun,
    NodeResult,
    Prepared,
    dbt_environment,
    prepare,
)
from pipelines.transform.telling import OnNode

if TYPE_CHECKING:
    from dbt.contracts.graph.nodes import ModelNode

    from pipelines.storage import DeltaLakeManager

CHECK = "dbt tests"
_RETEST = "its tests have not passed yet"
_ASKED = "asked for"


@dataclass(frozen=True, slots=True)
class Request:
    """What to bring up to date, and from when.

    Attributes:
        select: models in dbt's words; what they are made from comes with them. None for all of them.
        full_refresh: make tables anew, not only what has changed.
        as_of: from bronze as it was at an instant; a zoneless one is UTC.
        snapshot: from bronze as a snapshot pins it; give one of the two at most.
        variables: dbt's variables, as a YAML mapping.
        synthetic: whether the lake is one of synthetic data.
    """

    select: tuple[str, ...] = ()
    full_refresh: bool = False
    as_of: Instant | None = None
    snapshot: str | None = None
    variables: str | None = None
    synthetic: bool = False


@dataclass(frozen=True, slots=True)
class _Task:
    """A table and why it has to be made or tested; nothing if it does not."""

    node: ModelNode
    why: str
    redefined: bool = False


def transform(
    request: Request,
    manager: DeltaLakeManager,
    folder: Path,
    *,
    on_node: OnNode = lambda _name, _number, _total: None,
    dry_run: bool = False,
) -> DbtRun:
    """Make anew what is stale of silver and gold, and test it.

    A table is stale if rows that it is made from have changed, or its definition, or that of what it is made from; and
    until its tests have passed. How the tests ended goes to the table `quality_results`.

    Args:
        request: what is wanted.
        manager: the lake.
        folder: for dbt's artifacts and logs; made if need be.
        on_node: is told the name of each model and test before it runs, its number from 1, and how many there are.
        dry_run: only say what would be done, and why; starts no Spark.

    Returns:
        A node for each table and test, in dbt's order behind those that are up to date.

    Raises:
        SparkUnavailableError: Java or the jars are missing, or the JVM did not start; names the fix.
        InvalidRangeError: the instant is before the lake's history.
        SnapshotError: no such snapshot.
        TransformError: dbt could not even begin: wrong arguments, or the project cannot be parsed.
    """
    with dbt_environment(folder):
        given = ["--vars", request.variables] if request.variables else []
        _, ready = prepare(given, manager, as_of=request.as_of, snapshot=request.snapshot)
        selected = ready.listed(request.select)
        tasks = _tasks(ready, request, selected)
        fresh = [_node(task, UP_TO_DATE) for task in tasks if not task.why]
        due = [task for task in tasks if task.why]
        if dry_run:
            return DbtRun(ok=True, nodes=(*fresh, *(_node(task, WOULD_BUILD) for task in due)), suffix=ready.suffix)
        if not due:
            return DbtRun(ok=True, nodes=tuple(fresh), suffix=ready.suffix)
        done = ready.run(_arguments(ready, request, due, selected), on_node)
        _record(ready, done, request)
        return replace(done, nodes=(*fresh, *done.nodes))


def _arguments(ready: Prepared, request: Request, due: list[_Task], selected: set[str]) -> list[str]:
    # What can be made of the views already is made in any case.
    missing = selected - set(ready.planner.views())
    views = [node.name for node in ready.project.models() if is_view(node) and node.name in missing]
    # Without a change of definitions there is nothing new in what unit tests would say.
    redefined = request.full_refresh or any(task.redefined for task in due)
    return [
        "--quiet",
        "build",
        *["--select", *(task.node.name for task in due), *views],
        *([] if redefined else ["--exclude-resource-type", "unit_test"]),
        *(["--full-refresh"] if request.full_refresh else []),
        *ready.variables,
    ]


def _tasks(ready: Prepared, request: Request, selected: set[str]) -> list[_Task]:
    """Return the selected tables, each after those it is made from."""
    passed = _passed(ready)
    return [
        _task(ready, node, passed, asked=request.full_refresh)
        for node in ready.project.models()
        if node.name in selected and not is_view(node)
    ]


def _task(ready: Prepared, node: ModelNode, passed: Mapping[tuple[str, str], int], *, asked: bool) -> _Task:
    plan = ready.planner.outlook(node)
    if not plan.is_idle:
        return _Task(node, plan.why, plan.redefined)
    if asked:
        return _Task(node, _ASKED)
    tested = passed.get((node.schema, node.alias))
    return _Task(node, "" if tested == ready.manager.layer(node.schema).made(node.alias).version else _RETEST)


def _node(task: _Task, status: str) -> NodeResult:
    return NodeResult(task.node.name, "model", status, 0.0, task.why, None)


def _passed(ready: Prepared) -> dict[tuple[str, str], int]:
    """Return the version of each table, by schema and name, whose tests were the last to be run, if they passed."""
    rows = ready.manager.quality.read(kind="suite").select(
        ["dataset", "table_name", "check_name", "success", "details"]
    )
    found: dict[tuple[str, str], int] = {}
    for row in rows.to_pylist():
        if row["check_name"] == CHECK:
            found[row["dataset"], row["table_name"]] = json.loads(row["details"])["version"] if row["success"] else -1
    return found


def _record(ready: Prepared, done: DbtRun, request: Request) -> None:
    """Keep how the tests of each table ended that was made."""
    made = {node.name for node in done.nodes if node.kind == "model" and node.ok}
    tests = {node.name: node for node in done.nodes if node.kind == "test"}
    results = [
        _result(ready, node, [tests[test.name] for test in ready.project.tests_of(node) if test.name in tests])
        for node in ready.project.models()
        if node.name in made and not is_view(node)
    ]
    ready.manager.quality.record(results, uuid.uuid4().hex, synthetic=request.synthetic)


def _result(ready: Prepared, node: ModelNode, tests: Iterable[NodeResult]) -> QualityResult:
    wrong = [test for test in tests if not test.ok]
    layer = ready.manager.layer(node.schema)
    rows = layer.rows(node.alias)
    details = {"version": layer.made(node.alias).version, "failed": [test.name for test in wrong]}
    return QualityResult(
        kind="suite",
        dataset=node.schema,
        check_name=CHECK,
        severity="critical",
        success=not wrong,
        rows_checked=rows,
        rows_failed=min(rows, sum(test.failures or 0 for test in wrong)),
        table_name=node.alias,
        details=json.dumps(details),
    )
