"""What a provider's HTTP answer means: parsed JSON, or which error."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TypeAlias

import httpx

from pipelines.errors import (
    MalformedAnswerError,
    SourceAuthError,
    SourceError,
    SourceUnavailableError,
    UnsupportedError,
)
from pipelines.sources.redaction import redact
from pipelines.sources.retry import RateLimitedError, parse_retry_after

Classify: TypeAlias = Callable[[int, str], SourceError | None]

_TOO_MANY, _SERVER_ERROR, _CLIENT_ERROR = 429, 500, 400
_KINDS: dict[int, type[SourceError]] = {401: SourceAuthError, 403: SourceAuthError, 404: UnsupportedError}
_MESSAGE_KEYS = ("message", "errorMessage", "error_message", "error", "detail")
_MESSAGE_LENGTH = 300


def path_of(response: httpx.Response) -> str:
    """Return the path that was asked for, without its query, which may hold a key."""
    return response.request.url.path


def is_html(response: httpx.Response) -> bool:
    """Say whether the body is a web page, whatever its declared type."""
    return response.content[:64].lstrip().lower().startswith((b"<!doctype html", b"<html"))


def parsed_json(name: str, response: httpx.Response) -> object:
    """Parse the body.

    Raises:
        SourceUnavailableError: it is not JSON; a gateway's page or a cut answer, which asking again may cure.
    """
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        kind = "HTML" if is_html(response) else "something that is not JSON"
        raise SourceUnavailableError(f"{name}: {path_of(response)} answered {kind}") from None


def refusal(name: str, response: httpx.Response, secrets: Iterable[str], classify: Classify | None) -> SourceError:
    """Return the error of an answer with a status of 300 and up, with what the provider says but no secret."""
    status = response.status_code
    said = redact(_provider_message(response), secrets)[:_MESSAGE_LENGTH]
    message = f"{name}: {path_of(response)} answered {status}" + (f": {said}" if said else "")
    if status == _TOO_MANY or status >= _SERVER_ERROR:
        return RateLimitedError(message, parse_retry_after(response.headers.get("retry-after")))
    known = classify(status, message) if classify and status >= _CLIENT_ERROR else None
    return known or _KINDS.get(status, MalformedAnswerError)(message)


def _provider_message(response: httpx.Response) -> str:
    """Return what the provider says, on one line; nothing from an HTML page."""
    if is_html(response):
        return ""
    try:
        answer: object = json.loads(response.content)
    except (ValueError, RecursionError):
        answer = response.text
    if isinstance(answer, dict):
        answer = next((answer[key] for key in _MESSAGE_KEYS if key in answer), answer)
    return " ".join(str(answer).split())
