"""What a model has to do in a run, found out right before it starts: from the logs alone, not from clocks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pipelines.contracts import contract_for
from pipelines.transform.extent import (
    NOTHING,
    Series,
    Since,
    all_series,
    assets_from,
    by_asset,
    either,
    just_before,
    series_from,
)
from pipelines.transform.functions import FUNCTIONS
from pipelines.transform.indicators import STATE_BARS, ddl
from pipelines.transform.marks import NOT_THERE, Mark, Versions, oldest, parse_mark

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest
    from dbt.contracts.graph.nodes import ModelNode

    from pipelines.storage import DeltaLakeManager
    from pipelines.storage.travel.pins import Pin


ENRICHED = "market_data_enriched"
# What the stored rows are called in a merge, and how far apart rows of an asset's multi-timeframe analysis are.
KEPT = "kept."
CLOCK = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a model is told.

    Attributes:
        location: where the table lies, as Spark takes it.
        mark: goes into every commit of the model.
        rebuild: the table has to be made as a whole.
        source: condition of the rows to read.
        rows: condition of the rows to make, and `kept` the same of the stored ones, as a merge calls them.
        before: condition of the stored rows to go on from.
    """

    location: str
    mark: str
    rebuild: bool = True
    source: str = NOTHING
    rows: str = NOTHING
    kept: str = NOTHING
    before: str = NOTHING

    def told(self) -> dict[str, str]:
        """Return what the macro `told` answers, by name."""
        return {
            "location": self.location,
            "rebuild": str(self.rebuild).lower(),
            "source": self.source,
            "rows": self.rows,
            "kept": self.kept,
            "before": self.before,
            "state_bars": str(STATE_BARS),
            "computed": ddl(),
        }


