"""Refused rows made ready for the edge again: what it was told of them, and pages whose values share their types."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipelines.contracts import Column, Contract, load_contracts
from pipelines.edge import EdgeContext
from pipelines.errors import ConfigError, DeadLetterError, UnknownAssetError
from pipelines.instruments import Instrument, load_registry
from pipelines.sources.base import Capabilities, raw_table
from pipelines.sources.redaction import HIDDEN
from pipelines.sources.registry import open_source
from pipelines.timeframes import Timeframe

if TYPE_CHECKING:
    from pipelines.config import Settings
    from pipelines.data_quality.dlq_reading import Head
    from pipelines.data_quality.dlq_stream import Row

# Carries a row's place through the edge.
PLACE = "__place"
NOT_TOLD = "not told whether a bar or a finer one it is built from"
_ASSET = "asset_pair"
_BYTES = re.compile(r"b(['\"]).*\1", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Told:
    """What the edge is told of a row, whether its provider makes data up, and which bars it builds from such rows."""

    context: EdgeContext
    synthetic: bool
    built: tuple[Timeframe, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """Rows that the edge is told the same of, in one table; the column `__place` numbers them."""

    told: Told
    table: pa.Table


class Teller:
    """Knows what the edge is to be told of the rows of one file: what its context says, the row, or the provider.

    Raises:
        DeadLetterError: the file's dataset, asset pair or timeframe is unknown, or its rows have no identity.
    """

    def __init__(self, head: Head, settings: Settings, clock: Callable[[], datetime]) -> None:
        self.head = head
        self.contract = _contract(head)
        self._settings = settings
        self._clock = clock
        self._instrument = self._known_asset()
        self._timeframe = self._known_timeframe()
        edge = self.contract.provided_by("edge")
        self._edge: Mapping[str, Column] = {column.name: column for column in edge if column.name != _ASSET}
        self._names = tuple(self._edge)
        self._kept = [column.name for column in self.contract.provided_by("source", "edge")]
        self._known: dict[tuple[object, ...], Told | str] = {}
        self._capabilities: dict[str, Capabilities | None] = {}

    def pages(self, rows: Sequence[tuple[Row, str]], verdicts: dict[int, str]) -> list[Page]:
        """Sort rows into pages; those that must not be validated get their reason in `verdicts`, by place."""
        groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for place, (record, reason) in enumerate(rows):
            key = self._key(record)
            told = self._known.get(key)
            if told is None:
                told = self._known[key] = self._tell(key)
            why = told if isinstance(told, str) else self._spoiled(record, reason)
            if why:
                verdicts[place] = why
            else:
                groups[key].append(place)
        return [
            Page(told, self._table([rows[place][0] for place in alike], alike))
            for key, places in groups.items()
            if isinstance(told := self._known[key], Told)
            for alike in _alike(rows, places)
        ]

    def _key(self, record: Row) -> tuple[object, ...]:
        values = (self.head.of(name, record) for name in self._names)
        return tuple(value if value is None or isinstance(value, str | bool) else str(value) for value in values)

    def _tell(self, key: tuple[object, ...]) -> Told | str:
        """Return what the edge is told of rows with these values, or why that cannot be known."""
        given = dict(zip(self._names, key, strict=True))
        provider = str(given.get("provider") or self.head.context.get("provider") or "")
        timeframe = given.get("timeframe") or (self._timeframe and self._timeframe.value)
        capabilities = self._capabilities_of(provider)
        if why := self._untold({**given, "provider": provider, "timeframe": timeframe}, capabilities):
            return why
        usual = capabilities or Capabilities(frozenset())
        adjusted = given.get("is_adjusted")
        context = EdgeContext(
            contract=_numbered(self.contract),
            provider=provider,
            now=self._clock(),
            instrument=self._instrument,
            timeframe=Timeframe(str(timeframe)) if timeframe and "timeframe" in self._edge else None,
            price_side=str(given.get("price_side") or usual.price_side),
            adjusted=bool(usual.adjusted if adjusted is None else adjusted),
            derived=bool(given.get("is_derived")),
        )
        built = tuple(longer for longer, finer in usual.derived.items() if finer == context.timeframe)
        return Told(context, usual.synthetic, built)

    def _untold(self, given: Mapping[str, object], capabilities: Capabilities | None) -> str:
        """Say what is wrong with the values that the edge fills in itself, and so does not check, or is unknown."""
        for name, column in self._edge.items():
            value = given.get(name)
            if name in {"provider", "timeframe"} and not value and column.required:
                return f"null {name}"
            if value is not None and column.allowed and value not in column.allowed:
                return f"unknown {name}"
            if value is not None and column.type == "boolean" and not isinstance(value, bool):
                return f"wrong type: {name}"
        if "price_side" in self._edge:
            if capabilities is None and None in (given["price_side"], given["is_adjusted"]):
                return f"unknown provider {given['provider']}, and the row has no price_side or is_adjusted"
            if capabilities is not None and given["is_derived"] is None and given["timeframe"] in capabilities.derived:
                return NOT_TOLD
        return ""

    def _capabilities_of(self, provider: str) -> Capabilities | None:
        if provider not in self._capabilities:
            try:
                self._capabilities[provider] = open_source(provider, self._settings).capabilities
            except ConfigError:
                self._capabilities[provider] = None
        return self._capabilities[provider]

    def _spoiled(self, record: Row, reason: str) -> str:
        """Say what of a row is not what the source gave: the queue hides secrets, and JSON holds no bytes."""
        for name in self._kept:
            value = record.get(name)
            if value is None:
                # What a source could not hand over at all is null in the row; only the reason tells.
                if f"{name} is not " in reason:
                    return reason
            elif not isinstance(value, float | int):
                if _holds(value, HIDDEN):
                    return f"hidden value: {name}"
                if isinstance(value, str) and _BYTES.fullmatch(value):
                    return f"bytes for text: {name}"
        return ""

    def _table(self, records: Sequence[Row], places: Sequence[int]) -> pa.Table:
        names = [name for name in self._kept if any(name in record for record in records)]
        columns: dict[str, Sequence[object]] = {name: [record.get(name) for record in records] for name in names}
        return raw_table({**columns, PLACE: places})

    def _known_asset(self) -> Instrument | None:
        pair = self.head.context.get(_ASSET)
        if pair is None or _ASSET not in self.contract.arrow_schema.names:
            return None
        try:
            return load_registry().resolve(str(pair))
        except UnknownAssetError as error:
            raise DeadLetterError(f"{self.head.path}: {error}; it is left as it is") from None

    def _known_timeframe(self) -> Timeframe | None:
        context = self.head.context
        if "timeframe" not in [column.name for column in self.contract.provided_by("edge")]:
            return None
        found = context.get("timeframe")
        if found is None:
            return self.contract.timeframe_of(str(context.get("table")))
        if found not in set(Timeframe):
            raise DeadLetterError(f"{self.head.path}: unknown timeframe {found!r}; it is left as it is")
        return Timeframe(str(found))


def _contract(head: Head) -> Contract:
    contracts = load_contracts()
    if head.dataset is None:
        raise DeadLetterError(f"{head.path} does not say of which dataset its rows are; it is left as it is")
    if head.dataset not in contracts:
        known = ", ".join(contracts)
        raise DeadLetterError(f"{head.path}: no contract {head.dataset!r} (known: {known}); it is left as it is")
    found = contracts[head.dataset]
    if not found.keys:
        raise DeadLetterError(
            f"{head.path}: rows of {found.id} have no key, so they could land twice; it is left as it is"
        )
    return found


@cache
def _numbered(contract: Contract) -> Contract:
    """Return the contract with one more column, the row's place, which is neither key nor value."""
    place = Column(
        name=PLACE,
        type="bigint",
        description="Place of the row.",
        required=False,
        key=False,
        partition=False,
        restates=False,
        provided="source",
        allowed=(),
    )
    return replace(contract, columns=(*contract.columns, place))


