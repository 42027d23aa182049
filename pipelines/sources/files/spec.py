"""What to read: a path, a folder or a pattern, and how its columns are to be understood."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pipelines.contracts import Contract, load_contracts
from pipelines.errors import SourceError, UnsupportedError
from pipelines.sources.base import MARKET_DATA
from pipelines.timeframes import Timeframe

if TYPE_CHECKING:
    from pipelines.instruments import Instrument

FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
}
_PATTERN = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class FileSpec:
    """One thing to load.

    Attributes:
        path: a file, a folder (read recursively) or a pattern such as `bars/*.csv.gz`.
        dataset: the contract the rows belong to.
        instrument: whose rows they are; None if a column `asset_pair` says so.
        timeframe: the bars' length; None for other datasets.
        mapping: contract column -> file column, where the usual aliases do not find it.
        tz: IANA zone of times that carry none; None leaves them zoneless, which the edge refuses.
    """

    path: str | Path
    dataset: str = MARKET_DATA
    instrument: Instrument | None = None
    timeframe: Timeframe | None = None
    mapping: Mapping[str, str] = field(default_factory=dict)
    tz: str | None = None

    def contract(self) -> Contract:
        """Check what the rest of the reading relies on and return the dataset's contract.

        Raises:
            UnsupportedError: the dataset is unknown or kept by the lake itself, or bars come without a timeframe.
            SourceError: the time zone is unknown, or the mapping names a column the dataset does not have.
        """
        contracts = {name: contract for name, contract in load_contracts().items() if not contract.is_log}
        if self.dataset not in contracts:
            raise UnsupportedError(f"unknown dataset {self.dataset!r}; files can hold {', '.join(contracts)}")
        if self.dataset == MARKET_DATA and self.timeframe is None:
            raise UnsupportedError(f"{self.path}: bars need a timeframe, one of {', '.join(Timeframe)}")
        contract = contracts[self.dataset]
        known = {column.name for column in contract.provided_by("source")} | {"asset_pair"}
        for name in self.mapping:
            if name not in known:
                raise SourceError(f"cannot map {name!r}: {self.dataset} takes {', '.join(sorted(known))}")
        _check_zone(self.tz)
        return contract

    def files(self) -> list[Path]:
        """Return the files meant, sorted by path.

        Raises:
            SourceError: there is none, or a file's name does not tell its format.
        """
        path = Path(self.path).expanduser()
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if _is_data(file.relative_to(path)) and file.is_file())
            if not found:
                raise SourceError(f"no data file in the folder {path}; known endings are {_endings()}")
            return found
        if path.is_file():
            found = [path]
        elif _PATTERN & set(str(path)):
            found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())  # noqa: PTH207 - Path.glob takes no absolute pattern
        else:
            found = []
        if not found:
            raise SourceError(f"no file at {path}")
        for file in found:
            if format_of(file) is None:
                raise SourceError(f"{file}: cannot tell the format from its name; known endings are {_endings()}")
        return found


def format_of(path: Path) -> str | None:
    """Return csv, parquet or json by a file name's ending, or None; `.gz` after csv and json is allowed."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes[-1:] == [".gz"]
    suffix = "".join((suffixes[:-1] if packed else suffixes)[-1:])
    found = FORMATS.get(suffix)
    return None if packed and found == "parquet" else found


def is_packed(path: Path) -> bool:
    """Say whether a file is compressed with gzip, by its name."""
    return path.suffix.lower() == ".gz"


def _is_data(path: Path) -> bool:
    hidden = any(part.startswith((".", "_")) for part in path.parts)
    return not hidden and format_of(path) is not None


def _endings() -> str:
    return f"{', '.join(FORMATS)} (csv and json also .gz)"


def _check_zone(name: str | None) -> None:
    if name is None:
        return
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise SourceError(f"unknown time zone {name!r}; write an IANA name such as UTC or America/New_York") from None
