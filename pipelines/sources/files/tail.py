"""Looks at a file's end before anything of it is read, so that a half-written one is refused whole."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from pipelines.errors import SourceError
from pipelines.sources.files.spec import is_packed

_TAIL = 1 << 16
_STEP = 1 << 20


@dataclass(frozen=True, slots=True)
class Tail:
    """The last bytes of a text file and where, in bytes of plain text, they start."""

    data: bytes
    offset: int

    @property
    def size(self) -> int:
        """The plain text's length in bytes."""
        return self.offset + len(self.data)

    @property
    def is_terminated(self) -> bool:
        """Whether the text ends with a line end."""
        return self.data.endswith((b"\n", b"\r"))

    def last_line(self) -> tuple[bytes, int] | None:
        """Return the last line that is not blank and its byte offset, or None if it is too long to be seen whole."""
        text = self.data.rstrip()
        start = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
        if start == 0 and self.offset:
            return None
        return text[start:], self.offset + start


def open_bytes(path: Path) -> BinaryIO:
    """Open a file's plain bytes, unpacking gzip.

    Raises:
        SourceError: it cannot be opened.
    """
    try:
        return cast("BinaryIO", gzip.open(path, "rb")) if is_packed(path) else path.open("rb")
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from None


def tail_of(path: Path) -> Tail:
    """Return a text file's end; a packed one is unpacked whole, which also proves it is complete.

    Raises:
        SourceError: the file is empty, cannot be read, or its gzip stream is cut or damaged.
    """
    try:
        tail = _packed_tail(path) if is_packed(path) else _plain_tail(path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(f"{path}: the gzip file is cut or damaged ({error})") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not tail.data.strip():
        raise SourceError(f"{path}: the file is empty or ends in blanks; was it written to its end?")
    return tail


def _plain_tail(path: Path) -> Tail:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        offset = file.seek(max(0, size - _TAIL))
        return Tail(file.read(), offset)


def _packed_tail(path: Path) -> Tail:
    data, size = b"", 0
    with gzip.open(path, "rb") as file:
        while block := file.read(_STEP):
            size += len(block)
            data = (data + block)[-_TAIL:]
    return Tail(data, size - len(data))
