"""Rows of a table by the values of some columns, counted file by file; a data file never changes, so each once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from pipelines.monitoring.lake_tables import LookedAt
    from pipelines.storage.files import DataFile

# Statistics of longer texts may be cut off.
_WHOLE_TEXT = 32
Values = tuple[object, ...]


class FileCounts:
    """Counts rows by the values of columns, which are text or boolean; `read` says how many files had to be opened."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = list(columns)
        self._files: dict[str, dict[str, Counter[Values]]] = {}
        self.read = 0

    def of(self, table: LookedAt) -> Counter[Values]:
        """Return rows by values; only files that were not there the last time are looked at.

        Raises:
            StorageError: a file that its statistics do not tell enough of cannot be read.
        """
        # By the table's own id: after a rebuild there is another one under the same name.
        key = str(table.table.metadata().id)
        known = self._files.get(key, {})
        told = _told(table.actions, self._columns) if any(file.path not in known for file in table.files) else {}
        counted: dict[str, Counter[Values]] = {}
        total: Counter[Values] = Counter()
        for file in table.files:
            if (count := known.get(file.path)) is None:
                count = told.get(file.path) or self._counted(table, file)
            counted[file.path] = count
            total.update(count)
        self._files[key] = counted
        return total

    def forget_others(self, tables: Sequence[LookedAt]) -> None:
        """Forget tables that are not there any more."""
        there = {str(table.table.metadata().id) for table in tables}
        self._files = {key: counts for key, counts in self._files.items() if key in there}

    def _counted(self, table: LookedAt, file: DataFile) -> Counter[Values]:
        self.read += 1
        rows = table.read_file(file, self._columns)
        groups = rows.group_by(self._columns).aggregate([([], "count_all")])
        keys = zip(*(groups[name].to_pylist() for name in self._columns), strict=True)
        return Counter(dict(zip(keys, groups["count_all"].to_pylist(), strict=True)))


def _told(actions: pa.Table, columns: Sequence[str]) -> dict[str, Counter[Values]]:
    """Return the counts of the files whose statistics say that all rows have the same values."""
    needed = [f"{kind}.{name}" for name in columns for kind in ("null_count", "min", "max")]
    if not set(needed) <= set(actions.column_names):
        return {}
    same = pc.is_valid(actions["num_records"])
    for name in columns:
        low, high = actions[f"min.{name}"], actions[f"max.{name}"]
        tests = [pc.equal(low, high), pc.equal(actions[f"null_count.{name}"], 0)]
        if pa.types.is_string(low.type):
            tests.append(pc.less(pc.utf8_length(low), _WHOLE_TEXT))
        for each in tests:
            same = pc.and_(same, pc.fill_null(each, False))
    plain = actions.filter(same)
    values = zip(*(plain[f"min.{name}"].to_pylist() for name in columns), strict=True)
    rows = plain["num_records"].to_pylist()
    return {
        path: Counter({value: count})
        for path, value, count in zip(plain["path"].to_pylist(), values, rows, strict=True)
    }
