"""SQL over the lake without a JVM: one read-only statement, run by DataFusion with delta-rs skipping files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from uuid import uuid4

import pyarrow as pa
from deltalake import QueryBuilder
from deltalake.exceptions import DeltaError

from pipelines.errors import InvalidRangeError, LakehouseError, StorageError
from pipelines.storage.names import table_missing
from pipelines.storage.scan import View, quoted
from pipelines.storage.travel.moments import Moment, open_at

if TYPE_CHECKING:
    from pipelines.storage.lake import Lake

_LITERALS = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/""", re.DOTALL)
_WORDS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# DataFusion's grammar lets a WITH end in one of these.
_WRITING = {"insert", "update", "delete", "merge", "copy", "create", "drop", "alter", "truncate", "into", "set"}
_NO_TABLE = re.compile(r"table '(?:[\w]+\.)*([\w]+)' not found", re.IGNORECASE)


def run_query(lake: Lake, sql: str, when: Moment) -> pa.Table:
    """Run one SELECT over tables of the lake as they were at a moment.

    Args:
        lake: the lake.
        sql: names tables plainly, for example `select count(*) from raw_market_data_1h`.
        when: the moment, the same for all tables.

    Raises:
        TableNotFoundError: a table is not in the lake; names the nearest.
        InvalidRangeError: the instant is outside a table's history.
        SnapshotError: there is no such snapshot, or a table is not in it.
        StorageError: it is not a single read-only SELECT, it is wrong SQL, or there is no such version.
    """
    statement = checked_select(sql)
    mentioned = {word.lower() for word in _WORDS.findall(sql)}
    builder, names, absent = QueryBuilder(), lake.names(), dict[str, LakehouseError]()
    # Only what the statement may use: opening every table would read every log.
    for name in mentioned.intersection(names):
        try:
            _register(builder, name, open_at(lake, name, when))
        except (StorageError, InvalidRangeError) as error:
            # It may be the name of a column only.
            absent[name] = error
    try:
        return pa.RecordBatchReader.from_stream(builder.execute(statement)).read_all()
    except (DeltaError, OSError, ValueError, pa.ArrowException) as error:
        missing = _NO_TABLE.search(str(error))
        if missing:
            raise absent.get(missing[1]) or table_missing(missing[1], names, lake.root) from None
        raise StorageError(f"the query failed: {str(error).strip().splitlines()[0]}") from error


def _register(builder: QueryBuilder, name: str, view: View) -> None:
    known = view.condition()
    if known is None:
        builder.register(name, view.table)
        return
    # A name that no statement can know, so that none reaches behind the view.
    whole = f"{name} {uuid4().hex}"
    builder.register(whole, view.table)
    builder.execute(f"CREATE VIEW {quoted(name)} AS SELECT * FROM {quoted(whole)} WHERE {known}")  # noqa: S608 - checked


def checked_select(sql: str) -> str:
    """Return the statement without its final semicolon.

    Raises:
        StorageError: it is not exactly one statement that begins with SELECT or WITH and only reads.
    """
    bare = _LITERALS.sub(" ", sql).strip().rstrip(";").strip()
    words = [word.lower() for word in _WORDS.findall(bare)]
    writing = sorted(_WRITING.intersection(words))
    if ";" in bare or not words or words[0] not in {"select", "with"} or writing:
        found = f" (found {', '.join(writing).upper()}; quote it if it is a column)" if writing else ""
        raise StorageError(f"only a single SELECT or WITH … SELECT can be run here{found}")
    return sql.strip().rstrip(";")
