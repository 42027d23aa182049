"""`lakehouse transform` and `lakehouse dbt` from a terminal: wrong words cost no Spark, stdout is for the answer."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import Result
from dbt.cli.main import cli
from rich.console import Console

from pipelines.cli import dbt_words, transforming
from pipelines.config import CONFIG_DIR, Settings, load_settings
from pipelines.errors import ConfigError
from pipelines.storage import DeltaLakeManager
from pipelines.transform.runner import PROJECT, DbtRun, NodeResult, dbt_environment, prepare
from tests.cli.shell import run

VARIABLES = yaml.safe_load((PROJECT / "dbt_project.yml").read_text("utf-8"))["vars"]
BARS = ["--start", "2025-12-07", "--end", "2025-12-08", "--timeframes", "1h,1d", "--quiet"]


def lakehouse(folder: Path, *arguments: str, **more: str) -> Result:
    own = {"LAKEHOUSE__STORAGE__ENGINE": "embedded", "LAKEHOUSE__TRANSFORM__PATH": str(folder / "transform")}
    return run(folder, *arguments, **(own | more))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample lake with a day of hours."""
    found = tmp_path_factory.mktemp("transform")
    done = lakehouse(found, "backfill", "--provider", "sample", "--assets", "BTCUSD", *BARS)
    assert done.exit_code == 0, done.output
    return found


# ---- the words


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("dbt", "buld"), ["Usage: lakehouse dbt ", "No such command 'buld'", "build"]),
        (("dbt", "build", "--selct", "silver"), ["Usage: lakehouse dbt build", "'--selct'", "--select"]),
        (("dbt", "docs", "generat"), ["Usage: lakehouse dbt docs", "No such command 'generat'"]),
        (("dbt", "run-operation"), ["Missing argument 'MACRO'"]),
        (("dbt", "build", "--vars", "{a"), ["not valid YAML"]),
        (("transform", "--vars", "rate"), ["--vars takes a YAML mapping", "'rate'"]),
        (("transform", "--vars", "{risk_free_rat: 0.1}"), ["no variable risk_free_rat", "did you mean risk_free_rate"]),
        (("transform", "--vars", "{schema_suffix: _x}"), ["no variable schema_suffix"]),
        (("transform", "--vars", "{risk_free_rate: 4}"), ["transform.risk_free_rate", "less than 1"]),
        (("transform", "--as-of", "2025-12-07", "--snapshot", "x"), ["either --as-of or --snapshot"]),
    ],
)
def test_wrong_words_are_refused_before_anything_starts(tmp_path: Path, arguments: tuple[str, ...], says: list[str]):
    done = lakehouse(tmp_path, *arguments)
    assert done.exit_code == 2, done.output
    assert not [part for part in says if part not in done.stderr]
    assert "Traceback" not in done.output
    assert not (tmp_path / "transform").exists()


