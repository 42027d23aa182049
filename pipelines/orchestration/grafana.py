"""Tells Grafana, by its HTTP API, that data is new."""

from __future__ import annotations

import httpx

from pipelines.config import OrchestrationSettings

_TAGS = ["lakehouse"]
_REFUSED = 400


def annotate(text: str, settings: OrchestrationSettings) -> str:
    """Leave an annotation at the present instant; returns `annotated`, `not configured`, or why not.

    Args:
        text: what it says.
        settings: the server's address and token.
    """
    if not settings.grafana_url:
        return "not configured"
    token = settings.grafana_token
    headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
    try:
        answer = httpx.post(
            f"{settings.grafana_url.rstrip('/')}/api/annotations",
            json={"text": text, "tags": _TAGS},
            headers=headers,
            timeout=settings.grafana_timeout_seconds,
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # The error's text may have the address, which may have a password in it.
        return f"not told: {type(error).__name__}; check orchestration.grafana_url"
    if answer.status_code >= _REFUSED:
        return f"not told: HTTP {answer.status_code}; check orchestration.grafana_url and grafana_token"
    return "annotated"
