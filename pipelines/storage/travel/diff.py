"""What changed in a table between two moments, reading only the files that are not the same at both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds

from pipelines.contracts import PARTITION_DATE, PARTITION_PREFIX
from pipelines.errors import InvalidRangeError
from pipelines.storage.scan import INGESTED_AT
from pipelines.storage.travel.diff_files import Group, Pair
from pipelines.storage.travel.moments import Moment, open_at
from pipelines.storage.undeclared import contract_of

if TYPE_CHECKING:
    from pipelines.contracts import Contract
    from pipelines.storage.lake import Lake

Kind = Literal["added", "restated", "removed"]
KINDS: tuple[Kind, ...] = ("added", "restated", "removed")
CHANGED, BEFORE, AFTER = "changed", "before", "after"
_ASSET = "asset_pair"
_NET, _HAD, _HAS, _OLD = "__net", "__had", "__has", "__old"


@dataclass(slots=True)
class Counts:
    """How many rows, or keys where the table has keys, differ."""

    added: int = 0
    restated: int = 0
    removed: int = 0


@dataclass(frozen=True, slots=True)
class Diff:
    """The difference between two versions of a table, as its readers see it.

    With keys, the newest version of a key counts: it is added, removed, or restated if a value differs. Without, whole
    rows are compared, as often as they occur, and none is restated.

    Attributes:
        table: the table's name.
        old: the version that was compared with.
        new: the version that is looked at; it may be older than `old`.
        keys: the columns that identify a row; empty for a table without keys.
        counts: by asset pair, or by the first key where the table has no assets; under "" where it has neither.
        added: rows as they are in `new`, at most as many as asked for; `counts` has them all.
        removed: rows as they were in `old`, likewise.
        restated: the keys, `changed` (names of columns), `before` and `after` (structs of values), likewise.
        files_read: how many data files were opened for it.
    """

    table: str
    old: int
    new: int
    keys: tuple[str, ...]
    counts: Mapping[str, Counts]
    added: pa.Table
    restated: pa.Table
    removed: pa.Table
    files_read: int

    @property
    def total(self) -> Counts:
        """The counts of all assets together."""
        each = self.counts.values()
        return Counts(*(sum(getattr(counts, kind) for counts in each) for kind in KINDS))

    def __bool__(self) -> bool:
        """Whether there is a difference at all."""
        return self.total != Counts()


def diff(lake: Lake, table_name: str, old: Moment, new: Moment, limit: int | None = None) -> Diff:
    """Compare a table at two moments; no JVM.

    Files that both have are not read, unless a changed partition's files may hold earlier versions of a changed key.
    Memory is bounded by the rows of one partition and the rows returned.

    Args:
        lake: the lake.
        table_name: the table.
        old: the moment to compare with.
        new: the moment to look at.
        limit: return at most so many rows of each kind; the counts are whole in any case.

    Raises:
        TableNotFoundError: no such table; names the nearest.
        InvalidRangeError: an instant is outside the table's history, or the limit is negative.
        StorageError: no such version or snapshot, files of a version are gone, or a column changed its type in between.
    """
    if limit is not None and limit < 0:
        raise InvalidRangeError(f"a limit of {limit} rows is negative")
    before, after = open_at(lake, table_name, old), open_at(lake, table_name, new)
    pair = Pair(lake, table_name, before, after)
    contract = contract_of(after.table, table_name)
    comparison = _Comparison(pair, contract, limit)
    for group in pair.groups(comparison.partitions):
        comparison.compare(group)
    return Diff(
        table_name,
        int(before.table.version()),
        int(after.table.version()),
        comparison.keys,
        dict(sorted(comparison.counts.items())),
        added=comparison.kept("added"),
        restated=comparison.kept("restated"),
        removed=comparison.kept("removed"),
        files_read=comparison.files_read,
    )


class _Comparison:
    """Compares group after group, and keeps what is to be returned."""

    def __init__(self, pair: Pair, contract: Contract, limit: int | None) -> None:
        names = pair.schema.names
        stored = {column.name for column in contract.columns if column.provided == "storage"}
        self.keys = tuple(key for key in contract.keys if key in names)
        self.values = [name for name in names if name not in stored.union(self.keys)]
        self.partitions = _fixed_by_key(pair, contract) if self.keys else pair.partitions
        self.counts: dict[str, Counts] = defaultdict(Counts)
        self.files_read = 0
        self._subject = _ASSET if _ASSET in names else next(iter(self.keys), None)
        self._time = contract.event_time if contract.event_time in self.keys else None
        self._pair, self._limit = pair, limit
        self._kept: dict[Kind, list[pl.DataFrame]] = {kind: [] for kind in KINDS}

    def compare(self, group: Group) -> None:
        """Add what differs in some partitions."""
        old, new = self._pair.rows(group.old), self._pair.rows(group.new)
        self.files_read += len(group.old) + len(group.new)
        net = _net(old, new)
        if net.is_empty():
            return
        if self.keys:
            self._by_key(group, old, new, net.select(self.keys).unique())
        else:
            self._add("added", _repeated(net.filter(pl.col(_NET) > 0)))
            self._add("removed", _repeated(net.filter(pl.col(_NET) < 0)))

    def _by_key(self, group: Group, old: pl.DataFrame, new: pl.DataFrame, touched: pl.DataFrame) -> None:
        keys = list(self.keys)
        shared = self._pair.rows(group.shared, self._within(touched)) if group.shared else old.clear()
        self.files_read += len(group.shared)
        touching = [part.join(touched, on=keys, how="semi", nulls_equal=True) for part in (old, new, shared)]
        had = _newest(pl.concat([touching[0], touching[2]]), keys)
        has = _newest(pl.concat([touching[1], touching[2]]), keys)
        self._add("added", has.join(had, on=keys, how="anti", nulls_equal=True))
        self._add("removed", had.join(has, on=keys, how="anti", nulls_equal=True))
        self._add("restated", self._restated(had, has))

    def _restated(self, had: pl.DataFrame, has: pl.DataFrame) -> pl.DataFrame:
        """Return the keys in both whose values differ: keys, changed, before, after."""
        both = has.join(had, on=list(self.keys), how="inner", nulls_equal=True, suffix=_OLD)
        differ = {name: ~pl.col(name).eq_missing(pl.col(name + _OLD)) for name in self.values}
        names = [pl.when(differs).then(pl.lit(name)) for name, differs in differ.items()]
        return both.filter(pl.any_horizontal(*differ.values())).select(
            *self.keys,
            pl.concat_list(names).list.drop_nulls().alias(CHANGED),
            pl.struct([pl.col(name + _OLD).alias(name) for name in self.values]).alias(BEFORE),
            pl.struct(self.values).alias(AFTER),
        )

    def _within(self, touched: pl.DataFrame) -> ds.Expression | None:
        """Return a condition that spares most rows of files in which few keys matter; None if there is none."""
        found = []
        for key in self.keys:
            column = touched[key]
            if key == self._time and not column.null_count():
                low, high = (
                    pa.scalar(value, self._pair.schema.field(key).type) for value in (column.min(), column.max())
                )
                found.append((ds.field(key) >= low) & (ds.field(key) <= high))
            elif column.dtype == pl.String and not column.null_count():
                found.append(ds.field(key).isin(column.unique().to_list()))
        return reduce(and_, found) if found else None

    def _add(self, kind: Kind, rows: pl.DataFrame) -> None:
        if rows.is_empty():
            return
        for subject, count in self._subjects(rows).cast(pl.String).fill_null("").value_counts().iter_rows():
            counts = self.counts[subject]
            setattr(counts, kind, getattr(counts, kind) + count)
        kept = self._kept[kind]
        room = rows.height if self._limit is None else self._limit - sum(part.height for part in kept)
        if room > 0:
            ordered = rows.sort(self.keys) if self.keys else rows
            kept.append(ordered.head(room))

    def _subjects(self, rows: pl.DataFrame) -> pl.Series:
        if self._subject is None:
            return pl.Series([""] * rows.height)
        return rows[self._subject] if self._subject in rows.columns else rows[AFTER].struct.field(self._subject)

    def kept(self, kind: Kind) -> pa.Table:
        """Return the rows of a kind, in the types of the table."""
        schema = self._pair.schema if kind != "restated" else self._restated_schema()
        if not self._kept[kind]:
            return schema.empty_table()
        return pl.concat(self._kept[kind]).to_arrow().cast(schema)

    def _restated_schema(self) -> pa.Schema:
        of = self._pair.schema.field
        values = pa.struct([of(name) for name in self.values])
        return pa.schema(
            [*(of(key) for key in self.keys), (CHANGED, pa.list_(pa.string())), (BEFORE, values), (AFTER, values)]
        )


def _fixed_by_key(pair: Pair, contract: Contract) -> tuple[str, ...]:
    """Return the partition columns that follow from the key: all versions of a key have the same values there."""

    def source(name: str) -> str | None:
        return contract.event_time if name == PARTITION_DATE else name.removeprefix(PARTITION_PREFIX)

    return tuple(name for name in pair.partitions if source(name) in contract.keys)


def _net(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Return each distinct row with how often more it is in `new`; rows that were only moved are gone."""
    signed = [new.with_columns(pl.lit(1).alias(_NET)), old.with_columns(pl.lit(-1).alias(_NET))]
    both = pl.concat(signed)
    return both.group_by(old.columns, maintain_order=True).agg(pl.col(_NET).sum()).filter(pl.col(_NET) != 0)


def _repeated(net: pl.DataFrame) -> pl.DataFrame:
    """Return each row as often as it is counted."""
    times = np.repeat(np.arange(net.height), net[_NET].abs().to_numpy())
    return net.drop(_NET)[times]


def _newest(rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Return the newest version of each key."""
    ordered = rows.sort(INGESTED_AT, maintain_order=True) if INGESTED_AT in rows.columns else rows
    return ordered.unique(subset=list(keys), keep="last", maintain_order=True)
