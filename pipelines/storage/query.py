"""SQL over the lake without a JVM: one read-only statement, run by DataFusion with delta-rs skipping files."""

from __future__ import annotations

import re
from uuid import uuid4

import pyarrow as pa
from deltalake import QueryBuilder
from deltalake.exceptions import DeltaError

from pipelines.errors import InvalidRangeError, LakehouseError, SnapshotError, StorageError, TableNotFoundError
from pipelines.storage.lake import Lake
from pipelines.storage.layers import LAYERS, Layer
from pipelines.storage.names import LakeRoot, table_missing
from pipelines.storage.scan import View, quoted
from pipelines.storage.travel.moments import Moment, open_at

_LITERALS = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/""", re.DOTALL)
_WORDS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# DataFusion's grammar lets a WITH end in one of these.
_WRITING = {"insert", "update", "delete", "merge", "copy", "create", "drop", "alter", "truncate", "into", "set"}
_NO_TABLE = re.compile(r"table '(?:\w+\.)??(?:(\w+)\.)?(\w+)' not found", re.IGNORECASE)
# Tables of a layer are called by its name, as gold.mart_trading_performance.
_IN_A_LAYER = re.compile(r"""\b((?:silver|gold)(?:_\w+)?)"?\."?(\w+)""")


def run_query(lake: Lake, sql: str, when: Moment) -> pa.Table:
    """Run one SELECT over tables of the lake as they were at a moment.

    Args:
        lake: the lake.
        sql: names tables plainly, for example `select count(*) from raw_market_data_1h`, those of other layers behind
            the layer's name, as `gold.mart_trading_performance`.
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
    absent |= _register_layers(builder, lake, sql, when)
    try:
        return pa.RecordBatchReader.from_stream(builder.execute(statement)).read_all()
    except (DeltaError, OSError, ValueError, pa.ArrowException) as error:
        missing = _NO_TABLE.search(str(error))
        if missing:
            layer, name = missing.groups()
            wanted = f"{layer}.{name}" if layer and _IN_A_LAYER.match(f"{layer}.{name}") else name
            raise absent.get(wanted) or _missing(lake, wanted, names) from None
        raise StorageError(f"the query failed: {str(error).strip().splitlines()[0]}") from error


def _register_layers(builder: QueryBuilder, lake: Lake, sql: str, when: Moment) -> dict[str, LakehouseError]:
    """Register what a statement may use of other layers; returns why a table is not there."""
    absent: dict[str, LakehouseError] = {}
    found = set(_IN_A_LAYER.findall(sql))
    for layer in sorted({layer for layer, _ in found}):
        builder.execute(f"CREATE SCHEMA {quoted(layer)}")
    for layer, name in sorted(found):
        inner = Lake(LakeRoot(lake.root.uri(layer)))
        if not inner.exists(name):
            continue
        try:
            _register(builder, name, _open_made(inner, name, when), layer)
        except (StorageError, InvalidRangeError, SnapshotError) as error:
            absent[f"{layer}.{name}"] = error
    return absent


def _open_made(layer: Lake, name: str, when: Moment) -> View:
    if when.snapshot is not None:
        raise SnapshotError(
            f"snapshot {when.snapshot} pins bronze alone; `lakehouse transform --snapshot {when.snapshot}` makes "
            "silver and gold out of it, and names the schemas to query"
        )
    return open_at(layer, name, when)


def _missing(lake: Lake, name: str, names: list[str]) -> TableNotFoundError:
    """Return the error for a table that is not there; it may be one of another layer."""
    made = [f"{layer}.{each}" for layer in LAYERS for each in Layer(lake.root, layer).names()]
    where = f"no table {name} in the lake {lake.root.address}"
    if meant := [each for each in made if each.endswith(f".{name.rpartition('.')[2]}")]:
        return TableNotFoundError(f"{where}; did you mean {' or '.join(meant)}?")
    if not made and _IN_A_LAYER.match(name):
        return TableNotFoundError(f"{where}; make it with `lakehouse transform`")
    return table_missing(name, [*names, *made], lake.root)


def _register(builder: QueryBuilder, name: str, view: View, layer: str | None = None) -> None:
    known = view.condition()
    before = "" if layer is None else f"{layer}."
    if known is None:
        builder.register(before + name, view.table)
        return
    # A name that no statement can know, so that none reaches behind the view.
    whole = f"{name} {uuid4().hex}"
    builder.register(whole, view.table)
    builder.execute(f"CREATE VIEW {before}{quoted(name)} AS SELECT * FROM {quoted(whole)} WHERE {known}")  # noqa: S608 - checked


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
