"""What a model has to do in a run, found out right before it starts: from the logs alone, not from clocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from pipelines.timeframes import Timeframe
from pipelines.transform.changes import Changes, changes_between
from pipelines.transform.extent import (
    EVERYTHING,
    NOTHING,
    all_series,
    assets_before,
    assets_from,
    by_asset,
    days_from,
    either,
    series_before,
    series_from,
    within,
)
from pipelines.transform.facts import facts_of
from pipelines.transform.indicators import STATE_BARS, ddl
from pipelines.transform.marks import NOT_THERE, Facts, Mark, Versions, oldest, parse_mark
from pipelines.transform.project import Project, is_view

if TYPE_CHECKING:
    import pyarrow as pa
    from dbt.contracts.graph.nodes import ModelNode

    from pipelines.storage import DeltaLakeManager
    from pipelines.storage.layers import Stretch
    from pipelines.storage.travel.pins import Pin
    from pipelines.transform.project import TestNode

_SinceT = TypeVar("_SinceT")

ENRICHED = "market_data_enriched"
PULSES = "multi_timeframe_analysis"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a model is told.

    Attributes:
        location: where the table lies, as Spark takes it.
        mark: goes into every commit of the model.
        rebuild: the table has to be made as a whole.
        source: condition of the bars to read.
        pulses: condition of the rows of the multi-timeframe analysis to read.
        rows: condition of the rows to make, and of the stored ones that go.
        before: condition of the stored rows to go on from.
        reads: at most how many rows that is, but for those to go on from.
        why: what made it necessary, for people.
        redefined: the table is not there, or was made by the model as it once was.
    """

    location: str
    mark: str
    rebuild: bool = True
    source: str = NOTHING
    pulses: str = NOTHING
    rows: str = NOTHING
    before: str = NOTHING
    reads: int = 0
    why: str = ""
    redefined: bool = False

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.rebuild and self.rows == NOTHING

    def told(self) -> dict[str, str]:
        """Return what the macro `told` answers, by name."""
        return {
            "location": self.location,
            "rebuild": str(self.rebuild).lower(),
            "source": self.source,
            "pulses": self.pulses,
            "rows": self.rows,
            "before": self.before,
            "state_bars": str(STATE_BARS),
            "computed": ddl(),
        }


