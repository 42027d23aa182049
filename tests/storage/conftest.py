"""Lakes of every kind: both engines, on local disk and on S3."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.storage import DeltaLakeManager
from tests.conftest import make_settings

ENGINES = ("spark", "embedded")
STORES = ("disk", "s3")


def manager(folder: Path, address: str, engine: str, **storage: Any) -> DeltaLakeManager:
    """Return a lake at an address, written by an engine."""
    here = {"delta_lake": {"storage_path": address}, "storage": {"engine": engine, **storage}}
    return DeltaLakeManager(address, make_settings(folder, here))


@pytest.fixture(params=STORES)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An address for a new lake, on each store."""
    if request.param == "disk":
        return str(tmp_path / "lake")
    found: str = request.getfixturevalue("s3_lake_path")
    return found


@pytest.fixture(params=[pytest.param("spark", marks=pytest.mark.spark), "embedded"])
def engine(request: pytest.FixtureRequest) -> str:
    """The name of each engine."""
    if request.param == "spark":
        request.getfixturevalue("spark")
    return str(request.param)


@pytest.fixture
def any_lake(tmp_path: Path, address: str, engine: str) -> DeltaLakeManager:
    """A new lake of each engine on each store."""
    return manager(tmp_path, address, engine)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of three megabytes."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
