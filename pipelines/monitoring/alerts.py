"""Direct messages to Slack, for what Prometheus may not see in time. A job never fails or waits long because of one."""

from __future__ import annotations

import json
import logging
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.error import HTTPError

from pipelines.config import load_settings
from pipelines.errors import ConfigError
from pipelines.monitoring.alert_log import alert_log
from pipelines.monitoring.limited import limited
from pipelines.sources.redaction import redact

if TYPE_CHECKING:
    from pydantic import SecretStr

    from pipelines.config import Settings

logger = logging.getLogger(__name__)

_COLOURS = {"critical": "#d00000", "warning": "#f2a900", "info": "#2f7ed8"}
_LONGEST_TEXT, _MOST_FIELDS = 3000, 10
_PAUSE_SECONDS = 60.0


class Sent(StrEnum):
    """What became of a message.

    SENT: Slack took it. SUPPRESSED: one like it was sent within the hour, or as many as an hour may have; it is
    counted, and the next one mentions it. FAILED: Slack did not take it; the same holds. OFF: no webhook is set.
    """

    SENT = "sent"
    SUPPRESSED = "suppressed"
    FAILED = "failed"
    OFF = "off"


def send(
    severity: str,
    title: str,
    text: str,
    *,
    key: str | None = None,
    fields: Mapping[str, object] | None = None,
    settings: Settings | None = None,
) -> Sent:
    """Send one message to Slack, within monitoring.slack_timeout_seconds.

    Args:
        severity: critical, warning or info, which is its colour.
        title: one line.
        text: what happened, and where to look.
        key: messages of the same key and severity are the same: one an hour is sent. The title by default.
        fields: short facts, by name.
        settings: by default those of config/ and the environment.

    Raises:
        ValueError: no such severity. Nothing else: what goes wrong is logged.
    """
    body = message(severity, title, text, fields or {})
    try:
        settings = settings or load_settings()
        if settings.monitoring.slack_webhook is None:
            return Sent.OFF
        return _sent(settings, settings.monitoring.slack_webhook, severity, key or title, body)
    except (ConfigError, OSError) as error:
        logger.warning("an alert was not sent: %s", error)
        return Sent.FAILED


def message(severity: str, title: str, text: str, fields: Mapping[str, object]) -> dict[str, object]:
    """Return a message in the format of Slack's webhooks.

    Raises:
        ValueError: no such severity.
    """
    if severity not in _COLOURS:
        raise ValueError(f"no severity {severity!r}; it is one of {', '.join(_COLOURS)}")
    shown = list(fields.items())[:_MOST_FIELDS]
    attachment = {
        "color": _COLOURS[severity],
        "fallback": _plain(f"[{severity}] {title}"),
        "title": _plain(f"[{severity}] {title}"),
        "text": _plain(text)[:_LONGEST_TEXT],
        "fields": [{"title": _plain(name), "value": _plain(str(value)), "short": True} for name, value in shown],
        "footer": "Finance Lakehouse",
        "ts": int(time.time()),
    }
    return {"attachments": [attachment]}


def _plain(text: str) -> str:
    """Return a text without keys and tokens, and without what Slack would take for a link or a mention."""
    return redact(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _sent(settings: Settings, webhook: SecretStr, severity: str, key: str, body: dict[str, object]) -> Sent:
    monitoring, folder = settings.monitoring, settings.resolve(settings.monitoring.path)
    with alert_log(folder) as log:
        before = log.take(severity, key, monitoring.slack_per_hour)
    if before is None:
        return Sent.SUPPRESSED
    if before:
        body["text"] = f"{before} more since the last message were not sent"
    # Not under the log's lock: others would wait for Slack too.
    refusal = _posted(webhook.get_secret_value(), monitoring.slack_timeout_seconds, body)
    if refusal is None:
        return Sent.SENT
    logger.warning("an alert was not sent to Slack: %s", refusal.why)
    with alert_log(folder) as log:
        log.give_back(severity, key, before, refusal.pause_seconds)
    return Sent.FAILED


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a message was not taken, and for how long not to try again."""

    why: str
    pause_seconds: float = _PAUSE_SECONDS


def _posted(address: str, wait: float, body: dict[str, object]) -> _Refusal | None:
    """Post a message; tells nobody the webhook's address, which is a secret."""
    if not address.startswith(("https://", "http://")):
        return _Refusal("monitoring.slack_webhook is no web address")
    data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}

    def post() -> None:
        # Not httpx: it logs addresses.
        request = urllib.request.Request(address, data, headers)  # noqa: S310 - checked above
        with urllib.request.urlopen(request, timeout=wait) as answer:  # noqa: S310
            answer.read()

    error = limited(post, wait)
    if error is None:
        return None
    if isinstance(error, HTTPError):
        asked = error.headers.get("Retry-After", "") if error.code == HTTPStatus.TOO_MANY_REQUESTS else ""
        return _Refusal(f"it answered {error.code}", float(asked) if asked.isdigit() else _PAUSE_SECONDS)
    # Not the error itself, which may name the address.
    return _Refusal(f"it did not answer ({type(getattr(error, 'reason', error)).__name__})")
