"""Runs dbt in this process and in its one SparkSession, over a catalog that knows the lake."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipelines.config import PROJECT_ROOT
from pipelines.errors import InvalidRangeError, LakehouseError, TableNotFoundError
from pipelines.storage.faults import explain, spark_errors
from pipelines.storage.scan import Instant
from pipelines.storage.travel.moments import instant_of
from pipelines.transform.catalog import fill
from pipelines.transform.functions import register
from pipelines.transform.plan import Planner
from pipelines.transform.project import Project
from pipelines.transform.sources import source_tables
from pipelines.transform.telling import OnNode, telling

if TYPE_CHECKING:
    from dbt.cli.main import dbtRunnerResult
    from dbt.contracts.graph.manifest import Manifest
    from dbt_common.events.base_types import EventMsg
    from pyspark.sql import SparkSession

    from pipelines.storage import DeltaLakeManager
    from pipelines.storage.travel.pins import Pin


class TransformError(LakehouseError):
    """dbt could not begin, or Spark failed under it; says why."""


PROJECT = PROJECT_ROOT / "dbt"
# What runs SQL; all else reads the project alone, or is refused by dbt, and needs neither a lake nor Spark.
_WITH_SESSION = {
    "build", "clone", "compile", "docs", "freshness", "retry", "run", "run-operation", "seed", "show", "snapshot",
    "source", "test",
}  # fmt: skip
_WHOLE = {"--full-refresh", "-f"}
UP_TO_DATE, WOULD_BUILD = "up to date", "would build"
_OK = {"success", "pass", "no-op", "warn", UP_TO_DATE, WOULD_BUILD}


@dataclass(frozen=True, slots=True)
class NodeResult:
    """How a model or test went: `status` is dbt's word, `message` its text, `failures` the rows that fail a test."""

    name: str
    kind: str
    status: str
    seconds: float
    message: str
    failures: int | None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with it."""
        return self.status in _OK


@dataclass(frozen=True, slots=True)
class DbtRun:
    """What a dbt command did; `lines` is what a listing command lists, `suffix` ends the names of the schemas."""

    ok: bool
    nodes: tuple[NodeResult, ...] = ()
    lines: tuple[str, ...] = ()
    suffix: str = ""

    def as_dict(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        return {"ok": self.ok, "suffix": self.suffix, "nodes": [asdict(node) for node in self.nodes]}


def run_dbt(
    arguments: Sequence[str],
    manager: DeltaLakeManager,
    folder: Path,
    *,
    as_of: Instant | None = None,
    snapshot: str | None = None,
    on_node: OnNode = lambda _name, _number, _total: None,
) -> DbtRun:
    """Run a dbt command over a lake.

    All of a run reads one version of each bronze table. With an instant or a snapshot that is the one of then, and
    models go to schemas of their own, so that what is live stays as it is.

    Args:
        arguments: as after `dbt`.
        manager: the lake.
        folder: for dbt's artifacts and logs; made if need be.
        as_of: an instant; a zoneless one is UTC.
        snapshot: the name of a snapshot of the lake; give one of the two at most.
        on_node: is told the name of each model and test before it runs, its number from 1, and how many there are.

    Raises:
        SparkUnavailableError: Java or the jars are missing, or the JVM did not start; names the fix.
        InvalidRangeError: the instant is before the lake's history.
        SnapshotError: no such snapshot.
        TransformError: dbt could not even begin: wrong arguments, or the project cannot be parsed.
    """
    with dbt_environment(folder):
        if not _needs_session(arguments):
            return _summary(
                invoke(_with_variables(arguments, suffix_of(as_of, snapshot))[0]), suffix_of(as_of, snapshot)
            )
        given, ready = prepare(arguments, manager, as_of=as_of, snapshot=snapshot)
        return ready.run(given, on_node)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run before Spark is started: the project is read, the versions of bronze are chosen."""

    manager: DeltaLakeManager
    pins: Mapping[str, Pin]
    project: Project
    planner: Planner
    variables: Sequence[str]
    suffix: str

    def listed(self, select: Sequence[str]) -> set[str]:
        """Return the names of the models that dbt selects by some words, with what they are made from.

        Raises:
            TransformError: dbt does not take the words.
        """
        chosen = ["--select", *(f"+{word}" for words in select for word in words.split())] if select else []
        arguments = ["--quiet", "ls", "--resource-type", "model", "--output", "name", *chosen, *self.variables]
        with redirect_stdout(StringIO()):
            found = invoke(arguments, self.project.manifest).result
        return set(map(str, found)) if isinstance(found, list) else set()

    def run(self, arguments: Sequence[str], on_node: OnNode) -> DbtRun:
        """Run a dbt command, variables included, in a session whose catalog knows the lake.

        Raises:
            SparkUnavailableError: Java or the jars are missing, or the JVM did not start; names the fix.
            TransformError: dbt could not even begin, or the JVM ended; what was made till then stays.
        """
        spark = self.manager.spark()
        try:
            return self._run(spark, arguments, on_node)
        except spark_errors() as error:
            raise TransformError(f"{explain(error, 'dbt')}. Another run goes on from what is made") from error

    def _run(self, spark: SparkSession, arguments: Sequence[str], on_node: OnNode) -> DbtRun:
        manifest = self.project.manifest
        fill(spark, self.manager, self.pins, self.suffix)
        register(spark)
        # Views live in the catalog of this process alone, so that each run has to make those it does not select too.
        invoke(["--quiet", "run", "--select", *self.planner.views(), *self.variables], manifest)
        # On its way out it fails if the JVM is gone, of which dbt only knows that its nodes have failed.
        with telling(spark, self.planner, on_node, whole=bool(_WHOLE & set(arguments))) as teller:
            done = invoke(arguments, manifest, teller)
        return _summary(done, self.suffix)