def _alike(rows: Sequence[tuple[Row, str]], places: Sequence[int]) -> list[list[int]]:
    """Part rows by the kinds of their values, so that one wrong value does not make text of its whole column."""
    groups: dict[tuple[tuple[str, str], ...], list[int]] = defaultdict(list)
    for place in places:
        kinds = [(name, _kind(value)) for name, value in rows[place][0].items() if value is not None]
        groups[tuple(kinds)].append(place)
    return _merged(groups)


def _merged(groups: Mapping[tuple[tuple[str, str], ...], list[int]]) -> list[list[int]]:
    """Put groups together that differ by nulls alone."""
    merged: list[tuple[dict[str, str], list[int]]] = []
    for kinds, places in groups.items():
        mine = dict(kinds)
        for theirs, found in merged:
            if all(theirs.get(name, kind) == kind for name, kind in mine.items()):
                theirs.update(mine)
                found.extend(places)
                break
        else:
            merged.append((mine, list(places)))
    return [sorted(places) for _, places in merged]


def _kind(value: Any) -> str:  # noqa: ANN401 - JSON
    if isinstance(value, list):
        return f"list of {' and '.join(sorted({_kind(part) for part in value}))}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_kind(part)}" for name, part in value.items() if part is not None)
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, float | int) else type(value).__name__


def _holds(value: object, text: str) -> bool:
    if isinstance(value, str):
        return text in value
    if isinstance(value, Mapping):
        return any(_holds(part, text) for part in value.values())
    return isinstance(value, list) and any(_holds(part, text) for part in value)
