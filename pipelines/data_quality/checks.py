"""What a suite checks, worked out from the contract: each check has a reason and the SQL of the rows it blames."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from pipelines.contracts import Column, Contract, RowRule
from pipelines.data_quality.signals import PRICES, SERIES
from pipelines.rules import EDGE_COLUMNS, SIGNAL_COLUMNS, check_rules, rule_columns

# Columns a checkable frame has besides the contract's own.
CONTEXT_COLUMNS = (
    *EDGE_COLUMNS,
    *SIGNAL_COLUMNS,
    "unreadable",
    "repeats_previous",
    "goes_back",
    "known_early",
    "is_overdue",
)
GIVEN = "__given_"
_INFINITY = "CAST('infinity' AS DOUBLE)"

Kind = Literal["not_null", "finite", "in_set", "rule"]
Severity = Literal["critical", "warning", "info"]
_SEVERITIES: dict[str, Severity] = {"error": "critical", "warning": "warning", "info": "info"}


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a suite; `rule` is SQL that is true for a good row, `allowed` the value set of an in_set check.

    A check that does not refuse fails a frame, but no row for it: the row is not at fault.
    """

    reason: str
    kind: Kind
    columns: tuple[str, ...]
    severity: Severity = "critical"
    rule: str = ""
    allowed: tuple[str, ...] = ()
    refuses: bool = True


@dataclass(frozen=True, slots=True)
class Blame:
    """The rows that break a check: SQL that is true for them, and what they are told."""

    reason: str
    condition: str
    check: str
    severity: Severity = "critical"
    refuses: bool = True

    @property
    def condemns(self) -> bool:
        """Whether a row is refused for it."""
        return self.severity == "critical" and self.refuses


def checks_for(contract: Contract, *, live: bool = False) -> tuple[Check, ...]:
    """Return a contract's checks: types, nulls, finite numbers, value sets, row rules, known assets, order of time.

    Args:
        contract: whose checks.
        live: with the check that the newest rows are there, `freshness_minutes` after they were due.

    Raises:
        ContractError: a row rule can never work; names the contract's file, the rule and what to do.
    """
    check_rules(contract)
    columns = contract.provided_by("source", "edge")
    sets = {column.name: _set_rule(contract, column) for column in columns if column.allowed}
    checks = [_rule("wrong type", "NOT unreadable")]
    checks += [Check(f"null {c.name}", "not_null", (c.name,)) for c in columns if c.required]
    checks += [Check(f"not finite: {c.name}", "finite", (c.name,)) for c in columns if c.type == "double"]
    for column in columns:
        if column.allowed:
            known = sets[column.name]
            reason = known.reason if known else f"unknown {column.name}"
            checks.append(Check(reason, "in_set", (column.name,), allowed=column.allowed))
    if any(column.name == "asset_pair" for column in columns):
        checks.append(_rule("unknown asset", "asset_pair IS NULL OR price_min IS NOT NULL"))
    checks += [
        _rule(rule.reason, rule.expression, _SEVERITIES.get(rule.severity, "critical"))
        for rule in contract.row_rules
        if rule not in sets.values()
    ]
    if contract.keys:
        checks.append(_rule("repeated version", "NOT repeats_previous"))
    if has_bars(contract):
        checks.append(_rule("known before its close", "NOT known_early"))
        checks.append(_rule("time goes back", "NOT goes_back", "warning"))
    if live and contract.freshness_minutes is not None and contract.event_time:
        checks.append(replace(_rule("newest rows missing", "NOT is_overdue"), refuses=False))
    return tuple(checks)


def has_bars(contract: Contract) -> bool:
    """Say whether a contract's rows are bars: prices of series that have a timeframe."""
    return contract.event_time is not None and {*SERIES, *PRICES, "volume"} <= {c.name for c in contract.columns}


def identity(contract: Contract) -> list[str]:
    """Return the columns that identify a row where bars of several timeframes, which have tables apart, are mixed."""
    return [*contract.keys, *(c.name for c in contract.columns if c.name == "timeframe" and not c.key)]


def blames(contract: Contract, coerced: dict[str, str], *, live: bool = False) -> Iterator[Blame]:
    """Yield who is blamed for what, the structural defects first.

    Args:
        contract: the contract of the frame.
        coerced: for each column that came in another type, what to say of a value that could not be read.
        live: as for `checks_for`.
    """
    for name, reason in coerced.items():
        yield Blame(reason, f"{GIVEN}{name} IS NOT NULL AND {_quoted(name)} IS NULL", "wrong type")
    floats = {column.name for column in contract.columns if column.type == "double"}
    for check in checks_for(contract, live=live):
        name = check.columns[0]
        column = _quoted(name)
        if check.kind == "not_null":
            given = f"{GIVEN}{name}" if name in coerced else column
            yield Blame(check.reason, f"{given} IS NULL", check.reason)
        elif check.kind == "finite":
            yield Blame(f"NaN {name}", f"{column} > {_INFINITY}", check.reason)
            yield Blame(f"infinite {name}", f"abs({column}) = {_INFINITY}", check.reason)
        elif check.kind == "in_set":
            values = ", ".join(f"'{value}'" for value in check.allowed)
            yield Blame(check.reason, f"{column} NOT IN ({values})", check.reason)
        elif check.reason != "wrong type":
            bad = f"NOT ({holds(check.rule, floats & set(check.columns))})"
            yield Blame(check.reason, bad, check.reason, check.severity, check.refuses)


def holds(rule: str, floats: Collection[str]) -> str:
    """Return the rule with numbers that are not finite let through: their own check blames them."""
    loose = (f"coalesce(abs({_quoted(name)}) >= {_INFINITY}, false)" for name in sorted(floats))
    return " OR ".join([f"({rule})", *loose])


def _quoted(name: str) -> str:
    return f"`{name}`"


def _rule(reason: str, rule: str, severity: Severity = "critical") -> Check:
    return Check(reason, "rule", tuple(rule_columns(rule)), severity, rule)


def _set_rule(contract: Contract, column: Column) -> RowRule | None:
    """Return the row rule that says the same as the column's value set, whose words are then used."""
    for rule in contract.row_rules:
        if " IN (" in rule.expression and rule_columns(rule.expression) == [column.name]:
            return rule
    return None
