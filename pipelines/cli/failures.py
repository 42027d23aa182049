"""Errors as a user sees them: one message on stderr, and an exit code that says whose turn it is."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import click

from pipelines.errors import (
    ConfigError,
    InvalidRangeError,
    LakehouseError,
    MixedOriginError,
    SnapshotError,
    TableNotFoundError,
    UnknownAssetError,
)

DONE = 0
FAILED = 1
WRONG_ARGUMENTS = 2
INTERRUPTED = 130
VERBOSE = "pipelines.cli.verbose"

_FOR_THE_USER_TO_MEND = (
    ConfigError,
    InvalidRangeError,
    MixedOriginError,
    SnapshotError,
    TableNotFoundError,
    UnknownAssetError,
)


class FailedWork(click.ClickException):
    """Something did not work, and running it again may help."""

    exit_code = FAILED


class WrongArguments(click.ClickException):
    """Other arguments or settings are needed."""

    exit_code = WRONG_ARGUMENTS


class Interrupted(click.ClickException):
    """The user ended it."""

    exit_code = INTERRUPTED


@contextmanager
def reported(ctx: click.Context) -> Iterator[None]:
    """Turn errors raised on purpose into a message; a defect of ours keeps its traceback."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("interrupted") from None
    except (LakehouseError, OSError, ExceptionGroup) as error:
        known = _cause(error)
        if known is None:
            raise
        if ctx.meta.get(VERBOSE):
            traceback.print_exception(error)
        kind = WrongArguments if isinstance(known, _FOR_THE_USER_TO_MEND) else FailedWork
        raise kind(_message(known)) from error


def _cause(error: Exception) -> Exception | None:
    """Return the error to show: the first of a group if all of the group were raised on purpose."""
    if isinstance(error, ExceptionGroup):
        causes = [_cause(part) for part in error.exceptions]
        return causes[0] if all(causes) else None
    if isinstance(error, OSError) and error.errno in (None, errno.EPIPE):
        return None
    return error if isinstance(error, LakehouseError | OSError) else None


def _message(error: Exception) -> str:
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    return str(error)
