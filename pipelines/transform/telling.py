"""Tells each model and test of a run, right before it runs, what it has to do: dbt asks for it by SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipelines.session import INTERPRETED
from pipelines.transform.extent import EVERYTHING
from pipelines.transform.plan import Plan, Planner

if TYPE_CHECKING:
    from dbt_common.events.base_types import EventMsg
    from pyspark.sql import SparkSession

# Is told a node's name, its number from 1 on, and how many there are, before it runs.
OnNode = Callable[[str, int, int], None]

_MARK = "spark.databricks.delta.commitInfo.userMetadata"
# A run that finds no rows in what has changed leaves its mark all the same.
_ALWAYS_COMMIT = {"spark.databricks.delta.skipRecordingEmptyCommits": "false"}
# A node that looks at up to so many rows is interpreted.
_FEW_ROWS = 500_000
_TOLD = "lakehouse.dbt."
_NOTHING = dict.fromkeys([*Plan("", "").told(), "tested"], "")


class Teller:
    """Listens to dbt's events; what goes wrong here fails the node, and is raised when dbt has ended."""

    def __init__(self, spark: SparkSession, planner: Planner, on_node: OnNode, *, whole: bool) -> None:
        self._spark = spark
        self._planner = planner
        self._on_node = on_node
        self._whole = whole
        self._compiled = {name: str(spark.conf.get(name)) for name in INTERPRETED}
        self.wrong: list[Exception] = []

    def __call__(self, event: EventMsg) -> None:
        """Take an event of dbt's."""
        # An exception would end dbt's worker thread, for which dbt would wait for ever.
        try:
            self._take(event)
        except Exception as error:  # noqa: BLE001 - whatever it is
            self.wrong.append(error)

    def _take(self, event: EventMsg) -> None:
        if event.info.name == "LogStartLine":
            self._on_node(event.data.node_info.node_name, event.data.index, event.data.total)
        if event.info.name != "NodeStart":
            return
        # Of the node before nothing may be left, should there be no plan: a model that is told nothing fails.
        _set(self._spark, {_MARK: "", **_named(_NOTHING)})
        unique_id = event.data.node_info.unique_id
        tested = EVERYTHING if self._whole else self._planner.tested(unique_id)
        plan = self._planner.plan(unique_id)
        told = {} if plan is None else {_MARK: plan.mark, **_named(plan.told())}
        few = self._planner.reads(unique_id, whole=self._whole) <= _FEW_ROWS
        _set(self._spark, {**told, _TOLD + "tested": tested, **(INTERPRETED if few else self._compiled)})


@contextmanager
def telling(spark: SparkSession, planner: Planner, on_node: OnNode, *, whole: bool) -> Iterator[Teller]:
    """Prepare a session for telling, and leave nothing told behind.

    Args:
        spark: the session.
        planner: knows what there is to be done.
        on_node: is told of each model and test before it runs.
        whole: tables are made anew, whatever their plans say.

    Raises:
        Exception: what went wrong in planning, once dbt has ended.
    """
    teller = Teller(spark, planner, on_node, whole=whole)
    before = {name: str(spark.conf.get(name)) for name in [*_ALWAYS_COMMIT, *INTERPRETED]}
    _set(spark, _ALWAYS_COMMIT)
    try:
        yield teller
    finally:
        _set(spark, before | dict.fromkeys([_MARK, *_named(_NOTHING)], ""))
    if teller.wrong:
        raise teller.wrong[0]


def _named(told: dict[str, str]) -> dict[str, str]:
    return {_TOLD + name: value for name, value in told.items()}


def _set(spark: SparkSession, values: dict[str, str]) -> None:
    for name, value in values.items():
        if value:
            spark.conf.set(name, value)
        else:
            spark.conf.unset(name)
