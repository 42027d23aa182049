"""What the registry says of the assets of a lake, as digests: rows that were made by other facts are stale."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from pipelines.errors import UnknownAssetError
from pipelines.instruments import load_registry
from pipelines.transform.marks import Facts

if TYPE_CHECKING:
    from pipelines.storage.travel.pins import Pin


def facts_of(pins: Mapping[str, Pin]) -> Facts:
    """Return a digest of the facts of every asset pair in the pinned tables of bronze."""
    return digests({asset for pin in pins.values() for asset in pin.assets})


def digests(assets: Iterable[str]) -> Facts:
    """Return for each asset pair a digest of what models take from the registry; one for all that it does not know."""
    return {asset: hashlib.sha256(_facts(asset).encode()).hexdigest()[:8] for asset in sorted(assets)}


def _facts(asset: str) -> str:
    try:
        found = load_registry().resolve(asset)
    except UnknownAssetError:
        return ""
    return f"{found.asset_class} {found.calendar} {found.base} {found.quote}"
