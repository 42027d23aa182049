"""What servers of one process have in common: a folder that goes when they stop, and a wait until they are up."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

_TOLD = 3000
_PAUSE_SECONDS = 0.05


class OneProcess(ABC):
    """Use it as a context manager; what it prints is in `log` of its folder."""

    up_within_seconds = 60.0
    # Nothing in it is worth an orderly end.
    ending = signal.SIGKILL
    # What a look raises as long as it is not up.
    not_up: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, name: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"lakehouse-{name}-"))
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """Make what it reads, and return what starts it."""

    @abstractmethod
    def look(self) -> None:
        """Raise one of `not_up` unless it is."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start it, over what its folder holds if it has run before, and wait until it is up."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.folder)
        self._wait()

    def stop(self) -> None:
        """End it; what is in its folder stays."""
        if self._process is not None:
            self._process.send_signal(self.ending)
            self._process.wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + self.up_within_seconds
        while True:
            try:
                self.look()
            except self.not_up as error:
                if time.monotonic() > deadline or (self._process and self._process.poll() is not None):
                    log = (self.folder / "log").read_text(errors="replace")[-_TOLD:]
                    raise RuntimeError(f"{type(self).__name__} is not up: {log}") from error
                time.sleep(_PAUSE_SECONDS)
            else:
                return
