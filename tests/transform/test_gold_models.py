"""The marts select and describe what docs/marts.md defines: no more, no less, in its order, with its types and keys."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.config import PROJECT_ROOT

GOLD = PROJECT_ROOT / "dbt" / "models" / "gold"
PAGE = (PROJECT_ROOT / "docs" / "marts.md").read_text("utf-8")
MARTS = [
    "mart_trading_performance", "mart_daily_portfolio_summary", "mart_provider_attribution",
    "mart_ensemble_effectiveness", "mart_market_regime_stats",
]  # fmt: skip
MODELS = sorted(GOLD.rglob("*.sql"))
KEY_TYPES = {"day": "date"}


@dataclass(frozen=True, slots=True)
class Mart:
    """What the page says of a mart: its key, and its columns without those of the key, with their types."""

    keys: tuple[str, ...]
    columns: dict[str, str]


def table(section: str) -> dict[str, str]:
    """The columns of the table in a section of the page, with their types; outcomes are replaced by what they are."""
    found: dict[str, str] = {}
    for names, kind in re.findall(r"^\| ([^|]+?) \| ([^|]*?) ?\|", section, flags=re.MULTILINE):
        if names == "outcomes":
            found |= outcomes()
        elif names != "column" and not names.startswith("---"):
            found |= dict.fromkeys(re.findall(r"`(\w+)`", names), kind.strip())
    return found


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@cache
def outcomes() -> dict[str, str]:
    return table(section("Trades"))


def defined(name: str) -> Mart:
    text = section(name).strip()
    assert text.startswith("A row per "), name
    keys = tuple(re.findall(r"`(\w+)`", text.partition(", from ")[0]))
    return Mart(keys, {column: kind for column, kind in table(text).items() if column not in keys})


@cache
def described() -> dict[str, dict[str, Any]]:
    pages = [yaml.safe_load(path.read_text("utf-8")) for path in sorted(GOLD.rglob("*.yml"))]
    return {model["name"]: model for page in pages for model in page.get("models", [])}


def types(name: str) -> dict[str, str]:
    return {column["name"]: column["data_type"] for column in described()[name]["columns"]}


def selected(path: Path) -> list[str]:
    """The columns of a model's last SELECT, by name."""
    # That of a model is not indented, those of its CTEs are.
    columns = re.search(r"^select\n(.*?)\nfrom ", path.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert columns is not None, path
    lines = re.sub(r"--.*", "", columns[1])
    depth, names, start = 0, [], 0
    for place, sign in enumerate(lines + ","):
        depth += (sign == "(") - (sign == ")")
        if sign == "," and not depth:
            names.append(lines[start:place].split()[-1].rpartition(".")[2])
            start = place + 1
    return names


def test_the_page_is_read_right() -> None:
    assert list(outcomes())[:6] == ["trades", "wins", "losses", "ties", "unpriced_trades", "win_rate"]
    assert len(outcomes()) == 12
    assert defined("mart_daily_portfolio_summary").keys == ("book", "quote_currency", "day")
    assert defined("mart_market_regime_stats").columns["mean_log_return"] == "double"
    assert len(defined("mart_trading_performance").columns) == 26


def test_there_are_these_marts_and_no_others() -> None:
    assert sorted(path.stem for path in GOLD.glob("mart_*.sql")) == sorted(MARTS)
    assert sorted(described()) == [path.stem for path in sorted(MODELS, key=lambda path: path.stem)]


@pytest.mark.parametrize("name", MARTS)
def test_columns_are_the_pages(name: str) -> None:
    mart = defined(name)
    keys = {key: KEY_TYPES.get(key, "string") for key in mart.keys}
    assert types(name) == keys | mart.columns
    assert selected(GOLD / f"{name}.sql") == [*mart.keys, *mart.columns]


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_every_column_is_described_in_the_order_of_the_sql(path: Path) -> None:
    model = described()[path.stem]
    assert model["description"]
    assert all(column["description"] for column in model["columns"])
    assert list(types(path.stem)) == selected(path)


@pytest.mark.parametrize("name", MARTS)
def test_a_key_is_there_once_and_never_null(name: str) -> None:
    mart = defined(name)
    tests = {kind: told["arguments"] for test in described()[name]["data_tests"] for kind, told in test.items()}
    assert tests["unique_together"]["columns"] == list(mart.keys)
    assert f"unique_key={list(mart.keys)}" in (GOLD / f"{name}.sql").read_text("utf-8")
    counts = {column for column, kind in mart.columns.items() if kind in {"bigint", "int", "timestamp"}}
    assert {*mart.keys, *counts} <= set(tests["never_null"]["columns"])
    assert tests["always_true"]["conditions"]


@pytest.mark.parametrize("name", ["int_outcomes", "int_trades", "int_equity_days", *MARTS[1:4]])
def test_logic_has_unit_tests(name: str) -> None:
    page = yaml.safe_load((GOLD / "unit_tests.yml").read_text("utf-8"))
    assert name in {test["model"] for test in page["unit_tests"]}
