"""JSON lines at engine speed, JSON arrays as a stream; a broken line becomes a refused row."""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.json as pa_json

from pipelines.errors import SourceError
from pipelines.sources.files.columns import Columns
from pipelines.sources.files.shape import DEFECT
from pipelines.sources.files.tail import Tail, open_bytes, tail_of

_BLOCK = 16 << 20
_TEXT_BLOCK = 1 << 22
_ARRAY_ROWS = 100_000
_SHOWN = 200
_BLANK = " \t\r\n"


def read_json(path: Path, columns: Columns) -> Iterator[pa.Table]:
    """Yield a JSON file's wanted columns: an array of objects, or one object a line.

    Raises:
        SourceError: the file is empty, cut, not UTF-8, an array with a syntax error, or lacks a column.
    """
    tail = tail_of(path)
    with open_bytes(path) as file:
        start = next((block for block in iter(lambda: file.read(1 << 10), b"") if block.strip()), b"")
        is_array = start.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")
        file.seek(0)
        raw = _array(path, file, tail) if is_array else _lines(path, file, tail)
        found: dict[str, str] | None = None
        for table in raw:
            names = [name for name in table.column_names if name != DEFECT]
            if found is None and names:
                found = columns.find(path, names)
            yield _renamed(table, found or {}, names, columns)


def _renamed(table: pa.Table, found: dict[str, str], names: Sequence[str], columns: Columns) -> pa.Table:
    """Name the columns by the contract; one that this block of the file never mentions is null."""
    missing = pa.nulls(table.num_rows)
    parts = {name: table[column] if column in names else missing for name, column in found.items()}
    if DEFECT in table.column_names:
        parts[DEFECT] = table[DEFECT]
        for name in columns.wanted:
            parts.setdefault(name, missing)
    return pa.table(parts)


def _lines(path: Path, file: BinaryIO, tail: Tail) -> Iterator[pa.Table]:
    last = tail.last_line()
    if last is not None and not tail.is_terminated and not _is_json(last[0]):
        raise SourceError(f"{path}: cut in its last line, at byte {last[1]}; the file was not written to its end")
    number, rest = 1, b""
    while block := file.read(_BLOCK):
        block = rest + block
        cut = block.rfind(b"\n") + 1
        block, rest = block[:cut], block[cut:]
        if block:
            yield _lines_block(path, block, number)
            number += block.count(b"\n")
    if rest.strip():
        yield _lines_block(path, rest, number)


def _lines_block(path: Path, block: bytes, first: int) -> pa.Table:
    if first == 1:
        block = block.removeprefix(codecs.BOM_UTF8)
    quick = _quickly(block)
    return _slowly(path, block, first) if quick is None else quick


def _quickly(block: bytes) -> pa.Table | None:
    """Read a block with Arrow, or return None if any line of it needs a closer look."""
    try:
        head = json.loads(block[: block.find(b"\n") + 1] or block)
        texts = [name for name, value in head.items() if isinstance(value, str)]
        table = _by_arrow(block, texts)
        # Arrow takes text that looks like a time for a zoneless one; text it must stay.
        times = [name for name in table.column_names if pa.types.is_timestamp(table.schema.field(name).type)]
        table = _by_arrow(block, [*texts, *times]) if times else table
    except (ValueError, AttributeError, pa.ArrowException):
        return None
    lines = block.count(b"\n") + (not block.endswith(b"\n"))
    return table if table.num_rows == lines else None


def _by_arrow(block: bytes, texts: Sequence[str]) -> pa.Table:
    return pa_json.read_json(
        pa.BufferReader(block),
        read_options=pa_json.ReadOptions(use_threads=False, block_size=len(block)),
        parse_options=pa_json.ParseOptions(explicit_schema=pa.schema([(name, pa.string()) for name in texts])),
    )


def _slowly(path: Path, block: bytes, first: int) -> pa.Table:
    """Read a block line by line, so that a bad line spoils only itself."""
    rows: list[tuple[dict[str, object], str | None]] = []
    for number, line in enumerate(block.split(b"\n"), start=first):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except UnicodeDecodeError:
            raise SourceError(f"{path}: line {number} is not UTF-8 text") from None
        except ValueError as error:
            rows.append(({}, f"line {number} is not JSON ({error}): {_shown(line.decode('utf-8', 'replace'))}"))
            continue
        rows.append(_object(value, f"line {number}"))
    return _table(rows)


def _array(path: Path, file: BinaryIO, tail: Tail) -> Iterator[pa.Table]:
    if not tail.data.rstrip().endswith(b"]"):
        raise SourceError(f"{path}: the JSON array has no end, at byte {tail.size}; it was not written to its end")
    rows: list[tuple[dict[str, object], str | None]] = []
    try:
        for number, value in enumerate(_elements(path, io.TextIOWrapper(file, "utf-8-sig")), start=1):
            rows.append(_object(value, f"element {number}"))
            if len(rows) == _ARRAY_ROWS:
                yield _table(rows)
                rows = []
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: not UTF-8 text ({error.reason})") from None
    if rows:
        yield _table(rows)


def _elements(path: Path, text: io.TextIOBase) -> Iterator[object]:
    """Decode an array's elements one by one, holding no more than two blocks of text."""
    decode = json.JSONDecoder().raw_decode
    buffer = text.read(_TEXT_BLOCK).lstrip(_BLANK)[1:]
    passed, at, is_first = 1, 0, True
    while True:
        at = _skip(buffer, at)
        if buffer[at : at + 1] == "]" and not buffer[at + 1 :].strip() and not text.read().strip():
            return
        try:
            value, end = decode(buffer, at if is_first else _comma(buffer, at))
            # A number at the buffer's end may go on in the next block.
            complete = _skip(buffer, end) < len(buffer)
        except (ValueError, IndexError):
            complete = False
        if complete:
            yield value
            at, is_first = end, False
            continue
        more = text.read(_TEXT_BLOCK) if len(buffer) - at < 2 * _TEXT_BLOCK else ""
        if not more:
            raise SourceError(f"{path}: the JSON array is broken or cut near character {passed + at}")
        passed, buffer, at = passed + at, buffer[at:] + more, 0


def _comma(buffer: str, at: int) -> int:
    if buffer[at] != ",":
        raise ValueError(at)
    return _skip(buffer, at + 1)


def _skip(buffer: str, at: int) -> int:
    while at < len(buffer) and buffer[at] in _BLANK:
        at += 1
    return at


def _object(value: object, where: str) -> tuple[dict[str, object], str | None]:
    if isinstance(value, dict):
        return value, None
    return {}, f"{where} is not a JSON object: {_shown(json.dumps(value))}"


def _table(rows: Sequence[tuple[dict[str, object], str | None]]) -> pa.Table:
    names = dict.fromkeys(name for row, _ in rows for name in row)
    parts = {name: _loose([row.get(name) for row, _ in rows]) for name in names}
    if any(defect for _, defect in rows):
        parts[DEFECT] = pa.array([defect for _, defect in rows], pa.string())
    return pa.table(parts)


def _loose(values: Sequence[object]) -> pa.Array:
    """Build a column; values that share no type become text."""
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
        return pa.array(texts, pa.string())


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _shown(text: str) -> str:
    return repr(text[:_SHOWN])
