"""Prometheus' own tools accept rules and settings, every alert is shown firing and resolving, and has its runbook."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
import yaml

from pipelines.config import PROJECT_ROOT
from tests.servers.prometheus import program

FOLDER = PROJECT_ROOT / "monitoring"
RULES = FOLDER / "prometheus" / "rules.yml"


def tool(name: str, *arguments: object) -> str:
    done = subprocess.run(
        [program(name), *map(str, arguments)], capture_output=True, text=True, check=False, cwd=FOLDER
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", (PROJECT_ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_prometheus_accepts_its_settings_and_rules():
    assert "SUCCESS" in tool("promtool", "check", "config", "prometheus/prometheus.yml")
    assert f"{len(alerts())} rules found" in tool("promtool", "check", "rules", "prometheus/rules.yml")


def test_every_alert_fires_when_it_should_and_resolves():
    assert "SUCCESS" in tool("promtool", "test", "rules", "prometheus/rules_test.yml")
    fired, resolved = set(), set()
    for each in yaml.safe_load((FOLDER / "prometheus" / "rules_test.yml").read_text())["tests"]:
        began: set[str] = set()
        for shown in each["alert_rule_test"]:
            if shown.get("exp_alerts"):
                began.add(shown["alertname"])
            elif shown["alertname"] in began:
                resolved.add(shown["alertname"])
        fired |= began
    assert fired == resolved == {rule["alert"] for rule in alerts()}


def test_alertmanager_accepts_its_settings():
    assert "SUCCESS" in tool("amtool", "check-config", "alertmanager/alertmanager.yml")


def test_the_webhook_is_in_a_file_that_is_in_no_repository():
    text = (FOLDER / "alertmanager" / "alertmanager.yml").read_text()
    assert "slack_api_url_file:" in text
    assert "hooks.slack.com" not in text
    assert not re.search(r"\bapi_url\b", text)


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule):
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert anchor in anchors(page)
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]


def test_all_three_severities_are_in_use():
    assert {rule["labels"]["severity"] for rule in alerts()} == {"critical", "warning", "info"}
