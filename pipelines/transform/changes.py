"""What has changed in bronze since a table was made: read off the logs of bronze."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines.contracts import contract_for
from pipelines.timeframes import EPOCH
from pipelines.transform.extent import AssetsSince, Series, Since, all_series
from pipelines.transform.marks import NOT_THERE, Mark

if TYPE_CHECKING:
    from pipelines.storage import DeltaLakeManager
    from pipelines.storage.travel.pins import Pin

_NAMED = 2


@dataclass(frozen=True, slots=True)
class Changes:
    """From when on bars and other records differ between two states of bronze."""

    bars: Since = field(default_factory=dict)
    records: AssetsSince = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.bars or self.records)

    def rows(self, pins: Mapping[str, Pin]) -> int:
        """Return at most how many rows of bronze there are from the changes on."""
        found = 0
        for table, pin in pins.items():
            contract = contract_for(table)
            timeframe = contract.timeframe_of(table)
            bars = {series.asset_pair: start for series, start in self.bars.items() if series.timeframe is timeframe}
            found += pin.rows_since(self.records if timeframe is None else bars, str(contract.event_time))
        return found

    def text(self) -> str:
        """Return it for people."""
        bars = {f"{series.asset_pair} {series.timeframe.value}": start for series, start in self.bars.items()}
        first = sorted((bars | dict(self.records)).items(), key=lambda each: each[1])
        named = ", ".join(f"{name} from {start:%Y-%m-%d %H:%M}" for name, start in first[:_NAMED])
        return f"changed: {named}{f' and {len(first) - _NAMED} more' if len(first) > _NAMED else ''}"


def changes_between(manager: DeltaLakeManager, known: Mark, now: Mark) -> Changes | None:
    """Return what has changed between two states of bronze and of the registry; None if that cannot be told.

    Raises:
        StorageError: a log cannot be read.
    """
    if known.bronze.keys() != now.bronze.keys():
        return None
    # Other facts of an asset are as good as other bars from the beginning on.
    others = {asset: EPOCH for asset, digest in known.facts.items() if now.facts.get(asset, digest) != digest}
    bars: dict[Series, datetime] = dict(all_series(others))
    records: dict[str, datetime] = {}
    for table, (identity, version) in now.bronze.items():
        before = known.bronze[table]
        if (identity, version) == before:
            continue
        timeframe = contract_for(table).timeframe_of(table)
        same = before == NOT_THERE or (identity == before[0] and version > before[1])
        changed = manager.changed_between(table, before[1], version) if same else None
        if changed is None or None in changed:
            return None
        for asset, start in changed.items():
            if timeframe is None:
                records[str(asset)] = min(start, records.get(str(asset), start))
            else:
                series = Series(timeframe, str(asset))
                bars[series] = min(start, bars.get(series, start))
    return Changes(bars, records)
