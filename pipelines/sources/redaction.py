"""Keeps keys and tokens out of messages and logs."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

HIDDEN = "***"
_NAMES = r"api[-_]?key|api[-_]?token|access[-_]?token|token|secret|password|crumb"
_QUERY = re.compile(rf"(?i)(?:(?<![a-z0-9])|(?<=%[0-9a-f][0-9a-f]))({_NAMES})(=|%3D)[^&\s\"'<>]+")
_FIELD = re.compile(rf"(?i)([\"'](?:{_NAMES})[\"']\s*:\s*)([\"'])[^\"']*\2")
_AUTHORIZATION = re.compile(r"(?i)\b(authorization[\"']?\s*[:=]\s*[\"']?(?:bearer\s|basic\s)?\s*)[\w.~+/=-]{6,}")
# Without that header before it, only what looks like a key: "Basic Attention Token" is a headline.
_BEARER = re.compile(r"\b((?i:bearer|basic)\s+)(?=[\w.~+/=-]*(?:\d|[a-z][A-Z]))[\w.~+/=-]{8,}")
_SHORTEST_SECRET = 4


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return `text` without query values of key-like names, authorization values and the given secrets."""
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, HIDDEN)
    text = _QUERY.sub(rf"\1\2{HIDDEN}", text)
    text = _FIELD.sub(rf"\1\2{HIDDEN}\2", text)
    text = _AUTHORIZATION.sub(rf"\1{HIDDEN}", text)
    return _BEARER.sub(rf"\1{HIDDEN}", text)


def is_secret_name(name: str) -> bool:
    """Say whether a query parameter or header of that name carries a secret."""
    return re.fullmatch(rf"(?i){_NAMES}|authorization|cookie", name) is not None


class RedactingFilter(logging.Filter):
    """Rewrites a record whose message would show a secret; HTTP libraries log whole URLs."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the record in place and let it pass."""
        message = record.getMessage()
        safe = redact(message)
        if safe != message:
            record.msg, record.args = safe, None
        return True


def redact_http_logs() -> None:
    """Put the filter on the loggers of the HTTP libraries in use; safe to call again."""
    for name in ("httpx", "httpcore", "urllib3.connectionpool", "yfinance", "peewee"):
        logger = logging.getLogger(name)
        if not any(isinstance(known, RedactingFilter) for known in logger.filters):
            logger.addFilter(RedactingFilter())
