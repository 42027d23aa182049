"""CSV at engine speed: Arrow splits the lines into text, the shaping types them, broken lines become refused rows."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from pipelines.errors import SourceError
from pipelines.sources.files.columns import ASSET, Columns
from pipelines.sources.files.shape import DEFECT
from pipelines.sources.files.tail import Tail, open_bytes, tail_of

# Arrow reads up to 32 blocks ahead of what is asked for, so small blocks are what bounds memory.
_BLOCK = 4 << 20
_PAGE_ROWS = 200_000
_NULLS = ["", "null", "NULL", "None", "NA", "N/A"]
_DELIMITERS = ",;\t|"
_TIME = "timestamp"
_SHOWN = 200
_ENOUGH_LINES = 20


def read_csv(path: Path, columns: Columns) -> Iterator[pa.Table]:
    """Yield a CSV file's wanted columns as text, block by block.

    A line with a wrong number of fields becomes a row whose `_defect` says so.

    Raises:
        SourceError: the file is empty, cut, not UTF-8, cannot be split into lines, or lacks a column.
    """
    tail = tail_of(path)
    delimiter, header = _header(path)
    _check_end(path, tail, delimiter, len(header))
    found = columns.find(path, header)
    broken: list[pa_csv.InvalidRow] = []
    try:
        with _open(path, header, list(found.values()), delimiter, broken.append) as reader:
            for table in _gathered(reader):
                yield _renamed(table, found, _taken(broken, header, found, delimiter))
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path}: not a readable CSV file{_culprit(path)}: {error}") from None
    if broken:
        empty = pa.table({name: pa.array([], pa.string()) for name in found.values()})
        yield _renamed(empty, found, _taken(broken, header, found, delimiter))


def _header(path: Path) -> tuple[str, list[str]]:
    with open_bytes(path) as file:
        first = next((line for line in file if line.strip()), b"")
    try:
        text = first.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise SourceError(f"{path}: line 1 is not UTF-8 text") from None
    delimiter = max(_DELIMITERS, key=text.count)
    names = next(csv.reader([text], delimiter=delimiter), [])
    twice = sorted({name for name, following in pairwise(sorted(names)) if name == following})
    if twice:
        raise SourceError(f"{path}: line 1 names a column twice: {', '.join(map(repr, twice))}")
    return delimiter, names


def _check_end(path: Path, tail: Tail, delimiter: str, fields: int) -> None:
    """Refuse a file that stops in the middle of its last line."""
    last = tail.last_line()
    if tail.is_terminated or last is None:
        return
    line, offset = last
    values = _fields(line.decode("utf-8", "replace"), delimiter)
    where = f"{path}: cut in its last line, at byte {offset}: "
    if len(values) != fields:
        raise SourceError(f"{where}{len(values)} of {fields} fields; the file was not written to its end")
    # The line end is missing. That alone is common; a last value shorter than any before it is not.
    before = tail.data.rstrip().splitlines()[1:-1]
    lengths = [len(_fields(part.decode("utf-8", "replace"), delimiter)[-1]) for part in before if part.strip()]
    if len(lengths) >= _ENOUGH_LINES and len(values[-1]) < min(lengths):
        raise SourceError(
            f"{where}its last value {values[-1]!r} is shorter than any before it and no line end follows; "
            "if the file is complete, end it with a line end"
        )


def _open(
    path: Path,
    header: Sequence[str],
    include: Sequence[str],
    delimiter: str,
    on_broken: Callable[[pa_csv.InvalidRow], None],
) -> pa_csv.CSVStreamingReader:
    def skip(row: pa_csv.InvalidRow) -> str:
        on_broken(row)
        return "skip"

    return pa_csv.open_csv(
        pa.input_stream(str(path), compression="detect"),
        # One thread, because only then Arrow knows line numbers; it is no slower here.
        read_options=pa_csv.ReadOptions(block_size=_BLOCK, use_threads=False),
        parse_options=pa_csv.ParseOptions(delimiter=delimiter, invalid_row_handler=skip),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(header, pa.string()),
            include_columns=list(include),
            null_values=_NULLS,
            strings_can_be_null=True,
        ),
    )


def _gathered(reader: pa_csv.CSVStreamingReader) -> Iterator[pa.Table]:
    """Put blocks together until they make a page worth its cost."""
    batches: list[pa.RecordBatch] = []
    for batch in reader:
        batches.append(batch)
        if sum(part.num_rows for part in batches) >= _PAGE_ROWS:
            yield pa.Table.from_batches(batches)
            batches = []
    if batches:
        yield pa.Table.from_batches(batches)


def _taken(
    broken: list[pa_csv.InvalidRow], header: Sequence[str], found: dict[str, str], delimiter: str
) -> list[dict[str, str | None]]:
    """Turn the broken lines met so far into rows: the reason, and where and when as far as the line tells."""
    rows: list[dict[str, str | None]] = []
    while broken:
        line = broken.pop(0)
        # An open quote swallows the lines up to the next one; each of them is a line of its own again.
        for ahead, text in enumerate(line.text.splitlines()):
            values = _fields(text, delimiter)
            is_whole = len(values) == line.expected_columns
            row: dict[str, str | None] = dict.fromkeys((*found, DEFECT))
            for name in found if is_whole else (ASSET, _TIME):
                position = header.index(found[name]) if name in found else len(values)
                if position < len(values):
                    row[name] = None if values[position] in _NULLS else values[position]
            if not is_whole:
                where = f"line {line.number + ahead} has" if line.number else "the line has"
                row[DEFECT] = f"{where} {len(values)} fields, not {line.expected_columns}: {text[:_SHOWN]!r}"
            rows.append(row)
    return rows


def _renamed(table: pa.Table, found: dict[str, str], broken: list[dict[str, str | None]]) -> pa.Table:
    good = pa.table({name: table[column] for name, column in found.items()})
    if not broken:
        return good
    schema = pa.schema([pa.field(name, pa.string()) for name in (*found, DEFECT)])
    good = good.append_column(DEFECT, pa.nulls(good.num_rows, pa.string()))
    return pa.concat_tables([good, pa.Table.from_pylist(broken, schema=schema)])


def _culprit(path: Path) -> str:
    """Return where a file that cannot be split first goes wrong: a line that is not UTF-8 or leaves a quote open."""
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return f", line {number} is not UTF-8 text"
            if line.count(b'"') % 2:
                return f", line {number} leaves a quote open"
    return ""


def _fields(text: str, delimiter: str) -> list[str]:
    return next(csv.reader([text], delimiter=delimiter), [""])
