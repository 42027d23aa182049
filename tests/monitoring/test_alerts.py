"""Direct messages to Slack: their form, their limits, and that no fault of Slack's becomes one of the job's."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.config import Settings
from pipelines.monitoring.alerts import Sent, send
from tests.conftest import make_settings
from tests.servers.base import RESET, Fault, hang, status, too_many
from tests.servers.s3 import free_ports
from tests.servers.slack import PATH, SlackServer


@pytest.fixture
def slack():
    with SlackServer() as server:
        yield server


def with_webhook(folder: Path, webhook: str | None, **more: object) -> Settings:
    monitoring = {"path": str(folder / "monitoring"), "slack_webhook": webhook, "slack_timeout_seconds": 1, **more}
    return make_settings(folder, {"monitoring": monitoring})


def test_a_message_has_its_severitys_colour_and_all_that_is_to_be_said(tmp_path, slack):
    settings = with_webhook(tmp_path, slack.webhook)
    for severity, colour in (("critical", "#d00000"), ("warning", "#f2a900"), ("info", "#2f7ed8")):
        text = "bars < 5 & <!channel> api_key=0123456789"
        assert send(severity, "Stale data", text, fields={"asset": "BTCUSD"}, settings=settings) is Sent.SENT
        found = slack.messages[-1].attachment
        assert found["color"] == colour
        assert found["title"] == f"[{severity}] Stale data"
        assert found["text"] == "bars &lt; 5 &amp; &lt;!channel&gt; api_key=***"
        assert found["fields"] == [{"title": "asset", "value": "BTCUSD", "short": True}]


def test_an_unknown_severity_is_the_callers_mistake(tmp_path, slack):
    with pytest.raises(ValueError, match="critical, warning, info"):
        send("fatal", "t", "t", settings=with_webhook(tmp_path, slack.webhook))


def test_without_a_webhook_nothing_happens(tmp_path):
    assert send("info", "t", "t", settings=with_webhook(tmp_path, None)) is Sent.OFF
    assert not (tmp_path / "monitoring").exists()


def test_the_same_again_is_suppressed_counted_and_mentioned(tmp_path, slack):
    settings = with_webhook(tmp_path, slack.webhook)
    told = [send("warning", f"try {number}", "t", key="same", settings=settings) for number in range(4)]
    assert told == [Sent.SENT, *[Sent.SUPPRESSED] * 3]
    assert send("critical", "worse", "t", key="same", settings=settings) is Sent.SENT
    assert slack.messages[-1].body["text"] == "3 more since the last message were not sent"
    assert send("info", "other", "t", settings=settings) is Sent.SENT
    assert "text" not in slack.messages[-1].body, "mentioned once"
    # After an hour it may be sent again.
    log = tmp_path / "monitoring" / "alerts.json"
    held = json.loads(log.read_text())
    held["sent_at"] = {name: at - 3601 for name, at in held["sent_at"].items()}
    log.write_text(json.dumps(held))
    assert send("warning", "try 5", "t", key="same", settings=settings) is Sent.SENT


def test_there_is_a_limit_an_hour_for_each_severity(tmp_path, slack):
    settings = with_webhook(tmp_path, slack.webhook, slack_per_hour=3)
    told = [send("info", f"number {number}", "t", settings=settings) for number in range(6)]
    assert told == [Sent.SENT] * 3 + [Sent.SUPPRESSED] * 3
    assert send("critical", "this one is heard", "t", settings=settings) is Sent.SENT
    assert "3 more" in slack.messages[-1].body["text"]
    assert len(slack.messages) == 4


MANY = """
import sys
from pipelines.config import Settings
from pipelines.monitoring.alerts import send
monitoring = {"path": sys.argv[1], "slack_webhook": sys.argv[2], "slack_per_hour": 5}
settings = Settings.model_validate({"monitoring": monitoring})
print([send("warning", f"number {number}", "t", settings=settings).value for number in range(10)])
"""


def test_processes_share_the_limit(tmp_path, slack):
    command = [sys.executable, "-c", MANY, str(tmp_path), slack.webhook]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [each.communicate(timeout=120)[0] for each in started]
    assert sum(each.count("sent") for each in told) == 5
    assert sum(each.count("suppressed") for each in told) == 15
    assert len({each.attachment["title"] for each in slack.messages}) == len(slack.messages) == 5


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (hang(), "did not answer"),
        (RESET, "did not answer"),
        (status(500), "answered 500"),
        (too_many(2), "answered 429"),
    ],
    ids=lambda each: each.name if isinstance(each, Fault) else "",
)
def test_a_slack_that_is_not_well_costs_a_warning_and_a_moment(tmp_path, slack, caplog, fault, why):
    settings = with_webhook(tmp_path, slack.webhook)
    slack.always(fault)
    began = time.monotonic()
    with caplog.at_level(logging.DEBUG):
        assert send("critical", "down", "t", settings=settings) is Sent.FAILED
        # Not tried again at once: a job with many alerts would wait for each.
        assert [send("critical", f"down {each}", "t", settings=settings) for each in range(20)] == [
            Sent.SUPPRESSED
        ] * 20
    assert time.monotonic() - began < 5
    assert slack.requests == 1
    assert why in caplog.text
    assert PATH not in caplog.text
    assert "secret" not in caplog.text
    slack.always(None)
    log = tmp_path / "monitoring" / "alerts.json"
    held = json.loads(log.read_text())
    assert held["paused_until"] - time.time() < (2 if "429" in why else 60)
    log.write_text(json.dumps(held | {"paused_until": 0}))
    assert send("critical", "up again", "t", settings=settings) is Sent.SENT
    assert slack.messages[-1].body["text"].startswith("21 more")


def test_a_webhook_that_nobody_listens_at_or_that_is_none(tmp_path, caplog):
    secret = "T0/B0/not-to-be-shown"
    for number, webhook in enumerate((f"http://127.0.0.1:{free_ports(1)[0]}/{secret}", f"file:///{secret}", secret)):
        settings = with_webhook(tmp_path / str(number), webhook)
        with caplog.at_level(logging.DEBUG):
            assert send("info", "t", "t", settings=settings) is Sent.FAILED
        assert secret not in repr(settings)
    assert len(caplog.messages) == 3
    assert "not-to-be-shown" not in caplog.text


def test_a_log_that_is_damaged_or_cannot_be_kept_is_no_fault_of_the_job(tmp_path, slack, caplog):
    settings = with_webhook(tmp_path, slack.webhook)
    folder = tmp_path / "monitoring"
    folder.mkdir()
    (folder / "alerts.json").write_text('{"sent_at": [1')
    assert send("info", "one", "t", settings=settings) is Sent.SENT
    assert send("info", "one", "t", settings=settings) is Sent.SUPPRESSED
    blocked = with_webhook(tmp_path, slack.webhook, path=str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        assert send("info", "two", "t", settings=blocked) is Sent.FAILED
    assert "not sent" in caplog.text