def prepare(
    arguments: Sequence[str], manager: DeltaLakeManager, *, as_of: Instant | None = None, snapshot: str | None = None
) -> tuple[list[str], Prepared]:
    """Read the project and choose the versions of bronze; returns the arguments as dbt takes them as well.

    Raises:
        InvalidRangeError: the instant is before the lake's history.
        SnapshotError: no such snapshot.
        TransformError: wrong variables, or the project cannot be parsed.
    """
    suffix = suffix_of(as_of, snapshot)
    given, variables = _with_variables(arguments, suffix)
    pins = _pins(manager, as_of, snapshot)
    values = json.loads(variables[1]) if variables else {}
    project = Project(parsed(variables), project_variables() | values)
    return given, Prepared(manager, pins, project, Planner(manager, pins, project), variables, suffix)


def project_variables() -> dict[str, Any]:
    """Return the variables of dbt's project with their defaults."""
    return dict(yaml.safe_load((PROJECT / "dbt_project.yml").read_text("utf-8"))["vars"])


def suffix_of(as_of: Instant | None, snapshot: str | None) -> str:
    """Return what the schemas of a point-in-time run are called after; nothing for the live ones."""
    if snapshot is not None:
        # A name may have characters that a schema's may not: two hexadecimal digits keep two such names apart.
        return "_at_" + re.sub(r"[^a-z0-9]", lambda found: f"_{ord(found[0]):02x}_", snapshot)
    if as_of is not None:
        return "_as_of_" + instant_of(as_of).strftime("%Y%m%dt%H%M%S%f").removesuffix("000000")
    return ""


def _pins(manager: DeltaLakeManager, as_of: Instant | None, snapshot: str | None) -> dict[str, Pin]:
    """Return the versions of the bronze tables that are, or were, there.

    Raises:
        InvalidRangeError: none of them was there at the instant; names one's history.
    """
    found: dict[str, Pin] = {}
    too_early: InvalidRangeError | None = None
    pinned = None if snapshot is None else manager.snapshots.get(snapshot).tables
    for table in source_tables():
        if pinned is not None and table not in pinned:
            continue
        try:
            found[table] = manager.pin(table, as_of_timestamp=as_of, snapshot=snapshot)
        except TableNotFoundError:
            continue
        except InvalidRangeError as error:
            too_early = error
    if too_early and not found:
        raise too_early
    return found


