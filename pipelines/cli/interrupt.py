"""Ctrl-C once ends a run in good order, twice at once. Nothing is lost either way: every write is whole."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.cli.failures import INTERRUPTED

if TYPE_CHECKING:
    from pipelines.cli.progress import Tally

_T = TypeVar("_T")
_STOPPING = "stopping: what has been fetched is still written; press Ctrl-C again to abort"


@contextmanager
def on_signals(call: Callable[[], None]) -> Iterator[None]:
    """Have SIGINT and SIGTERM call something, and put back what they did before."""

    def asked(_number: int, _frame: FrameType | None) -> None:
        call()

    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_stoppable(
    work: Callable[[], Coroutine[Any, Any, _T]], stop: Callable[[], None], display: Tally, says: str = _STOPPING
) -> _T:
    """Run a coroutine; the first SIGINT or SIGTERM calls `stop` and `says` so, the second ends the process."""
    asked = False

    def interrupted() -> None:
        nonlocal asked
        if asked:
            # Threads in mid-commit cannot be called back; a commit is whole or not there.
            display.close()
            os.write(2, b"aborted\n")
            os._exit(INTERRUPTED)
        asked = True
        stop()
        display.note(says)

    async def watched() -> _T:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupted)
        return await work()

    return asyncio.run(watched())
