"""A health check: `python answers.py URL` ends with 0 if a GET of the address is answered with 200."""

from __future__ import annotations

import sys
from urllib.request import urlopen

_TIMEOUT_SECONDS = 5


def main(url: str) -> int:
    """Ask once; returns 0 if all is well, else 1 with the reason on stderr."""
    try:
        # The address is the compose file's own.
        with urlopen(url, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
            return 0 if answer.status == 200 else 1  # noqa: PLR2004 - it is what HTTP calls it
    except OSError as error:
        sys.stderr.write(f"{url}: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
