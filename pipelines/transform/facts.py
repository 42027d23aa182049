"""What the registry says of the assets of a lake, as digests: rows that were made by other facts are stale."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from pipelines.contracts import PARTITION_PREFIX
from pipelines.errors import UnknownAssetError
from pipelines.instruments import load_registry
from pipelines.transform.marks import Facts

if TYPE_CHECKING:
    from pipelines.storage import DeltaLakeManager
    from pipelines.storage.travel.pins import Pin

_BY_ASSET = PARTITION_PREFIX + "asset_pair"


def facts_of(manager: DeltaLakeManager, pins: Mapping[str, Pin]) -> Facts:
    """Return a digest of the facts of every asset pair in the pinned tables of bronze."""
    tables = [table for table, pin in pins.items() if _BY_ASSET in pin.columns]
    return digests({asset for table in tables for asset in manager.assets(table)})


def digests(assets: Iterable[str]) -> Facts:
    """Return for each asset pair a digest of what models take from the registry; one for all that it does not know."""
    return {asset: hashlib.sha256(_facts(asset).encode()).hexdigest()[:8] for asset in sorted(assets)}


def _facts(asset: str) -> str:
    try:
        found = load_registry().resolve(asset)
    except UnknownAssetError:
        return ""
    return f"{found.asset_class} {found.calendar} {found.base} {found.quote}"
