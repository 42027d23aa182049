"""One version of a table, held for the length of a run, and what has changed between two of them. No JVM."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any

from deltalake.exceptions import DeltaError

from pipelines.contracts import PARTITION_DATE, PARTITION_PREFIX
from pipelines.errors import StorageError
from pipelines.storage.files import file_actions, rows_of, store_of
from pipelines.storage.recovery.undone import UNDOING
from pipelines.storage.scan import execute, literal, physical_schema, quoted
from pipelines.storage.travel.moments import Moment, open_at
from pipelines.timeframes import EPOCH, parse_instant

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

    from pipelines.contracts import Contract
    from pipelines.storage.lake import Lake

_ASSET = PARTITION_PREFIX + "asset_pair"
_BY_ASSET = f"partition.{_ASSET}"


@dataclass(frozen=True, slots=True)
class Pin:
    """A version of a table that was not made anew in between, as `table_id` tells.

    `address` is where Spark finds it, `columns` are those it has, `ingested_by` (aware UTC) leaves out later rows, and
    `files` is what the log says of its files.
    """

    table_id: str
    version: int
    address: str
    columns: tuple[str, ...]
    ingested_by: datetime | None
    files: pa.Table = field(repr=False, compare=False)

    @property
    def rows(self) -> int:
        """How many rows the log tells of."""
        return rows_of(self.files)

    @property
    def assets(self) -> frozenset[str]:
        """Of which asset pairs it has rows; none where these do not partition the table."""
        known = _BY_ASSET in self.files.column_names
        return frozenset(self.files[_BY_ASSET].to_pylist() if known else ()) - {None}

    def rows_since(self, since: Mapping[str, datetime], event_time: str) -> int:
        """Return at most how many rows there are at or after each asset pair's instant (aware UTC), by their files."""
        newest = f"max.{event_time}"
        if not since or not {_BY_ASSET, newest} <= set(self.files.column_names):
            return self.rows if since else 0
        columns = (self.files[name].to_pylist() for name in (_BY_ASSET, newest, "num_records"))
        return sum(
            rows or 0
            for asset, last, rows in zip(*columns, strict=True)
            if asset in since and (last is None or last >= since[asset])
        )


def pin(lake: Lake, table_name: str, when: Moment) -> Pin:
    """Return the version of a table at a moment; errors are those of `open_at`."""
    view = open_at(lake, table_name, when)
    return Pin(
        table_id=str(view.table.metadata().id),
        version=view.table.version(),
        address=lake.root.spark_uri(table_name),
        columns=tuple(physical_schema(view.table).names),
        ingested_by=view.ingested_by,
        files=file_actions(view.table),
    )


def changed_between(
    lake: Lake, table_name: str, contract: Contract, since: int, until: int
) -> Mapping[str | None, datetime] | None:
    """Return from when on an asset's rows may differ between two versions, from the log alone.

    Clocks do not matter: what was committed in between is what changed, whatever its `ingested_at` says. Compaction
    changes nothing. A restore or a repair counts as a change of all that it touches. Where a record's key says nothing
    of its time, all instants count that it has had.

    Args:
        lake: the lake.
        table_name: the table.
        contract: its contract.
        since: the version that is known.
        until: the version to come to, not before `since`.

    Returns:
        The earliest event time (aware UTC, at or before the first changed row) by asset pair, None being the key of
        rows without one; None if the log does not tell.

    Raises:
        StorageError: the log cannot be read.
    """
    found: dict[str | None, datetime] = {}
    moves = contract.event_time not in contract.keys
    for version in range(since + 1, until + 1):
        actions = _commit(lake, table_name, version)
        # Of what is gone nobody knows when else it has been.
        if actions is None or (moves and any(_changes_data(action.get("remove")) for action in actions)):
            return None
        for asset, start in _touched(actions, contract.event_time):
            found[asset] = min(start, found.get(asset, start))
    return _with_earlier(lake.open(table_name, until), contract, found) if moves and None not in found else found


def _with_earlier(
    table: DeltaTable, contract: Contract, found: Mapping[Any, datetime]
) -> Mapping[str | None, datetime]:
    """Return the same with the instants at which records of the changed stretches have been before."""
    time, keys = quoted(str(contract.event_time)), [quoted(name) for name in contract.keys if name != "provider"]
    stretches = " OR ".join(f"asset_pair = {literal(asset)} AND {time} >= {literal(at)}" for asset, at in found.items())
    if not stretches:
        return found
    named = ", ".join(keys)
    rows = execute(
        table,
        f"SELECT asset_pair, min({time}) AS earliest FROM source WHERE ({named}) IN "  # noqa: S608 - quoted, literals
        f"(SELECT {named} FROM source WHERE {stretches}) GROUP BY asset_pair",
    )
    earlier = zip(rows["asset_pair"].to_pylist(), rows["earliest"].to_pylist(), strict=True)
    return {**found, **{asset: min(at, found.get(asset, at)) for asset, at in earlier}}


def _changes_data(file: Mapping[str, Any] | None) -> bool:
    return file is not None and bool(file.get("dataChange", True))


def _commit(lake: Lake, table_name: str, version: int) -> list[dict[str, Any]] | None:
    try:
        with store_of(table_name, lake.root).open_input_stream(f"_delta_log/{version:020}.json") as stream:
            return [json.loads(line) for line in stream.read().splitlines() if line]
    except FileNotFoundError:
        return None
    except (DeltaError, OSError) as error:
        raise StorageError(f"cannot read version {version} of the log of {table_name}: {error}") from error


def _touched(actions: list[dict[str, Any]], event_time: str | None) -> Iterator[tuple[str | None, datetime]]:
    # These may say of files that they change no data.
    undoing = any(action.get("commitInfo", {}).get("operation") in UNDOING for action in actions)
    for action in actions:
        for kind in ("add", "remove"):
            if (file := action.get(kind)) and (undoing or file.get("dataChange", True)):
                yield (file.get("partitionValues") or {}).get(_ASSET), _earliest(file, event_time)


def _earliest(file: Mapping[str, Any], event_time: str | None) -> datetime:
    """Return the earliest event time a file can hold: by its statistics, else by its partition, else any."""
    statistics = json.loads(file.get("stats") or "{}")
    least = statistics.get("minValues", {}).get(event_time)
    if least is not None:
        return parse_instant(least)
    day = (file.get("partitionValues") or {}).get(PARTITION_DATE)
    return datetime.combine(date.fromisoformat(day), time(), UTC) if day else EPOCH
