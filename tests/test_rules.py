"""Row rules that can never work: told before a row is judged, by file, rule and what to do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import CONFIG_DIR
from pipelines.contracts import Contract, RowRule, load_contracts
from pipelines.data_quality.checks import checks_for
from pipelines.data_quality.frames import LocalFrame
from pipelines.edge import EdgeContext, validate
from pipelines.errors import ConfigError, ContractError
from pipelines.instruments import load_registry
from pipelines.rules import check_rules

BARS = load_contracts()["raw_market_data"]


def with_rule(expression: str, severity: str = "error", reason: str = "mine") -> Contract:
    return replace(BARS, row_rules=(*BARS.row_rules, RowRule(reason, expression, severity, check_constraint=False)))


def test_the_contracts_of_the_project_can_work() -> None:
    for contract in load_contracts().values():
        check_rules(contract)


@pytest.mark.parametrize(
    ("expression", "severity", "told"),
    [
        ("high >=< low", "error", "not SQL that can be read"),
        ("", "error", "not SQL that can be read"),
        ("foo(close)", "error", "not SQL that can be read"),
        ("hihg >= low", "error", "'hihg' that does not exist; did you mean high"),
        ("ingested_at <= now", "error", "'ingested_at' that does not exist"),
        ("close > 'a'", "error", "cannot be evaluated: cannot compare string.*values of their own type"),
        ("high + low", "warning", "gives Float64, not true or false"),
        ("spike_score < 4", "error", "takes a whole series.*severity warning"),
        ("high > low AND low > high", "error", "no row can satisfy"),
        ("high > low AND low > high", "warning", "no row can satisfy"),
        ("volume IS NOT NULL AND volume > 3 AND volume < 2.5", "error", "no row can satisfy"),
        ("timeframe = '1m' AND timeframe = '5m'", "error", "no row can satisfy"),
        ("is_adjusted AND NOT is_adjusted", "error", "no row can satisfy"),
        ("closes_at <= now AND now < closes_at", "error", "no row can satisfy"),
        ("high < low", "error", "no row can satisfy both 'high >= low' and 'high < low'"),
    ],
)
def test_a_rule_that_can_never_work_is_told(expression: str, severity: str, told: str) -> None:
    with pytest.raises(ContractError, match=told) as raised:
        check_rules(with_rule(expression, severity))
    assert "raw_market_data.yaml" in str(raised.value)
    assert "quality rule" in str(raised.value)


@pytest.mark.parametrize(
    "expression",
    [
        "volume IS NULL AND volume > 3",  # holds for a row without volume, as what is unknown does
        "volume > 5 AND volume < 5.001",
        "price_side LIKE 'x%'",
        "high - low < 0.5 * close",
        "provider <> 'oanda' OR price_side IN ('bid', 'ask', 'mid')",
        "open > 10 OR NOT (is_adjusted AND is_derived)",
        "timestamp < closes_at",
        "spike_score IS NULL OR spike_score < 100",
    ],
)
def test_a_rule_that_can_hold_is_left_alone(expression: str) -> None:
    check_rules(with_rule(expression, "warning" if "spike" in expression else "error"))


@given(st.lists(st.tuples(st.sampled_from(["<", "<=", ">", ">="]), st.integers(-3, 3)), min_size=1, max_size=4))
def test_bounds_are_impossible_exactly_if_no_number_lies_within(bounds: list[tuple[str, int]]) -> None:
    low = max(((n, sign == ">") for sign, n in bounds if sign[0] == ">"), default=(-9, False))
    high = min(((n, sign != "<") for sign, n in bounds if sign[0] == "<"), default=(9, True))
    possible = low[0] < high[0] or (low[0] == high[0] and not low[1] and high[1])
    rule = RowRule("mine", " AND ".join(f"open {sign} {n}" for sign, n in bounds), "warning", check_constraint=False)
    contract = replace(BARS, row_rules=(rule,))
    if possible:
        check_rules(contract)
    else:
        with pytest.raises(ContractError, match="no row can satisfy"):
            check_rules(contract)


def test_two_rules_of_one_name_are_told() -> None:
    with pytest.raises(ContractError, match=r"'negative volume': another rule has the same name.*rename"):
        check_rules(with_rule("volume >= 0", reason="negative volume"))


def test_no_row_is_judged_by_an_impossible_contract() -> None:
    broken = with_rule("hihg >= low")
    now = datetime(2025, 1, 1, tzinfo=UTC)
    with pytest.raises(ContractError, match="hihg"):
        validate(pa.table({"open": ["nonsense"]}), EdgeContext(broken, "files", now))
    with pytest.raises(ContractError, match="hihg"):
        LocalFrame(pa.table({"open": ["nonsense"]}), broken)
    with pytest.raises(ContractError, match="hihg"):
        checks_for(broken)


def test_an_unknown_severity_is_told_when_the_contract_is_loaded(tmp_path: Path) -> None:
    text = (CONFIG_DIR / "contracts" / "raw_market_data.yaml").read_text(encoding="utf-8")
    (tmp_path / "bars.yaml").write_text(text.replace("severity: warning", "severity: fatal", 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bars\.yaml.*'price spike'.*'fatal'; use error, warning, info"):
        load_contracts(tmp_path)


@pytest.mark.parametrize("bounds", ["price_min: 5, price_max: 5", "price_min: 9.5, price_max: 1", "price_min: 2.0e+6"])
def test_bounds_that_no_price_meets_are_told(bounds: str, tmp_path: Path) -> None:
    path = tmp_path / "assets.yaml"
    entry = f"XYZ: {{asset_class: equity, calendar: XNYS, {bounds}}}"
    path.write_text(f"assets:\n  {entry}\ncurrencies: {{fiat: [USD], crypto: [BTC]}}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"assets\.yaml: assets\.XYZ\.price_max: .*must be above price_min"):
        load_registry(path)
