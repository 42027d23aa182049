"""Keys and tokens do not get through."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources.redaction import RedactingFilter, is_secret_name, redact

SECRET = "S3cr3tS3cr3t"


@pytest.mark.parametrize(
    "text",
    [
        f"https://host/query?function=FX&apikey={SECRET}&x=1",
        f"https://host/q?api_key={SECRET}",
        f"GET /q?symbol=A&token={SECRET} HTTP/1.1",
        f"{{'api_key': '{SECRET}', 'a': 1}}",
        f'{{"token": "{SECRET}"}}',
        f"Authorization: Bearer {SECRET}",
        f"url=%2Fq%3FAPIKEY%3D{SECRET}",
    ],
)
def test_key_like_values_are_hidden(text: str) -> None:
    assert SECRET not in redact(text)


def test_the_rest_stays_readable() -> None:
    text = "GET https://host/q?function=FX_DAILY&symbol=EUR answered 500: tokens are fine"
    assert redact(text) == text


@given(st.text(), st.text(), st.text(min_size=4).filter(lambda text: "*" not in text))
def test_a_named_secret_is_never_left(before: str, after: str, secret: str) -> None:
    assert secret not in redact(f"{before}{secret}{after}", [secret])


def test_names() -> None:
    assert all(is_secret_name(name) for name in ("apikey", "api_key", "API-KEY", "token", "Authorization"))
    assert not any(is_secret_name(name) for name in ("symbol", "keyword", "function"))


def test_log_records_are_rewritten(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("test.redaction")
    logger.addFilter(RedactingFilter())
    with caplog.at_level(logging.INFO, "test.redaction"):
        logger.info("HTTP Request: %s %s", "GET", f"https://host/q?apikey={SECRET}")
        logger.info("plain %d", 5)
    assert SECRET not in caplog.text
    assert "plain 5" in caplog.text
