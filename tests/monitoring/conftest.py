"""A small lake that a real run of the sample provider filled, once for all, and a copy of it for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.storage import DeltaLakeManager
from tests.cli.shell import run
from tests.conftest import make_settings

ASSETS, START, END = "BTCUSD,EURUSD", "2025-12-01", "2025-12-04"
EMBEDDED = {"LAKEHOUSE__STORAGE__ENGINE": "embedded"}


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the lake `sample`; nobody changes it."""
    folder = tmp_path_factory.mktemp("monitored")
    done = run(
        folder, "backfill", "--provider", "sample", "--assets", ASSETS, "--start", START, "--end", END, "--quiet",
        **EMBEDDED,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def sample(sample_folder: Path, tmp_path: Path) -> DeltaLakeManager:
    """A copy of the lake, at `lake` in the test's folder, that a test may change."""
    shutil.copytree(sample_folder / "sample", tmp_path / "lake")
    settings = make_settings(tmp_path, {"storage": {"engine": "embedded"}})
    return DeltaLakeManager(settings.delta_lake.storage_path, settings)
