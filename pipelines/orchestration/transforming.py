"""The steps that make silver and gold, and hold them to their tests."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.config import Settings, load_settings
from pipelines.errors import ConfigError
from pipelines.lock_file import held
from pipelines.orchestration.common import MOST_NAMED, Result, StepFailedError, existing_lake
from pipelines.orchestration.cost import Stopwatch
from pipelines.wording import counted

if TYPE_CHECKING:
    from pipelines.transform.runner import DbtRun


def transform_silver(models: Sequence[str] = (), *, sample: bool = False, settings: Settings | None = None) -> Result:
    """Bring staging and silver up to date with bronze, and test them; starts no Spark where nothing is stale.

    Args:
        models: only what these are made from, and they themselves; all if none. Names, as dbt has them.
        sample: the lake of synthetic data.
        settings: those of the project otherwise.

    Returns:
        Models built and up to date, tests run, and seconds of each model that was built.

    Raises:
        StepFailedError: a model could not be made, or a test failed; names it and dbt's log.
        ConfigError: there is no such model.
        NoLakeError: there is no lake yet.
        SparkUnavailableError: Java or the jars are missing, or the JVM did not start; names the fix.
    """
    return _transform([f"silver,+{model}" for model in models] or ["silver"], sample=sample, settings=settings)


def transform_marts(models: Sequence[str] = (), *, sample: bool = False, settings: Settings | None = None) -> Result:
    """Bring gold, and what it is made from, up to date, and test it; otherwise as `transform_silver`.

    Raises:
        As `transform_silver`.
    """
    return _transform(models or ["gold"], sample=sample, settings=settings)


def check_transform(models: Sequence[str] = (), *, sample: bool = False, settings: Settings | None = None) -> Result:
    """Hold every table of silver and gold to it: its tests have passed at its present version.

    What has not passed yet is tested again, and what has changed since is made anew first.

    Raises:
        As `transform_silver`.
    """
    return _transform(models, sample=sample, settings=settings)


def _transform(select: Sequence[str], *, sample: bool, settings: Settings | None) -> Result:
    watch, settings = Stopwatch(), settings or load_settings()
    chosen, folder = existing_lake(settings, sample=sample), Path(settings.resolve(settings.transform.path))
    from pipelines.transform.build import Request, transform  # noqa: PLC0415 - dbt
    from pipelines.transform.runner import UP_TO_DATE  # noqa: PLC0415

    watch.ready()
    # As the command line gives them: other variables would make tables anew.
    variables = json.dumps(settings.transform.variables())
    request = Request(select=tuple(select), variables=variables, synthetic=chosen.synthetic)
    # Two runs at once would spoil dbt's folder for each other.
    with held(folder / ".lock"), _hushed():
        done = transform(request, chosen.manager, folder)
    if not done.nodes:
        raise ConfigError(f"no table of silver or gold is {', '.join(select)}; `lakehouse dbt ls` lists them")
    if not done.ok:
        raise _not_transformed(done, folder)
    models = [node for node in done.nodes if node.kind == "model"]
    built = {node.name: node.seconds for node in models if node.status != UP_TO_DATE}
    return {
        **chosen.as_dict(),
        "built": len(built),
        "up_to_date": len(models) - len(built),
        "tests": len(done.nodes) - len(models),
        "models": built,
        **watch.cost(),
    }


def _not_transformed(done: DbtRun, folder: Path) -> StepFailedError:
    """Say what went wrong; a failed test fails again on the same data, and trying a model again may help."""
    wrong = [node for node in done.nodes if not node.ok and node.status != "skipped"]
    named = "; ".join(f"{node.name}: {node.status}: {node.message}" for node in wrong[:MOST_NAMED])
    tests = [node.name for node in wrong if node.kind != "model"]
    again = f"`lakehouse dbt test --select {shlex.quote(tests[0])}` runs it alone; " if tests else ""
    return StepFailedError(
        f"{counted(len(wrong), 'nodes')} of silver and gold failed: {named}. {again}dbt's log: "
        f"{folder / 'logs' / 'dbt.log'}; docs/transform.md says what to do",
        retryable=len(tests) < len(wrong) or not wrong,
    )


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep what dbt prints out of the task's log; all of it is in dbt's own."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        yield
