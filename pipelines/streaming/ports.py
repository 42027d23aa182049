"""Ports of this machine that nobody listens on."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection
from contextlib import suppress

_PORTS = range(20_000, 30_000)
_TRIES = 100


def reserved_port() -> int:
    """Return a free port below those the system hands out, so that nobody gets it by chance before it is used.

    Raises:
        OSError: none was found.
    """
    for port in random.sample(_PORTS, _TRIES):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError(f"no free port between {_PORTS.start} and {_PORTS.stop}")


def reserved_ports(count: int, besides: Collection[int] = ()) -> list[int]:
    """Return different ports, each as `reserved_port` has it, and none of some others.

    Raises:
        OSError: there are not as many.
    """
    found: list[int] = []
    while len(found) < count:
        if (port := reserved_port()) not in {*found, *besides}:
            found.append(port)
    return found
