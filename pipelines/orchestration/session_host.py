"""Holds one Spark session for the dbt tasks of a run: a process that does their steps, one after the other.

Started by `shared_session`, on a Unix socket of this user's alone. Each connection is one step: it is greeted, asks in
a line of JSON and is answered in one. One that goes away, as that of a task that was killed, ends the process with what
it is at; and so does a while without a connection.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from pipelines.orchestration.retrying import delay_before

# For dbt to put an end to what it is at; the JVM ends with this process.
_END_WITHIN_SECONDS = 30.0


def serve(address: Path, idle_seconds: float) -> None:
    """Do steps until nobody has asked for so many seconds.

    Args:
        address: of the socket; removed at the end.
        idle_seconds: how long to wait for the next connection.

    Raises:
        KeyboardInterrupt: somebody who had asked has gone away.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(address))
        try:
            listener.listen()
            listener.settimeout(idle_seconds)
            with suppress(TimeoutError):
                while True:
                    connection, _ = listener.accept()
                    with connection, suppress(ConnectionError):
                        _answer(connection)
        finally:
            address.unlink(missing_ok=True)


def _answer(connection: socket.socket) -> None:
    connection.settimeout(None)
    with connection.makefile("rwb") as stream:
        _send(stream, {"process": os.getpid()})
        asked = stream.readline()
        if not asked:
            return
        with _while_asked(connection):
            answer = _done(json.loads(asked))
        _send(stream, answer)


def _done(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Do a step; returns its result, or what a task needs to know of its error."""
    from pipelines import tasks  # noqa: PLC0415 - the socket is there before

    steps = {each.__name__: each for each in (tasks.transform_silver, tasks.transform_marts, tasks.check_transform)}
    try:
        return {"result": steps[asked["step"]](asked["models"], sample=asked["sample"])}
    except Exception as error:  # noqa: BLE001 - the task is told, whatever it is
        traceback.print_exc()
        return {
            "error": str(error) or type(error).__name__,
            "retryable": delay_before(error, 1, timedelta(seconds=1)) is not None,
        }


@contextmanager
def _while_asked(connection: socket.socket) -> Iterator[None]:
    """Interrupt what is done here when the one who asked for it is gone."""
    done = threading.Event()

    def watch() -> None:
        with suppress(OSError):
            # Nothing more is ever sent: this returns at the end of the connection.
            connection.recv(1)
        if done.is_set():
            return
        os.kill(os.getpid(), signal.SIGINT)
        if not done.wait(_END_WITHIN_SECONDS):
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _send(stream: Any, message: Mapping[str, Any]) -> None:  # noqa: ANN401 - a buffer for both directions
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


if __name__ == "__main__":
    # It is ignored from the start on where what started all of this runs in a shell's background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        serve(Path(sys.argv[1]), float(sys.argv[2]))
