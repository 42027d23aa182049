"""Fewer, larger files: which partitions are rewritten, and in which order their rows lie."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from pipelines.errors import StorageError
from pipelines.storage.files import Partition, live_files, partition_columns
from pipelines.storage.results import Rewritten
from pipelines.storage.scan import checked_columns
from pipelines.storage.stores.locks import turn
from pipelines.storage.undeclared import contract_of
from pipelines.storage.upkeep.file_statistics import indexed_columns

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from pipelines.contracts import Contract
    from pipelines.storage.engines import Engine
    from pipelines.storage.lake import Lake

_CONDITION = re.compile(r"(\w+)\s*(<=|>=|!=|<>|=|<|>)\s*(?:DATE\s*)?'([A-Za-z0-9^._/:-]{1,64})'", re.IGNORECASE)
_AND = re.compile(r"\s+AND\s+", re.IGNORECASE)
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class OptimizeResult:
    """What an optimization did; `version` is the table's version after it, bytes are those of data files."""

    table: str
    version: int
    partitions: int
    files_added: int
    files_removed: int
    bytes_added: int
    bytes_removed: int


def optimize(
    lake: Lake,
    engine: Engine,
    table_name: str,
    zorder_columns: Sequence[str] | str | None = None,
    where: str | None = None,
) -> OptimizeResult:
    """Rewrite small files of a table as few large ones; rows stay as they are.

    Appends wait meanwhile, for two minutes at most. A second compaction finds nothing to do; a Z-order rewrites what it
    is given every time.

    Args:
        lake: the lake.
        engine: does the work.
        table_name: the table.
        zorder_columns: cluster rows by these, for reads that select by them; by partition columns they are anyway.
        where: only these partitions, as in `partition_date >= '2025-12-01' AND partition_asset_pair = 'BTCUSD'`.

    Raises:
        TableNotFoundError: no such table; names the nearest.
        ConcurrentWriteError: another optimization of the same files was faster.
        StorageError: a column cannot be ordered by, `where` is not such a condition, or it failed; nothing changed.
    """
    table = lake.open(table_name)
    contract = contract_of(table, table_name)
    columns = zorder_checked(table, contract, zorder_columns)
    meets = None if where is None else partition_test(where, contract)
    with turn(lake.root, table_name):
        table = lake.open(table_name)
        chosen = None if meets is None else frozenset(filter(meets, {file.partition for file in live_files(table)}))
        return rewrite(lake, engine, table_name, chosen, columns)


def rewrite(
    lake: Lake, engine: Engine, table_name: str, chosen: frozenset[Partition] | None, columns: Sequence[str] = ()
) -> OptimizeResult:
    """Let the engine rewrite the chosen partitions, all of them if None; for those who have the table's turn."""
    if chosen is not None and not chosen:
        return OptimizeResult(table_name, **asdict(Rewritten(lake.open(table_name).version())))
    return OptimizeResult(table_name, **asdict(engine.optimize(table_name, chosen, columns)))


def zorder_checked(table: DeltaTable, contract: Contract, columns: Sequence[str] | str | None) -> list[str]:
    """Return the columns to cluster by.

    Raises:
        StorageError: one does not exist, is a partition column, or has no statistics that reads could skip files by.
    """
    names = [columns] if isinstance(columns, str) else list(dict.fromkeys(columns or ()))
    checked_columns([column.name for column in contract.columns], names, contract.id)
    partitions = [name for name in names if name in partition_columns(table)]
    if partitions:
        raise StorageError(
            f"{', '.join(partitions)}: a file holds one value of a partition column, so there is nothing to order by; "
            "give other columns, for example asset_pair and timestamp"
        )
    indexed = indexed_columns(table)
    blind = [name for name in names if name not in indexed]
    if blind:
        raise StorageError(
            f"{contract.id} keeps no statistics on {', '.join(blind)}, so ordering by it would skip no file; "
            f"order by some of {','.join(indexed)}"
        )
    return names


def partition_test(where: str, contract: Contract) -> Callable[[Partition], bool]:
    """Return a test of partitions from a condition; no text of the caller ever becomes SQL.

    Raises:
        StorageError: it is anything but comparisons of partition columns with quoted values, joined by AND.
    """
    comparisons = [_comparison(part, contract) for part in _AND.split(where.strip())]
    return lambda partition: all(meets(partition) for meets in comparisons)


def _comparison(text: str, contract: Contract) -> Callable[[Partition], bool]:
    known = ", ".join(contract.partition_columns) or "none"
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise StorageError(
            f"cannot read the partition condition {text!r}; write comparisons joined by AND, for example "
            f"partition_date >= '2025-12-01' (partition columns: {known})"
        )
    name, sign, value = found.groups()
    if name not in contract.partition_columns:
        raise StorageError(f"{name} is not a partition column of {contract.id}; it has {known}")
    place, compare, typed = contract.partition_columns.index(name), _OPERATORS[sign], _typed(name, contract)
    wanted = typed(value)

    def meets(partition: Partition) -> bool:
        present = partition[place]
        return present is not None and compare(typed(present), wanted)

    return meets


def _typed(name: str, contract: Contract) -> Callable[[str], object]:
    kind = contract.column(name).type

    def read(value: str) -> object:
        try:
            if kind == "date":
                return date.fromisoformat(value)
            return int(value) if kind in {"bigint", "int", "smallint", "tinyint"} else value
        except ValueError:
            example = "2025-12-01" if kind == "date" else "42"
            raise StorageError(f"{name} is a {kind} and {value!r} is none; write for example '{example}'") from None

    return read


def partition_sql(columns: Sequence[str], chosen: Iterable[Partition]) -> str:
    """Return Spark SQL that is true for the chosen partitions: for each value of the last columns, the first ones'."""
    groups: dict[Partition, list[str | None]] = {}
    for first, *rest in sorted(chosen, key=str):
        groups.setdefault(tuple(rest), []).append(first)
    parts = []
    for shared, firsts in groups.items():
        conditions = [_among(columns[0], firsts), *[_among(c, [v]) for c, v in zip(columns[1:], shared, strict=True)]]
        parts.append(f"({' AND '.join(conditions)})")
    return " OR ".join(parts)


def _among(column: str, values: Sequence[str | None]) -> str:
    name = f"`{column.replace('`', '``')}`"
    given = ", ".join(_spark_literal(value) for value in values if value is not None)
    parts = [f"{name} IN ({given})"] * bool(given) + [f"{name} IS NULL"] * (None in values)
    return f"({' OR '.join(parts)})"


def _spark_literal(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
