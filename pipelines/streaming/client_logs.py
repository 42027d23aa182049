"""Keeps credentials out of what Kafka's clients log, and catches why a connection failed, which they only log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from typing_extensions import override

from pipelines.sources.redaction import HIDDEN

# Who logs requests, with the bytes that a client authenticates with.
_REQUEST_LOGS = ("kafka.net.connection", "kafka.protocol.parser")
_CONNECTION_LOGS = ("kafka.net.manager", "kafka.net.connection", "kafka.net.transport")


class Hidden(str):
    """A secret as clients need it, plain; the repr of it, and of options that hold it, does not show it."""

    __slots__ = ()

    @override
    def __repr__(self) -> str:
        return repr(HIDDEN)


class _NoCredentials(logging.Filter):
    @override
    def filter(self, record: logging.LogRecord) -> bool:
        """Drop the requests that carry credentials, and the bytes that are sent, which may be those of one."""
        message = record.getMessage()
        return "Sasl" not in message and " Send: " not in message


class _Overhearing(logging.Filter):
    """Keeps the errors that are logged instead of logging them."""

    def __init__(self, failures: list[BaseException]) -> None:
        super().__init__()
        self._failures = failures

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        arguments = record.args if isinstance(record.args, tuple) else ()
        self._failures.extend(part for part in arguments if isinstance(part, BaseException))
        return False


def hide_credentials() -> None:
    """Keep credentials out of the clients' logs of requests; safe to call again."""
    for name in _REQUEST_LOGS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, _NoCredentials) for known in logger.filters):
            logger.addFilter(_NoCredentials())


@contextmanager
def overheard() -> Iterator[list[BaseException]]:
    """Collect why connections fail, oldest first, in place of the warnings about each attempt."""
    failures: list[BaseException] = []
    listening = _Overhearing(failures)
    loggers = [logging.getLogger(name) for name in _CONNECTION_LOGS]
    for logger in loggers:
        logger.addFilter(listening)
    try:
        yield failures
    finally:
        for logger in loggers:
            logger.removeFilter(listening)
