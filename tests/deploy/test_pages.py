"""docs/deployment.md and docs/faq.md say what is so: commands, targets, settings, services, examples."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest
import yaml
from pydantic import BaseModel

from pipelines.cli import main
from pipelines.config import PROJECT_ROOT, Settings
from tests.batch.exchange import Exchange
from tests.deploy.test_compose import SERVICES, assert_understood
from tests.test_runbook import Lake

DEPLOYMENT = (PROJECT_ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
FAQ = (PROJECT_ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
MAKEFILE = (PROJECT_ROOT / "Makefile").read_text(encoding="utf-8")
PAGES = {"deployment": DEPLOYMENT, "faq": FAQ}
# What is put for something of the reader's own.
PLACEHOLDERS = {"TABLE": "raw_market_data_1h", "ID": "3fa9c21b"}
# They need what a test of pages does not start: other sites, a bucket, a broker, a JVM, half a minute.
ELSEWHERE = {"doctor", "lifecycle", "stream", "transform", "validate"}


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL)


def commands(page: str) -> Iterator[list[str]]:
    """Yield the arguments of each `lakehouse` of a page, in blocks and between words."""
    prose = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    lines = [line for block in blocks(page, "bash") for line in block.splitlines() if line.startswith("lakehouse ")]
    for line in [*re.findall(r"`(lakehouse [^`]+)`", prose), *lines]:
        if "…" not in line:
            yield [PLACEHOLDERS.get(word, word) for word in shlex.split(line, comments=True)[1:]]


@pytest.mark.parametrize("name", PAGES)
def test_every_command_is_one_with_its_options(name: str) -> None:
    found = list(commands(PAGES[name]))
    assert len(found) > 10
    for arguments in found:
        # A name alone is spoken of, not called.
        if len(arguments) > 1:
            assert_understood(arguments)
        else:
            assert arguments[0] in main.list_commands(click.Context(main))


@pytest.mark.parametrize("name", PAGES)
def test_every_target_is_one(name: str) -> None:
    wanted = set(re.findall(r"\bmake ([a-z][a-z0-9-]+)(?=[`\s\"])", "\n".join(blocks(PAGES[name], "bash"))))
    wanted |= set(re.findall(r"`make ([a-z][a-z0-9-]+)", PAGES[name]))
    assert wanted
    assert wanted <= set(re.findall(r"^([a-z0-9-]+):.*##", MAKEFILE, re.MULTILINE))


def has_setting(key: str) -> bool:
    """Say whether a dotted key leads to a setting; what is below a mapping of free keys is one too."""
    model: object = Settings
    for part in key.split("."):
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return True
        if part not in model.model_fields:
            return False
        model = model.model_fields[part].annotation
    return True


@pytest.mark.parametrize("name", PAGES)
def test_every_setting_is_one(name: str) -> None:
    sections = "|".join(Settings.model_fields)
    found = set(re.findall(rf"`((?:{sections})\.[a-z_.]+)(?=[`:])", PAGES[name]))
    assert len(found) >= 5
    assert not [key for key in found if not has_setting(key)]


def test_examples_of_settings_are_settings() -> None:
    examples = [yaml.safe_load(block) for block in blocks(DEPLOYMENT, "yaml")]
    masters = [Settings.model_validate(example).spark.master for example in examples]
    assert [re.split(r"[:/]", master)[0] for master in masters] == ["spark", "yarn", "k8s"]


def test_the_table_of_services_has_each_of_them_and_its_port() -> None:
    rows = [line.split("|")[1:4] for line in DEPLOYMENT.splitlines() if re.match(r"\| `[a-z]", line)]
    told = {name: where for names, _, where in rows for name in re.findall(r"`([a-z0-9-]+)`", names)}
    assert told.keys() == SERVICES.keys()
    for name, where in told.items():
        published = {str(port).split(":")[1] for port in SERVICES[name].get("ports", [])}
        assert all(port in where for port in published), name
    ports = {str(port).split(":")[1] for service in SERVICES.values() for port in service.get("ports", [])}
    assert set(re.findall(r"\b\d{4}\b", " ".join(where for _, _, where in rows))) == ports


def test_the_sum_of_the_limits_is_right() -> None:
    units = {"M": 1 / 1024, "G": 1.0}
    limits = [
        service["deploy"]["resources"]["limits"]["memory"]
        for service in SERVICES.values()
        if "healthcheck" in service
    ]  # fmt: skip
    total = sum(float(limit[:-1]) * units[limit[-1]] for limit in limits)
    assert f"about {total:.0f} GiB" in DEPLOYMENT


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """A lake of two versions of a table, as the FAQ speaks of."""
    with Exchange() as exchange:
        found = Lake(tmp_path_factory.mktemp("faq"), exchange)
        for days in ("3", "4"):
            code, out = found.run("backfill", "--assets", "BTCUSD,ETHUSD", "--days", days, "--timeframes", "1h,1d")
            assert code == 0, out
        yield found


def runnable() -> list[str]:
    """Return the lines of the FAQ that can be run on a lake in a folder."""
    lines = [line for block in blocks(FAQ, "bash") for line in block.splitlines()]
    return list(dict.fromkeys(line for line in lines if line.split()[1] not in ELSEWHERE))


@pytest.mark.parametrize("line", [line for line in runnable() if not line.startswith("lakehouse gaps")])
def test_the_commands_of_the_faq_work(lake: Lake, line: str) -> None:
    code, out = lake.run(*shlex.split(line)[1:])
    assert code == 0, out
    assert out


def test_the_gaps_of_the_faq_are_shown_planned_and_repaired(lake: Lake) -> None:
    lines = [line for line in runnable() if line.startswith("lakehouse gaps")]
    answers = [lake.run(*shlex.split(line)[1:]) for line in lines]
    # The lake has not all of the last 30 days until they are repaired.
    assert [code for code, _ in answers] == [1, 1, 0], answers
    assert all(out for _, out in answers)


def test_figures_of_the_faq() -> None:
    ((a_day, total),) = re.findall(r"\(([0-9 +]+)\) = ([0-9,]+)", FAQ)
    assert 2 * 7 * sum(map(int, a_day.split("+"))) == int(total.replace(",", ""))
