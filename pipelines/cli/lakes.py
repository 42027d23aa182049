"""Which lake a command works on, and whether what it holds is made up."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from pipelines.cli.render import SYNTHETIC, say
from pipelines.config import Settings
from pipelines.errors import ConfigError, MixedOriginError, StorageError
from pipelines.storage import DeltaLakeManager
from pipelines.storage.creation import MARKER_TABLE

HOW_TO_MAKE_ONE = (
    "make one with `lakehouse backfill --assets BTCUSD,ETHUSD --days 7`, "
    "or offline with synthetic data: `lakehouse backfill --provider sample --assets BTCUSD,ETHUSD --days 7`"
)


class NoLakeError(StorageError):
    """There is no lake with tables in it; says how to make one."""


@dataclass(frozen=True, slots=True)
class ChosenLake:
    """A lake, a remark on why it was chosen where that needs one, and the option that chose it."""

    manager: DeltaLakeManager
    synthetic: bool
    remark: str = ""
    option: str = ""

    @property
    def address(self) -> str:
        """The lake's folder or object-store address."""
        return self.manager.storage_path

    def command(self, text: str) -> str:
        """Return a command to paste, made to be about this lake where it would be about another one without that."""
        return f"{text} {self.option}" if self.option else text

    def show(self) -> None:
        """Print which lake it is."""
        say(f"Lake {self.address}" + (f" · {SYNTHETIC}" if self.synthetic else ""), "bold")
        if self.remark:
            say(self.remark, "yellow")

    def as_dict(self) -> dict[str, object]:
        """Return what a JSON document says of the lake."""
        return {"lake": self.address, "synthetic": self.synthetic}


def lake_for_writing(settings: Settings, lake: str | None, *, synthetic: bool) -> ChosenLake:
    """Return the lake that takes this kind of data.

    Raises:
        MixedOriginError: the lake holds the other kind.
    """
    paths = settings.delta_lake
    manager = _manager(settings, lake, paths.sample_storage_path if synthetic else paths.storage_path)
    manager.check_origin(synthetic=synthetic)
    return ChosenLake(manager, synthetic)


def lake_for_reading(settings: Settings, lake: str | None, *, sample: bool) -> ChosenLake:
    """Return the lake asked for, else the configured one if it has tables, else the sample lake.

    Raises:
        ConfigError: --lake and --sample are both given.
        NoLakeError: none of them has tables.
    """
    if lake and sample:
        raise ConfigError("give either --lake or --sample, not both")
    paths = settings.delta_lake
    if lake or sample:
        chosen = _manager(settings, lake, paths.sample_storage_path)
        held = is_synthetic(chosen)
        if held is None:
            raise NoLakeError(f"there is no lake at {chosen.storage_path}; {HOW_TO_MAKE_ONE}")
        return ChosenLake(chosen, held, option=option_of(lake, sample=sample))
    configured = _manager(settings, None, paths.storage_path)
    held = is_synthetic(configured)
    if held is not None:
        return ChosenLake(configured, held)
    fallback = _manager(settings, None, paths.sample_storage_path)
    held = is_synthetic(fallback)
    if held is None:
        raise NoLakeError(f"no lake yet at {configured.storage_path}; {HOW_TO_MAKE_ONE}")
    return ChosenLake(fallback, held, remark=f"(the configured lake {configured.storage_path} is empty)")


def option_of(lake: str | None, *, sample: bool) -> str:
    """Return the option that was given to choose a lake, as a shell takes it; empty if none was."""
    if lake:
        return f"--lake {shlex.quote(lake)}"
    return "--sample" if sample else ""


def is_synthetic(manager: DeltaLakeManager) -> bool | None:
    """Say whether a lake's data is made up; None for a lake without tables."""
    if not manager.exists(MARKER_TABLE):
        return None
    try:
        manager.check_origin(synthetic=True)
    except MixedOriginError:
        return False
    return True


def _manager(settings: Settings, lake: str | None, configured: str) -> DeltaLakeManager:
    """Open a lake; a path from the command line counts from the current folder, not from the project's."""
    if lake is None:
        return DeltaLakeManager(settings.resolve(configured), settings)
    return DeltaLakeManager(lake if "://" in lake else str(Path(lake).expanduser().absolute()), settings)