def test_wrong_words_are_refused_as_well_after_dbt_has_run_in_the_same_process(
    tmp_path: Path, embedded_lake: DeltaLakeManager
):
    with io.StringIO() as closed_after, redirect_stdout(closed_after), dbt_environment(tmp_path / "transform"):
        prepare([], embedded_lake)
    done = lakehouse(tmp_path, "dbt", "build", "--vars", "{a")
    assert done.exit_code == 2, done.output
    assert "not valid YAML" in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Usage: lakehouse dbt [OPTIONS] COMMAND"),
        (("build", "--help"), "Usage: lakehouse dbt build"),
        (("docs", "--help"), "Usage: lakehouse dbt docs"),
    ],
)
def test_help_is_dbts_own(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    done = lakehouse(tmp_path, "dbt", *arguments)
    assert done.exit_code == 0, done.output
    assert says.replace(" COMMAND", "") in done.stdout
    assert "--vars" in done.stdout or "Commands:" in done.stdout
    assert not (tmp_path / "transform").exists()


@pytest.mark.parametrize(
    ("given", "ordered"),
    [
        (["build", "--select", "silver"], ["build", "--select", "silver"]),
        (["--log-level", "debug", "build", "-s", "x"], ["build", "--log-level", "debug", "-s", "x"]),
        (
            ["--quiet", "docs", "--debug", "generate", "--static"],
            ["docs", "--quiet", "generate", "--debug", "--static"],
        ),
    ],
)
def test_the_command_comes_first_and_means_the_same(given: list[str], ordered: list[str]) -> None:
    with click.Context(click.Command("dbt"), parent=click.Context(click.Group("lakehouse"))):
        assert dbt_words.check_command(given) == ordered
        assert dbt_words.check_command(ordered)


def test_every_command_of_dbt_takes_variables() -> None:
    """The settings are handed to whatever is run."""

    def leaves(group: click.Group) -> Iterator[click.Command]:
        for command in group.commands.values():
            yield from leaves(command) if isinstance(command, click.Group) else [command]

    found = list(leaves(cli))
    assert len(found) > 15
    assert not [each.name for each in found if "vars" not in {parameter.name for parameter in each.params}]


# ---- the settings


def test_defaults_of_settings_and_of_dbt_agree() -> None:
    defaults = Settings().transform.model_dump(mode="json", exclude={"path"})
    documented = yaml.safe_load((CONFIG_DIR / "config.yaml").read_text("utf-8"))["transform"]
    del documented["path"]
    assert documented == defaults
    assert {name: VARIABLES[name] for name in defaults} == defaults
    assert set(VARIABLES) == {*defaults, "schema_suffix", "provider_priority"}


def test_no_model_has_a_default_of_its_own() -> None:
    sql = {path: path.read_text("utf-8") for kind in ("models", "macros") for path in (PROJECT / kind).rglob("*.sql")}
    used = {
        name: path
        for path, text in sql.items()
        for name in VARIABLES
        if f'var("{name}")' in text or f"var('{name}')" in text
    }
    assert set(used) == set(VARIABLES)
    assert not [path for path, text in sql.items() for name in VARIABLES if f'var("{name}",' in text]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("risk_free_rate", 4), ("risk_free_rate", -1), ("initial_balance", 0), ("initial_balance", float("inf")),
        ("initial_balances", {"EUR": -1}), ("initial_balances", {"E'R": 1}), ("regime_timeframe", "2h"),
        ("path", "s3://bucket/transform"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"transform.{key}"):
        load_settings(overrides={"transform": {key: value}}, environ={})


def test_balances_of_currencies_may_come_from_the_environment() -> None:
    environ = {"LAKEHOUSE__TRANSFORM__INITIAL_BALANCES__EUR": "50000"}
    assert load_settings(environ=environ).transform.initial_balances == {"EUR": 50_000.0}


def test_variables_win_over_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What dbt is told, by transform and by any command."""
    told: list[dict[str, Any]] = []

    def transform(request: Any, *_: object, **__: object) -> DbtRun:
        told.append(json.loads(request.variables))
        return DbtRun(ok=True, nodes=(NodeResult("x", "model", "up to date", 0.0, "", None),))

    monkeypatch.setattr(transforming, "transform", transform)
    rate = {"LAKEHOUSE__TRANSFORM__RISK_FREE_RATE": "0.02", "LAKEHOUSE__TRANSFORM__INITIAL_BALANCE": "5"}
    done = lakehouse(folder, "transform", "--vars", "{risk_free_rate: 0.03, provider_priority: [oanda]}", **rate)
    assert done.exit_code == 0, done.output
    assert told == [{"initial_balance": 5.0, "initial_balances": {}, "risk_free_rate": 0.03, "regime_timeframe": "1h",
                     "provider_priority": ["oanda"]}]  # fmt: skip


# ---- what is shown


def test_a_dry_run_says_what_would_be_made_and_why(folder: Path) -> None:
    done = lakehouse(folder, "transform", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "market_data_enriched" in done.stdout
    assert "not there yet" in done.stdout
    assert "models would be built" in done.stdout
    plan = json.loads(lakehouse(folder, "transform", "--dry-run", "--json", "--select", "trade_lifecycle").stdout)
    nodes = {node["name"]: (node["status"], node["message"]) for node in plan["nodes"]}
    assert (plan["ok"], plan["dry_run"], plan["synthetic"]) == (True, True, True)
    assert nodes["trade_lifecycle"] == ("would build", "not there yet")
    assert "mart_trading_performance" not in nodes
    assert not (folder / "sample" / "silver").exists()


def test_an_unknown_model_is_no_success(folder: Path) -> None:
    done = lakehouse(folder, "transform", "--dry-run", "--select", "market_data_enrichd")
    assert done.exit_code == 2
    assert "no such model" in done.stderr


def test_a_listing_needs_no_spark_and_names_models(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = lakehouse(folder, "dbt", "--sample", "--quiet", "ls", "--resource-type", "model", "--select", "gold")
    assert done.exit_code == 0, done.output
    assert "finance_lakehouse.gold.mart_trading_performance" in done.output + capfd.readouterr().out


def test_the_bar_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=140)
    monkeypatch.setattr(transforming, "console", lambda **_: terminal)
    with transforming._progress() as on_node:
        on_node("market_data_enriched", 3, 74)
    assert "market_data_enriched" in screen.getvalue()
    assert "2/74" in screen.getvalue()
    plain = io.StringIO()
    monkeypatch.setattr(transforming, "console", lambda **_: Console(file=plain))
    with transforming._progress() as on_node:
        on_node("market_data_enriched", 3, 74)
    assert plain.getvalue() == ""


def test_a_failed_run_names_what_failed_and_where_to_look(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = (
        NodeResult("lots", "model", "success", 1.0, "OK", None),
        NodeResult("never_null_lots", "test", "fail", 0.5, "Got 3 results, configured to fail if != 0", 3),
        NodeResult("marts", "model", "skipped", 0.0, "", None),
        NodeResult("bars", "model", "up to date", 0.0, "", None),
    )
    monkeypatch.setattr(transforming, "transform", lambda *_, **__: DbtRun(ok=False, nodes=nodes))
    done = lakehouse(folder, "transform")
    assert done.exit_code == 1
    assert "never_null_lots: fail: Got 3 results" in done.stderr
    assert str(folder / "transform" / "logs" / "dbt.log") in done.stderr
    assert "1 model built, 1 up to date, 1 test run, 2 problems" in done.stdout
    assert "\x1b[" not in done.output


@pytest.mark.spark
def test_a_run_tests_what_it_makes_and_the_next_one_has_nothing_to_do(folder: Path, spark: object) -> None:
    first = lakehouse(folder, "transform", "--select", "market_data_enriched", "--json")
    assert first.exit_code == 0, first.output
    done = json.loads(first.stdout)
    kinds = {(node["kind"], node["status"]) for node in done["nodes"]}
    assert {("model", "success"), ("test", "pass")} <= kinds
    again = lakehouse(folder, "transform", "--select", "market_data_enriched")
    assert again.exit_code == 0, again.output
    assert "All 1 model are up to date" not in again.stdout
    assert "is up to date" in again.stdout
    counted = lakehouse(folder, "query", "select count(*) as n from silver.market_data_enriched", "--format", "json")
    assert json.loads(counted.stdout) == [{"n": 25}]
    assert "and silver, made from these: 1 table, 25 rows" in lakehouse(folder, "status").stdout
    layers = json.loads(lakehouse(folder, "status", "--json").stdout)["layers"]
    assert layers == {"silver": {"market_data_enriched": 25}, "gold": {}}
