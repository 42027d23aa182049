"""Row rules that can work at all: what a contract says is proved before a row is judged by it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations, pairwise, product
from math import prod
from random import Random

import polars as pl

from pipelines.coercion import INSTANT, polars_type
from pipelines.contracts import Contract, RowRule
from pipelines.errors import ContractError
from pipelines.timeframes import EPOCH

# What rules may read besides the contract's own columns; the edge knows the first four.
EDGE_COLUMNS: dict[str, pl.DataType] = {
    "price_min": pl.Float64(),
    "price_max": pl.Float64(),
    "closes_at": INSTANT,
    "now": INSTANT,
}
SIGNAL_COLUMNS: dict[str, pl.DataType] = {"spike_score": pl.Float64(), "flat_run": pl.Int64()}

_FIRST_TRIALS = 300
_MOST_TRIALS = 300_000
_TEXT = re.compile(r"'((?:[^']|'')*)'")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?!\w)")
# Beyond comparisons of columns and constants, trial values prove nothing.
_BEYOND_COMPARING = re.compile(
    r"(?i)[+*/%|]|-(?!\s*\d)|\b(?:like|ilike|rlike|regexp|case|cast|interval)\b|\b(?!in\b|and\b|or\b|not\b)\w+\s*\(",
    re.IGNORECASE,
)
_Values = list[float | bool | str | object | None]


def rule_columns(rule: str) -> list[str]:
    """Return the columns that a rule reads, in order."""
    return list(dict.fromkeys(pl.sql_expr(f"({rule})").meta.root_names()))


@cache
def check_rules(contract: Contract) -> None:
    """Prove that a contract's row rules can work; remembered, as a contract does not change.

    Raises:
        ContractError: a rule is not SQL, reads an unknown column, compares wrong types, is not a condition, has the
            reason of another, or no row can satisfy it or it and another one. Names the contract's file, the rule and
            what to do.
    """
    types = _types(contract)
    for index, rule in enumerate(contract.row_rules):
        if any(other.reason == rule.reason for other in contract.row_rules[:index]):
            raise _impossible(
                contract, rule, "another rule has the same name; rows could not tell them apart", "rename"
            )
        _check_sql(contract, rule, types)
    for rule in contract.row_rules:
        if not _can_hold((rule,), contract, types):
            raise _impossible(contract, rule, f"no row can satisfy {rule.expression!r}", "correct its comparisons")
    refusing = [rule for rule in contract.row_rules if rule.severity == "error"]
    for one, other in combinations(refusing, 2):
        if not _can_hold((one, other), contract, types):
            problem = f"no row can satisfy both {one.expression!r} and {other.expression!r} ({other.reason!r})"
            raise _impossible(contract, one, problem, "correct one of the two")


def _types(contract: Contract) -> dict[str, pl.DataType]:
    own = {column.name: polars_type(column) for column in contract.provided_by("source", "edge")}
    context = EDGE_COLUMNS | SIGNAL_COLUMNS
    if "timeframe" not in own:
        context = {name: kind for name, kind in context.items() if name != "closes_at"}
    return context | own


def _check_sql(contract: Contract, rule: RowRule, types: dict[str, pl.DataType]) -> None:
    try:
        condition = pl.sql_expr(f"({rule.expression})")
    except pl.exceptions.PolarsError as error:
        problem = f"{rule.expression!r} is not SQL that can be read: {_first_line(error)}"
        raise _impossible(contract, rule, problem, "write a condition that is true for a good row") from None
    known = [name for name in types if not (rule.severity == "error" and name in SIGNAL_COLUMNS)]
    for name in dict.fromkeys(condition.meta.root_names()):
        if name in SIGNAL_COLUMNS and name not in known:
            problem = f"it reads {name}, which takes a whole series and is unknown where rows are refused"
            raise _impossible(contract, rule, problem, "give it the severity warning")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=2)
            fix = f"did you mean {' or '.join(close)}?" if close else f"it may read {', '.join(known)}"
            raise _impossible(contract, rule, f"it reads a column {name!r} that does not exist", fix)
    try:
        kind = pl.LazyFrame(schema=types).select(found=condition).collect().schema["found"]
    except pl.exceptions.PolarsError as error:
        problem = f"{rule.expression!r} cannot be evaluated: {_first_line(error)}"
        raise _impossible(contract, rule, problem, "compare columns with values of their own type") from None
    if kind != pl.Boolean:
        problem = f"{rule.expression!r} gives {kind}, not true or false"
        raise _impossible(contract, rule, problem, "write a condition that is true for a good row")


def _can_hold(rules: Sequence[RowRule], contract: Contract, types: dict[str, pl.DataType]) -> bool:
    """Say whether a row can satisfy the rules; also true where that cannot be told.

    A condition made of comparisons sees only how values lie to each other and to its constants, so that trying, for n
    columns, the constants and n values between and beyond them tries every case.
    """
    text = " AND ".join(f"({rule.expression})" for rule in rules)
    bare = _TEXT.sub(" ", text)
    if _BEYOND_COMPARING.search(bare):
        return True
    names = rule_columns(text)
    constants = sorted({float(found) for found in _NUMBER.findall(bare)})
    texts = [found.replace("''", "'") for found in _TEXT.findall(text)]
    optional = {column.name for column in contract.columns if not column.required} | SIGNAL_COLUMNS.keys()
    trials: dict[str, _Values] = {}
    for name in names:
        values = _trial_values(types[name], constants, texts, len(names))
        if values is None:
            return True
        trials[name] = [*values, *([None] if name in optional else [])]
    if not names or prod(map(len, trials.values())) > _MOST_TRIALS:
        return True
    schema = {name: types[name] for name in names}
    draw = Random(0)  # noqa: S311 - not a secret
    few = [tuple(draw.choice(values) for values in trials.values()) for _ in range(_FIRST_TRIALS)]
    # A sound rule holds for one of the first few; all are tried before one is called impossible.
    return _holds_once(text, few, schema) or _holds_once(text, list(product(*trials.values())), schema)


def _holds_once(text: str, rows: list[tuple[object, ...]], schema: dict[str, pl.DataType]) -> bool:
    frame = pl.DataFrame(rows, schema=schema, orient="row", strict=False)
    return bool(frame.select(pl.sql_expr(text).fill_null(value=True).any()).item())


def _trial_values(kind: pl.DataType, constants: list[float], texts: list[str], count: int) -> _Values | None:
    """Return values of a column that stand for all others; None if there are no such."""
    if kind.is_numeric():
        return list(_around(constants or [0.0], count))
    if kind == pl.Boolean:
        return [True, False]
    if kind == pl.String:
        return [*texts, "", "\uffff"]
    if isinstance(kind, pl.Datetime) and not texts:
        return [EPOCH.replace(year=2000 + year) for year in range(count)]
    return None


def _around(constants: list[float], count: int) -> Iterator[float]:
    """Yield the constants, with values before, between and after them."""
    for step in range(1, count + 1):
        yield constants[0] - step
        yield constants[-1] + step
    yield from constants
    for low, high in pairwise(constants):
        yield from (low + (high - low) * step / (count + 1) for step in range(1, count + 1))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _impossible(contract: Contract, rule: RowRule, problem: str, fix: str) -> ContractError:
    where = contract.path or f"contract {contract.id}"
    return ContractError(f"{where}: quality rule {rule.reason!r}: {problem}; {fix}")