class Planner:
    """Plans the models of one run over one lake."""

    def __init__(self, manager: DeltaLakeManager, pins: Mapping[str, Pin], project: Project) -> None:
        """Plan over one lake.

        Args:
            manager: the lake.
            pins: the versions of bronze that the run reads; tables that are not there are left out.
            project: dbt's models.
        """
        self._manager = manager
        self._pins = pins
        self._project = project
        self._plans: dict[str, Plan] = {}
        self._marks: dict[str, Mark | None] = {}
        self._facts = facts_of(pins)

    def plan(self, unique_id: str) -> Plan | None:
        """Return what the model has to do now, after all it is made from; None if it is not a table.

        A model's `meta.grain` says what of it a change makes anew: a `series` of bars from the change on; an `asset`
        from the beginning of the `meta.clock` of the change on; every `day` from the first change of bars of its
        `meta.timeframe` on; or else the `whole`.

        Raises:
            StorageError: a log cannot be read.
        """
        node = self._project.model(unique_id)
        if node is None or is_view(node):
            return None
        seen = self._seen_by(node)
        definition = self._project.definition(node, self._definition_stored)
        now = None if seen is None or definition is None else Mark(definition, seen, self._facts_seen_by(node))
        found = self._plan(node, now, self._part)
        self._plans[unique_id] = found
        # It is about to be written.
        self._marks.pop(unique_id, None)
        return found

    def outlook(self, node: ModelNode) -> Plan:
        """Return what a table has to do if all that it is made from is brought up to date before it.

        Of a part that it would have to make anew the plan says only that there is one.

        Raises:
            StorageError: a log cannot be read.
        """
        bronze = {table: self._present(table) for table in self._project.bronze_of(node)}
        now = Mark(self._project.expected(node), bronze, self._facts)
        return self._plan(node, now, self._some_part)

    def tested(self, unique_id: str) -> str:
        """Return the condition of the rows that a test has to look at: those of this run, or all of them."""
        node = self._project.tested_by(unique_id)
        plan = self._plans.get(node.unique_id) if node else None
        return EVERYTHING if plan is None or plan.rebuild or plan.is_idle else plan.rows

    def reads(self, unique_id: str, *, whole: bool) -> int:
        """Return at most how many rows, but for some to go on from, a model or test of this run looks at.

        Args:
            unique_id: the model or test.
            whole: tables are made anew, whatever their plans say.
        """
        model = self._project.model(unique_id)
        about = model or self._project.tested_by(unique_id)
        plan = self._plans.get(about.unique_id) if about else None
        if plan is not None and not (whole or plan.rebuild) and (model or not plan.is_idle):
            return plan.reads
        node = model or self._project.test(unique_id)
        return 0 if node is None else self._rows_below(node)

    def _rows_below(self, node: ModelNode | TestNode) -> int:
        """Return how many rows the tables have that a model or test reads."""
        made = [table for table in self._project.tables_read(node) if self._is_there(table)]
        rows = sum(self._manager.layer(table.schema).rows(table.alias) for table in made)
        return rows + sum(self._pins[table].rows for table in self._project.bronze_read(node) if table in self._pins)

    def views(self) -> list[str]:
        """Return the names of the views that can be made already: all tables that they read are there."""
        models = [node for node in self._project.models() if node.config.materialized == "view"]
        return [node.name for node in models if all(map(self._is_there, self._project.tables_read(node)))]

    def _plan(self, node: ModelNode, now: Mark | None, part: Callable[[ModelNode, Plan, Changes], Plan]) -> Plan:
        # What does not know where it comes from is made anew the next time.
        anew = Plan(self._manager.layer(node.schema).spark_uri(node.alias), "" if now is None else now.text())
        if not self._is_there(node):
            return replace(anew, why="not there yet", redefined=True)
        stored = self._stored(node)
        if stored is None or now is None:
            return replace(anew, why="not known what it was made from", redefined=True)
        if stored.definition != now.definition:
            return replace(anew, why="its definition, or that of what it is made from, has changed", redefined=True)
        changes = changes_between(self._manager, stored, now)
        if changes is None:
            return replace(anew, why="a table of bronze was replaced, or its log does not reach back")
        if not changes:
            return replace(anew, rebuild=False)
        return replace(part(node, anew, changes), why=changes.text(), reads=changes.rows(self._pins))

    def _part(self, node: ModelNode, anew: Plan, changes: Changes) -> Plan:
        """Return what to make of a model of which a part will do, else the plan to make it anew."""
        makers = {"series": self._of_series, "asset": self._of_assets, "day": self._of_days}
        maker = makers.get(node.config.meta.get("grain", ""))
        return anew if maker is None else maker(node, replace(anew, rebuild=False), changes)

    def _some_part(self, node: ModelNode, anew: Plan, changes: Changes) -> Plan:
        """Return the same without saying which part it is: what it would be read off may not be there yet."""
        grain = node.config.meta.get("grain")
        if grain == "day":
            return self._of_days(node, replace(anew, rebuild=False), changes)
        return replace(anew, rebuild=False, rows=EVERYTHING) if grain else anew

    def _of_series(self, node: ModelNode, plan: Plan, changes: Changes) -> Plan:
        return replace(
            plan,
            source=series_from(changes.bars, asset_column="partition_asset_pair"),
            rows=series_from(changes.bars),
            before=self._last_of(node, series_before, changes.bars, STATE_BARS),
        )

    def _of_assets(self, node: ModelNode, plan: Plan, changes: Changes) -> Plan:
        assets = by_asset(changes.bars, changes.records, Timeframe(node.config.meta["clock"]).step)
        read = {table.alias: table for table in self._project.tables_read(node)}
        # The last bar that opened before an instant may close after it; the one before that has closed.
        series = all_series(assets)
        bars = self._last_of(read[ENRICHED], series_before, series, 2)
        pulses = self._last_of(read[PULSES], assets_before, assets, 2) if PULSES in read else NOTHING
        return replace(
            plan,
            source=either(series_from(series), bars),
            pulses=either(assets_from(assets), pulses),
            rows=assets_from(assets),
        )

    def _last_of(
        self, node: ModelNode, stretches: Callable[[_SinceT, pa.Table, int], list[Stretch]], since: _SinceT, rows: int
    ) -> str:
        """Return the condition of the last rows of a stored table before some instants."""
        layer = self._manager.layer(node.schema)
        return within(layer.last_rows(node.alias, stretches(since, layer.files(node.alias), rows), rows))

    def _of_days(self, node: ModelNode, plan: Plan, changes: Changes) -> Plan:
        timeframe, lookback = Timeframe(node.config.meta["timeframe"]), node.config.meta["lookback_days"]
        starts = [instant for series, instant in changes.bars.items() if series.timeframe is timeframe]
        if not starts:
            return plan
        return replace(plan, source=days_from(min(starts) - timedelta(days=lookback)), rows=days_from(min(starts)))

    def _seen_by(self, node: ModelNode) -> Versions | None:
        """Return the versions of bronze that what the model reads has seen, as it is at this moment."""
        read = {table: self._present(table) for table in self._project.bronze_read(node)}
        return oldest([read, *(self._bronze_stored(table) for table in self._project.tables_read(node))])

    def _present(self, table: str) -> tuple[str, int]:
        pin = self._pins.get(table)
        return NOT_THERE if pin is None else (pin.table_id, pin.version)

    def _bronze_stored(self, node: ModelNode) -> Versions | None:
        mark = self._known_by(node)
        return None if mark is None else mark.bronze

    def _facts_seen_by(self, node: ModelNode) -> Facts:
        """Return the facts that what the model reads has seen: the present ones, but where a table has older ones."""
        found = dict(self._facts)
        for mark in map(self._known_by, self._project.tables_read(node)):
            known = {} if mark is None else mark.facts
            found |= {asset: digest for asset, digest in known.items() if self._facts.get(asset, digest) != digest}
        return found

    def _known_by(self, node: ModelNode) -> Mark | None:
        """Return what a table was made from; where no change since concerns it, what is there now."""
        plan = self._plans.get(node.unique_id)
        return parse_mark(plan.mark) if plan is not None and plan.is_idle else self._stored(node)

    def _definition_stored(self, node: ModelNode) -> str | None:
        stored = self._stored(node)
        return None if stored is None else stored.definition

    def _stored(self, node: ModelNode) -> Mark | None:
        if node.unique_id not in self._marks:
            note = self._manager.layer(node.schema).made(node.alias).note if self._is_there(node) else None
            self._marks[node.unique_id] = parse_mark(note)
        return self._marks[node.unique_id]

    def _is_there(self, node: ModelNode) -> bool:
        return self._manager.layer(node.schema).exists(node.alias)
