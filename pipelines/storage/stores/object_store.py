"""delta-rs' object stores as a file system for pyarrow."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from deltalake.fs import DeltaStorageHandler
from typing_extensions import override


class ObjectStoreHandler(DeltaStorageHandler):
    """The handler of delta-rs, whose output streams take the buffers that pyarrow writes."""

    @override
    def open_output_stream(self, path: str, metadata: dict[str, str] | None = None) -> pa.PythonFile:
        """Open a stream; what is written appears whole when it is closed."""
        return pa.PythonFile(_Bytes(self._handler.open_output_stream(path, metadata)))


class _Bytes:
    """Hands buffers on as bytes: delta-rs takes nothing else."""

    closed = False

    def __init__(self, stream: Any) -> None:  # noqa: ANN401 - its type is delta-rs' own, and declared in part
        self._stream = stream

    def write(self, data: bytes | pa.Buffer) -> int:
        return int(self._stream.write(bytes(data)))

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
            self.closed = True

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False
