"""A real PostgreSQL on loopback, with a folder of its own that goes when it stops."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from pathlib import Path

import psycopg2
import pytest
from typing_extensions import override

from pipelines.streaming.ports import reserved_port
from tests.servers.process import OneProcess

_PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
_USER = "airflow"


def need_postgres() -> Path:
    """Return the folder of its programs, or skip: on CI a skip is a failure."""
    if not _PLACES:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    return _PLACES[-1]


class Postgres(OneProcess):
    """Use it as a context manager; `address` is an empty database for SQLAlchemy."""

    # At once, without waiting for its clients.
    ending = signal.SIGINT
    not_up = (psycopg2.OperationalError,)

    def __init__(self) -> None:
        self._programs = need_postgres()
        super().__init__("postgres")
        self._port = reserved_port()
        self.address = f"postgresql+psycopg2://{_USER}@127.0.0.1:{self._port}/postgres"

    @override
    def command(self) -> list[str]:
        data = self.folder / "data"
        if os.geteuid() == 0:
            known = pwd.getpwnam("postgres")
            os.chown(self.folder, known.pw_uid, known.pw_gid)
        given = ["-D", str(data), "-U", _USER, "--auth=trust", "--no-sync", "--encoding=UTF8"]
        subprocess.run([*_as_postgres(), str(self._programs / "initdb"), *given], check=True, capture_output=True)
        options = ["-D", str(data), "-h", "127.0.0.1", "-p", str(self._port), "-k", str(self.folder), "-F"]
        return [*_as_postgres(), str(self._programs / "postgres"), *options]

    @override
    def look(self) -> None:
        psycopg2.connect(host="127.0.0.1", port=self._port, user=_USER, dbname="postgres").close()


def _as_postgres() -> list[str]:
    """Return what runs a command as the user of that name: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
