"""What the tests of data quality share."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Let nobody be called, and return the folders in which a careless library would leave things."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a network connection was tried")

    scratch, here = tmp_path / "scratch", tmp_path / "here"
    scratch.mkdir()
    here.mkdir()
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.chdir(here)
    return [scratch, here]
