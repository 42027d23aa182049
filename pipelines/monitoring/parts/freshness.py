"""How fresh each series of bars is: by its newest bar, and by what its trading calendar owes by now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
from prometheus_client.core import Metric

from pipelines.contracts import load_contracts
from pipelines.data_quality.freshness import close_owed
from pipelines.errors import LakehouseError
from pipelines.instruments import load_registry
from pipelines.monitoring.lake_tables import LookedAt
from pipelines.monitoring.parts.base import Look, gauge
from pipelines.sources.base import MARKET_DATA
from pipelines.timeframes import Timeframe

_LABELS = ("asset_pair", "timeframe")
_ASSET, _NEWEST = "partition.partition_asset_pair", "max.timestamp"


class Freshness:
    """One sample a series, from the statistics in the tables' logs."""

    name = "freshness"

    def collect(self, look: Look) -> Iterable[Metric]:
        """Return the families of freshness."""
        newest = gauge("pipeline_newest_bar_timestamp_seconds", "Close of a series' newest bar.", _LABELS)
        age = gauge("pipeline_data_freshness_seconds", "From the close of a series' newest bar to now.", _LABELS)
        late = gauge(
            "pipeline_data_overdue_seconds",
            "By how much a series lacks bars that its trading calendar and its contract's latency owe by now.",
            _LABELS,
        )
        for timeframe in Timeframe:
            table = look.tables.get(load_contracts()[MARKET_DATA].table_for(timeframe))
            for pair, opened in sorted(_newest(table).items()) if table else ():
                closed, labels = opened + timeframe.step, (pair, timeframe.value)
                newest.add_metric(labels, closed.timestamp())
                age.add_metric(labels, (look.now - closed).total_seconds())
                try:
                    late.add_metric(labels, _overdue(pair, timeframe, closed, look.now).total_seconds())
                except LakehouseError as error:
                    look.problem(f"{pair} {timeframe.value}", error)
        return newest, age, late


def _overdue(pair: str, timeframe: Timeframe, closed: datetime, now: datetime) -> timedelta:
    owed = close_owed(load_registry().resolve(pair), timeframe, now)
    return max(timedelta(), owed - closed) if owed else timedelta()


def _newest(table: LookedAt) -> Mapping[str, datetime]:
    """Return the open of each asset pair's newest bar."""
    actions = table.actions
    told = {_ASSET, _NEWEST} <= set(actions.column_names)
    # What another program wrote may lack statistics.
    if not told or pc.any(pc.is_null(actions[_NEWEST])).as_py():
        rows = table.query("SELECT asset_pair, max(timestamp) FROM source GROUP BY 1")
        pairs, instants = rows.columns
    else:
        rows = actions.select([_ASSET, _NEWEST]).group_by(_ASSET).aggregate([(_NEWEST, "max")])
        pairs, instants = rows[_ASSET], rows[f"{_NEWEST}_max"]
    known = zip(pairs.cast(pa.string()).to_pylist(), instants.to_pylist(), strict=True)
    return {pair: each.astimezone(UTC) for pair, each in known if pair is not None and each is not None}
