"""Dead letter files as a stream of rows: memory does not grow with the file, and a damaged one is told by name."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import ijson
import ijson.backends.python as exact_parser

from pipelines.errors import DeadLetterError

if TYPE_CHECKING:
    from types import ModuleType

Row = dict[str, Any]

_BLOCK = 1 << 18
_HEAD = ("timestamp", "error", "context")
_REASON = "reason"
# The fast parser puts a question mark for half a surrogate pair.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_LONGEST_ESCAPE = 6


def head_of(path: Path) -> dict[str, Any]:
    """Return what a file says before or after its records: `timestamp`, `error`, `context`; absent ones are left out.

    Raises:
        DeadLetterError: the file cannot be read or is not JSON up to where they stand.
    """
    with _readable(path) as (stream, parser):
        found: dict[str, list[Any]] = {name: ijson.sendable_list() for name in _HEAD}
        parsers = {name: parser.items_coro(values, name) for name, values in found.items()}
        try:
            while not all(found.values()) and (block := stream.read(_BLOCK)):
                for name in _HEAD:
                    if not found[name]:
                        parsers[name].send(block)
        finally:
            _close(parsers.values())
        return {name: _plain(values[0]) for name, values in found.items() if values}


def rows_of(path: Path) -> Iterator[tuple[Row, str]]:
    """Yield a file's records, each without its reason, and the reason ("" where it has none).

    Raises:
        DeadLetterError: the file cannot be read, is not whole JSON, or holds no list of records; found out on the way.
    """
    with _readable(path) as (stream, parser):
        number = 0
        for number, item in enumerate(parser.items(stream, "records.item"), start=1):
            if not isinstance(item, dict):
                raise DeadLetterError(f"{path} is no dead letter file: its record {number} is no object")
            record = _plain(item)
            reason = record.pop(_REASON, None)
            yield record, "" if reason is None else str(reason)
    if not number:
        _check_list(path)


def _close(parsers: Iterable[Any]) -> None:
    """End parsers that have not seen the end of the file, which is no fault of the file."""
    for parser in parsers:
        with suppress(ijson.JSONError):
            parser.close()


def _check_list(path: Path) -> None:
    """Tell an empty list of records from none at all."""
    with _readable(path) as (stream, parser):
        for prefix, event, _ in parser.parse(stream):
            if prefix == "records" and event == "start_array":
                return
    raise DeadLetterError(f"{path} is no dead letter file: it has no list of records")


@contextmanager
def _readable(path: Path) -> Iterator[tuple[BinaryIO, ModuleType]]:
    """Open a file with the parser that reads it exactly; what goes wrong is told in words."""
    try:
        with path.open("rb") as stream:
            if not stream.seek(0, 2):
                raise DeadLetterError(f"{path} is empty; delete it")
            parser = _parser_for(stream)
            stream.seek(len(codecs.BOM_UTF8) if _has_mark(stream) else 0)
            yield stream, parser
    except ijson.JSONError as error:
        raise DeadLetterError(f"{path} {_why(error)}") from error
    except RecursionError as error:
        raise DeadLetterError(f"{path} is nested too deeply") from error
    except OSError as error:
        raise DeadLetterError(f"{path} cannot be read: {error.strerror}") from error


def _has_mark(stream: BinaryIO) -> bool:
    stream.seek(0)
    return stream.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8


def _parser_for(stream: BinaryIO) -> ModuleType:
    stream.seek(0)
    tail = b""
    while block := stream.read(_BLOCK):
        if _SURROGATE.search(tail + block):
            return cast("ModuleType", exact_parser)
        tail = block[-_LONGEST_ESCAPE:]
    return cast("ModuleType", ijson)


def _why(error: ijson.JSONError) -> str:
    text = str(error).removeprefix("b'").removeprefix('b"').replace("\\n", "\n").strip()
    first = text.splitlines()[0] if text else type(error).__name__
    if "premature EOF" in first or "Incomplete JSON" in first or not text:
        return "is cut: its end is missing; get it from a backup, or move it away"
    return f"is not JSON ({first}); mend it, or move it away"


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a value with doubles for decimals, as `json` reads them."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value
