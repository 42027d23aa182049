"""Which file column is which contract column: as mapped, else by name, else by the usual aliases."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.contracts import Contract
from pipelines.errors import SourceError
from pipelines.sources.base import MARKET_DATA
from pipelines.sources.files.spec import FileSpec

ASSET = "asset_pair"
_TIME = ("timestamp", "datetime", "date", "time", "ts", "opentime", "datetimeutc", "timeutc")
_BARS = {
    "open": ("open", "o", "openprice"),
    "high": ("high", "h", "highprice"),
    "low": ("low", "l", "lowprice"),
    "close": ("close", "c", "closeprice"),
    "volume": ("volume", "v", "vol"),
}
_ASSET_NAMES = ("assetpair", "asset", "pair", "symbol", "ticker", "instrument")


@dataclass(frozen=True, slots=True)
class Columns:
    """Finds a dataset's columns among a file's."""

    contract: Contract
    mapping: Mapping[str, str]
    with_asset: bool

    @classmethod
    def of(cls, spec: FileSpec, contract: Contract) -> Columns:
        """Return what a spec asks for; the asset is a column only if the spec names no instrument."""
        declared = any(column.name == ASSET for column in contract.columns)
        return cls(contract, spec.mapping, declared and spec.instrument is None)

    @property
    def wanted(self) -> list[str]:
        """The contract columns that a file may give."""
        names = [column.name for column in self.contract.provided_by("source")]
        return [ASSET, *names] if self.with_asset else names

    def find(self, path: Path, names: Sequence[str]) -> dict[str, str]:
        """Return contract column -> file column for all that are there.

        Raises:
            SourceError: a required or mapped column is missing, or two file columns claim one; lists what there is.
        """
        found: dict[str, str] = {}
        for wanted in self.wanted:
            name = self._find_one(path, wanted, names)
            if name is not None:
                found[wanted] = name
        missing = [name for name in self.wanted if name not in found and self._is_required(name)]
        if missing:
            hint = " or name the asset" if ASSET in missing else ""
            raise SourceError(
                f"{path}: no column for {', '.join(missing)}; the file has {', '.join(names) or 'no column'}. "
                f"Map one, for example {missing[0]}=COLUMN{hint}"
            )
        return found

    def _is_required(self, name: str) -> bool:
        return name == ASSET or self.contract.column(name).required

    def _find_one(self, path: Path, wanted: str, names: Sequence[str]) -> str | None:
        mapped = self.mapping.get(wanted)
        if mapped is not None:
            if mapped in names:
                return mapped
            matches = [name for name in names if name.strip().lower() == mapped.strip().lower()]
            if not matches:
                raise SourceError(f"{path}: {wanted} is mapped to {mapped!r}, but the file has {', '.join(names)}")
            return _only(path, wanted, matches)
        taken = set(self.mapping.values())
        for alias in self._aliases(wanted):
            matches = [name for name in names if _plain(name) == alias and name not in taken]
            if matches:
                return _only(path, wanted, matches)
        return None

    def _aliases(self, wanted: str) -> tuple[str, ...]:
        if wanted == self.contract.event_time:
            return (_plain(wanted), *_TIME)
        if wanted == ASSET:
            return _ASSET_NAMES
        if self.contract.id == MARKET_DATA:
            return _BARS.get(wanted, (_plain(wanted),))
        return (_plain(wanted),)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _only(path: Path, wanted: str, matches: Sequence[str]) -> str:
    if len(matches) > 1:
        raise SourceError(f"{path}: both {' and '.join(map(repr, matches))} could be {wanted}; map one of them")
    return matches[0]
