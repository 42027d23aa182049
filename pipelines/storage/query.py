"""SQL over the lake without a JVM: one read-only statement, run by DataFusion with delta-rs skipping files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import QueryBuilder
from deltalake.exceptions import DeltaError

from pipelines.errors import StorageError
from pipelines.storage.names import table_missing

if TYPE_CHECKING:
    from collections.abc import Callable

    from deltalake import DeltaTable

    from pipelines.storage.lake import Lake

_LITERALS = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/""", re.DOTALL)
_WORDS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# DataFusion's grammar lets a WITH end in one of these.
_WRITING = {"insert", "update", "delete", "merge", "copy", "create", "drop", "alter", "truncate", "into", "set"}
_NO_TABLE = re.compile(r"table '(?:[\w]+\.)*([\w]+)' not found", re.IGNORECASE)


def run_query(lake: Lake, sql: str, open_table: Callable[[str], DeltaTable]) -> pa.Table:
    """Run one SELECT over tables of the lake.

    Args:
        lake: the lake.
        sql: names tables plainly, for example `select count(*) from raw_market_data_1h`.
        open_table: opens a table at the version to be seen.

    Raises:
        TableNotFoundError: a table is not in the lake; names the nearest.
        StorageError: it is not a single read-only SELECT, or it is wrong SQL.
    """
    statement = checked_select(sql)
    mentioned = {word.lower() for word in _WORDS.findall(sql)}
    builder = QueryBuilder()
    names = lake.names()
    for name in names:
        # Only what the statement may use: opening every table would read every log.
        if name in mentioned:
            builder.register(name, open_table(name))
    try:
        return pa.RecordBatchReader.from_stream(builder.execute(statement)).read_all()
    except (DeltaError, OSError, ValueError, pa.ArrowException) as error:
        missing = _NO_TABLE.search(str(error))
        if missing:
            raise table_missing(missing[1], names, lake.root) from None
        raise StorageError(f"the query failed: {str(error).strip().splitlines()[0]}") from error


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