def parsed(variables: list[str]) -> Manifest:
    """Read dbt's project, with the option that gives its variables.

    Raises:
        TransformError: it cannot be read.
    """
    from dbt.contracts.graph.manifest import Manifest  # noqa: PLC0415 - slow to import

    done = invoke(["--quiet", "parse", *variables]).result
    if not isinstance(done, Manifest):
        raise TransformError("dbt cannot read the project; run `lakehouse dbt parse`")
    return done


def invoke(
    arguments: Sequence[str],
    manifest: Manifest | None = None,
    callback: Callable[[EventMsg], None] | None = None,
) -> dbtRunnerResult:
    """Call dbt in this process.

    Raises:
        LakehouseError: what a callback has raised.
        TransformError: dbt could not even begin.
    """
    from dbt.cli.main import dbtRunner  # noqa: PLC0415 - slow to import
    from dbt_common.events.event_manager_client import cleanup_event_logger  # noqa: PLC0415

    try:
        done = dbtRunner(manifest, [callback] if callback else None).invoke(list(arguments))
    finally:
        # Its loggers keep the stdout of now, which may be closed by the time dbt is next asked anything.
        cleanup_event_logger()
    if isinstance(done.exception, LakehouseError | KeyboardInterrupt):
        raise done.exception
    if done.exception is not None:
        command = next(word for word in arguments if not word.startswith("-"))
        raise TransformError(f"dbt {command}: {str(done.exception).strip()}") from done.exception
    return done


def _summary(done: dbtRunnerResult, suffix: str) -> DbtRun:
    results = getattr(done.result, "results", None) or ()
    nodes = tuple(_node(each) for each in results if hasattr(each, "node") and hasattr(each, "status"))
    lines = tuple(map(str, done.result)) if isinstance(done.result, list) else ()
    return DbtRun(done.success, nodes, lines, suffix)


def _node(result: Any) -> NodeResult:  # noqa: ANN401 - dbt's own
    return NodeResult(
        name=result.node.name,
        kind=str(result.node.resource_type),
        status=str(result.status),
        seconds=round(result.execution_time, 2),
        message=str(result.message or ""),
        failures=result.failures,
    )


def _needs_session(arguments: Sequence[str]) -> bool:
    """Say whether a command runs SQL; help and wrong commands do not get that far either."""
    words = [argument for argument in arguments if not argument.startswith("-")]
    return bool(_WITH_SESSION & set(words)) and not {"--help", "-h", "--version"} & set(arguments)


def _with_variables(arguments: Sequence[str], suffix: str) -> tuple[list[str], list[str]]:
    """Return the arguments with the suffix among the variables, and the option that gives the variables by itself.

    Raises:
        TransformError: `--vars` is not a YAML mapping.
    """
    rest, texts, words = list[str](), list[str](), iter(arguments)
    for word in words:
        if word == "--vars":
            texts.append(next(words, ""))
        elif word.startswith("--vars="):
            texts.append(word.partition("=")[2])
        else:
            rest.append(word)
    values: dict[str, Any] = {}
    for text in texts:
        try:
            values |= yaml.safe_load(text)
        except (yaml.YAMLError, TypeError, ValueError):
            raise TransformError(f"--vars takes a YAML mapping, as '{{key: value}}', not {text!r}") from None
    if suffix:
        values["schema_suffix"] = suffix
    option = ["--vars", json.dumps(values, sort_keys=True)] if values else []
    return [*rest, *option], option


@contextmanager
def dbt_environment(folder: Path) -> Iterator[None]:
    """Lead dbt to the project, and what it writes out of the checkout; put the environment back afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {
        "DBT_PROJECT_DIR": str(PROJECT),
        "DBT_PROFILES_DIR": str(PROJECT),
        "DBT_TARGET_PATH": str(folder / "target"),
        "DBT_LOG_PATH": str(folder / "logs"),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "LAKEHOUSE_DBT_SESSION": "prepared",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