class Planner:
    """Plans the models of one run over one lake."""

    def __init__(self, manager: DeltaLakeManager, pins: Mapping[str, Pin], manifest: Manifest, variables: str) -> None:
        """Plan over one lake.

        Args:
            manager: the lake.
            pins: the versions of bronze that the run reads; tables that are not there are left out.
            manifest: what dbt knows of the project.
            variables: what dbt's variables are, in some form: with others the models are others.
        """
        self._manager = manager
        self._pins = pins
        self._manifest = manifest
        self._variables = variables

    def plan(self, unique_id: str) -> Plan | None:
        """Return what the model has to do now, after all it is made from; None if it is not a table.

        A model's `meta.grain` says what of it a change makes anew: a `series` of bars or an `asset` from the change on,
        or else the `whole`.

        Raises:
            StorageError: a log cannot be read.
        """
        node = self._model(unique_id)
        if node is None or _is_view(node):
            return None
        definition, bronze = self._definition(node), self._seen_by(node)
        # What does not know where it comes from is made anew the next time.
        mark = "" if bronze is None else Mark(definition, bronze).text()
        layer, stored = self._manager.layer(node.schema), self._stored(node)
        anew = Plan(layer.spark_uri(node.alias), mark)
        same = bronze is not None and stored is not None and stored.definition == definition
        since = self._since(stored.bronze, bronze) if same and stored and bronze else None
        if since is None:
            return anew
        return self._part(node, anew, since) if since else replace(anew, rebuild=False)

    def views(self) -> list[str]:
        """Return the names of the views that can be made already: all tables that they read are there."""
        there: dict[str, list[str]] = {}

        def readable(node: ModelNode) -> bool:
            parents = [model for name in node.depends_on.nodes if (model := self._model(name))]
            return all(readable(each) if _is_view(each) else is_there(each) for each in parents)

        def is_there(node: ModelNode) -> bool:
            if node.schema not in there:
                there[node.schema] = self._manager.layer(node.schema).names()
            return node.alias in there[node.schema]

        models = filter(None, map(self._model, self._manifest.nodes))
        return [node.name for node in models if node.config.materialized == "view" and readable(node)]

    def _part(self, node: ModelNode, anew: Plan, since: Since) -> Plan:
        """Return what to make of a model of which a part will do, else the plan to make it anew."""
        grain = node.config.meta.get("grain")
        if grain == "series":
            return replace(
                anew,
                rebuild=False,
                source=series_from(since, asset_column="partition_asset_pair"),
                rows=series_from(since),
                kept=series_from(since, KEPT),
                before=just_before(since, self._manager.layer(node.schema).files(node.alias), STATE_BARS),
            )
        if grain == "asset":
            assets = by_asset(since, CLOCK)
            return replace(
                anew,
                rebuild=False,
                source=self._bars_for(node, all_series(assets)),
                rows=assets_from(assets),
                kept=assets_from(assets, KEPT),
            )
        return anew

    def _bars_for(self, node: ModelNode, since: Since) -> str:
        """Return the condition of the bars that say what was known from some instants on.

        The last bar that opened before an instant may close after it; the one before that has closed.
        """
        bars = next(model for name in node.depends_on.nodes if (model := self._model(name)) and model.alias == ENRICHED)
        files = self._manager.layer(bars.schema).files(bars.alias)
        return either(series_from(since), just_before(since, files, 2))

    def _model(self, unique_id: str) -> ModelNode | None:
        from dbt.contracts.graph.nodes import ModelNode  # noqa: PLC0415 - dbt is slow to import

        node = self._manifest.nodes.get(unique_id)
        return node if isinstance(node, ModelNode) else None

    def _stored(self, node: ModelNode) -> Mark | None:
        layer = self._manager.layer(node.schema)
        return parse_mark(layer.made_by(node.alias)) if node.alias in layer.names() else None

    def _seen_by(self, node: ModelNode) -> Versions | None:
        """Return the versions of bronze that what the model reads has seen, as it is at this moment."""
        return oldest(self._read_by(node))

    def _read_by(self, node: ModelNode) -> Iterator[Versions | None]:
        for unique_id in node.depends_on.nodes:
            if source := self._manifest.sources.get(unique_id):
                pin = self._pins.get(source.identifier)
                yield {source.identifier: NOT_THERE if pin is None else (pin.table_id, pin.version)}
            elif model := self._model(unique_id):
                if _is_view(model):
                    yield self._seen_by(model)
                else:
                    stored = self._stored(model)
                    yield None if stored is None else stored.bronze

    def _since(self, known: Versions, now: Versions) -> Mapping[Series, datetime] | None:
        """Return from when on each series has changed between two states of bronze; None if that cannot be told."""
        found: dict[Series, datetime] = {}
        if known.keys() != now.keys():
            return None
        for table, (identity, version) in now.items():
            if (identity, version) == known[table]:
                continue
            timeframe = contract_for(table).timeframe_of(table)
            same = known[table] == NOT_THERE or (identity == known[table][0] and version > known[table][1])
            changed = self._manager.changed_between(table, known[table][1], version) if same else None
            if changed is None or (changed and timeframe is None):
                return None
            if timeframe is not None:
                found |= {Series(timeframe, asset): start for asset, start in changed.items() if asset is not None}
        return found

    def _definition(self, node: ModelNode) -> str:
        """Return a digest of all that says what the model's rows are: its SQL, that of its views, macros, functions."""
        found = hashlib.sha256(self._variables.encode())
        for text in sorted(set(self._texts(node))):
            found.update(text.encode() + b"\0")
        return found.hexdigest()

    def _texts(self, node: ModelNode) -> Iterator[str]:
        yield node.raw_code
        for name, function in FUNCTIONS.items():
            if name in node.raw_code:
                yield function.digest()
        for unique_id in node.depends_on.macros:
            macro = self._manifest.macros[unique_id]
            if macro.package_name == node.package_name:
                yield macro.macro_sql
        for unique_id in node.depends_on.nodes:
            if (model := self._model(unique_id)) and _is_view(model):
                yield from self._texts(model)


def _is_view(node: ModelNode) -> bool:
    return node.config.materialized in {"view", "ephemeral"}
