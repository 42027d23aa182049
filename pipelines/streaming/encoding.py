"""From a row to a message: JSON or plain Avro in the contract's types, keyed by what the row is about."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from pipelines.contracts import Contract
from pipelines.errors import ContractError
from pipelines.streaming.schemas import avro_schema, message_columns
from pipelines.timeframes import micros

if TYPE_CHECKING:
    from pipelines.streaming.topics import Topic

Row: TypeAlias = Mapping[str, object]
Encode: TypeAlias = Callable[[Row], bytes]
_Read: TypeAlias = Callable[[Any], object]

ASSET = "asset_pair"
_LONG = range(-(2**63), 2**63)
_FIRST_DAY = date(1970, 1, 1).toordinal()
_write_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class EncodingError(ContractError):
    """A row cannot be a message of its topic; the text names the column, not the value, so that it can be counted."""


def encoder(topic: Topic) -> Encode:
    """Return what turns a row into a message of the topic.

    The row gives columns that a message carries (`schemas.message_columns`) in Python's types: instants aware, in any
    zone; an optional column may be left out. In JSON, UTF-8, an instant is ISO 8601 in UTC with microseconds and Z;
    plain Avro has no header.

    Raises:
        EncodingError: (what is returned) a required column is null, a value has another type or is no finite number,
            or a column is not the message's.
    """
    as_json = topic.format == "json"
    columns = message_columns(topic.contract)
    fields = tuple((each.name, each.required, _reader(each.arrow_type, as_json=as_json)) for each in columns)
    known = frozenset(each.name for each in columns)
    write = _json if as_json else _avro(topic.contract)

    def encode(row: Row) -> bytes:
        if not row.keys() <= known:
            raise EncodingError(f"not in a message of {topic.contract.id}: {', '.join(sorted(row.keys() - known))}")
        message: dict[str, object] = {}
        name = ""
        try:
            for name, required, read in fields:
                value = row.get(name)
                if value is None and required:
                    raise EncodingError(f"null {name}")
                message[name] = None if value is None else read(value)
            return write(message)
        except UnicodeEncodeError:
            raise EncodingError("a text is not Unicode") from None
        except (TypeError, ValueError, OverflowError):
            raise EncodingError(f"wrong type: {name}") from None

    return encode


def subject_column(contract: Contract) -> str:
    """Return the column that a dataset's messages are keyed by: the asset, or else the first column of the key."""
    names = [column.name for column in message_columns(contract)]
    return ASSET if ASSET in names else next(name for name in contract.keys if name in names)


def message_key(contract: Contract) -> Encode:
    """Return what gives the key of a row's message: its subject in UTF-8."""
    subject = subject_column(contract)
    return lambda row: str(row[subject]).encode()


def _json(message: Mapping[str, object]) -> bytes:
    return _write_json(message).encode()


def _avro(contract: Contract) -> Callable[[Mapping[str, object]], bytes]:
    from fastavro import parse_schema, schemaless_writer  # noqa: PLC0415 - only topics in Avro need it

    schema = parse_schema(avro_schema(contract))

    def write(message: Mapping[str, object]) -> bytes:
        out = io.BytesIO()
        schemaless_writer(out, schema, message)
        return out.getvalue()

    return write


def _reader(kind: pa.DataType, *, as_json: bool) -> _Read:
    """Return what checks a value of a type and makes it what is written; raises TypeError or ValueError."""
    if pa.types.is_timestamp(kind):
        return _iso if as_json else _micros
    if pa.types.is_date(kind):
        return _iso_day if as_json else _days
    if pa.types.is_list(kind):
        return _list_reader(_reader(kind.value_type, as_json=as_json))
    if pa.types.is_struct(kind):
        return _record_reader({part.name: _reader(part.type, as_json=as_json) for part in kind})
    return _PRIMITIVES[kind]


def _list_reader(read: _Read) -> _Read:
    def read_list(value: object) -> list[object]:
        if not isinstance(value, list | tuple):
            raise TypeError
        return [None if each is None else read(each) for each in value]

    return read_list


def _record_reader(readers: Mapping[str, _Read]) -> _Read:
    def read_record(value: object) -> dict[str, object]:
        if not isinstance(value, Mapping) or not value.keys() <= readers.keys():
            raise TypeError
        return {name: None if (part := value.get(name)) is None else read(part) for name, read in readers.items()}

    return read_record


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _double(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value not in _LONG:
        raise TypeError
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _iso(value: object) -> str:
    return _utc(value).isoformat(timespec="microseconds")[:-6] + "Z"


def _micros(value: object) -> int:
    return micros(_utc(value))


def _utc(value: object) -> datetime:
    """Return an instant in UTC; a zoneless one means nothing."""
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise TypeError
    return value.astimezone(UTC)


def _iso_day(value: object) -> str:
    return _day(value).isoformat()


def _days(value: object) -> int:
    return _day(value).toordinal() - _FIRST_DAY


def _day(value: object) -> date:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise TypeError
    return value


_PRIMITIVES: Mapping[pa.DataType, _Read] = {
    pa.string(): _text,
    pa.float64(): _double,
    pa.int64(): _whole,
    pa.bool_(): _flag,
}
