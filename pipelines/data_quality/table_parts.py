"""A table cut into parts that fit into memory: assets together while they are small, a large one by months."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipelines.contracts import Contract
from pipelines.storage.scan import literal, quoted

if TYPE_CHECKING:
    from pipelines.storage import DeltaLakeManager
    from pipelines.storage.scan import Selection

_ASSET = "asset_pair"


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of some assets (all: None) with event time in [start, end), aware UTC; None is unbounded.

    `newest` says that no later part has rows of these assets.
    """

    rows: int
    assets: tuple[str, ...] | None = None
    start: datetime | None = None
    end: datetime | None = None
    newest: bool = True


@dataclass(frozen=True, slots=True)
class _Month:
    asset: str | None
    start: datetime | None
    rows: int


def parts_of(
    manager: DeltaLakeManager, table_name: str, contract: Contract, wanted: Selection, version: int, most_rows: int
) -> list[Part]:
    """Return the parts of a selection; all versions of a bar, and all bars of a month of a series, are in one part.

    Args:
        manager: the lake.
        table_name: a table of the lake.
        contract: the table's contract.
        wanted: assets and range.
        version: which version of the table is counted.
        most_rows: rows in a part; more only where a single month of an asset has more.
    """
    months = _months(manager, table_name, contract, wanted, version)
    parts: list[Part] = []
    small: list[list[_Month]] = []
    for series in _by_asset(months):
        rows = sum(month.rows for month in series)
        if rows > most_rows:
            parts += _cut(series, wanted, most_rows)
            continue
        if sum(month.rows for each in small for month in each) + rows > most_rows:
            parts.append(_together(small, wanted))
            small = []
        small.append(series)
    return [*parts, _together(small, wanted)] if small else parts


def _months(
    manager: DeltaLakeManager, table_name: str, contract: Contract, wanted: Selection, version: int
) -> list[_Month]:
    """Count rows by asset and month."""
    names = contract.arrow_schema.names
    asset = quoted(_ASSET) if _ASSET in names else "NULL"
    month = f"date_trunc('month', {quoted(contract.event_time)})" if contract.event_time else "NULL"
    where = list(_conditions(contract, wanted))
    sql = (
        f"SELECT {asset} AS asset, {month} AS start, count(*) AS rows FROM {quoted(table_name)}"  # noqa: S608 - checked
        + (f" WHERE {' AND '.join(where)}" if where else "")
        + " GROUP BY 1, 2 ORDER BY 1, 2"
    )
    counted = manager.query(sql, version=version).to_pylist()
    return [_Month(row["asset"], _utc(row["start"]), row["rows"]) for row in counted]


def _conditions(contract: Contract, wanted: Selection) -> Iterator[str]:
    if wanted.start is not None:
        yield f"{quoted(contract.event_time or '')} >= {literal(wanted.start)}"
    if wanted.end is not None:
        yield f"{quoted(contract.event_time or '')} < {literal(wanted.end)}"
    if wanted.assets is not None:
        yield f"{quoted(_ASSET)} IN ({', '.join(map(literal, wanted.assets)) or 'NULL'})"


def _utc(when: datetime | None) -> datetime | None:
    return when if when is None or when.tzinfo else when.replace(tzinfo=UTC)


def _by_asset(months: Sequence[_Month]) -> Iterator[list[_Month]]:
    found: dict[str | None, list[_Month]] = {}
    for month in months:
        found.setdefault(month.asset, []).append(month)
    yield from found.values()


def _together(series: Sequence[Sequence[_Month]], wanted: Selection) -> Part:
    months = [month for each in series for month in each]
    return Part(sum(month.rows for month in months), _assets(months), wanted.start, wanted.end)


def _cut(series: Sequence[_Month], wanted: Selection, most_rows: int) -> Iterator[Part]:
    """Cut an asset's months into runs."""
    runs: list[list[_Month]] = [[]]
    for month in series:
        if runs[-1] and sum(each.rows for each in runs[-1]) + month.rows > most_rows:
            runs.append([])
        runs[-1].append(month)
    for place, run in enumerate(runs):
        last = place == len(runs) - 1
        start = run[0].start if place else wanted.start
        end = wanted.end if last else runs[place + 1][0].start
        yield Part(sum(each.rows for each in run), _assets(run), start, end, newest=last)


def _assets(months: Sequence[_Month]) -> tuple[str, ...] | None:
    names = tuple(dict.fromkeys(month.asset for month in months if month.asset is not None))
    return names or None
