"""Makes the bucket of a lake: `python create_bucket.py s3://bucket/prefix`; one that is there is left as it is.

Server and keys come from the environment, as for the lake itself.
"""

from __future__ import annotations

import sys
import time

from botocore.exceptions import BotoCoreError, ClientError

from pipelines.storage.stores.s3 import client, place

_WAIT_SECONDS = 60
_PAUSE_SECONDS = 1
_THERE = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}


def main(address: str) -> int:
    """Make the bucket, waiting for the server; returns 0, or 1 with the reason on stderr."""
    bucket, until = place(address).bucket, time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            client().create_bucket(Bucket=bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] in _THERE:
                break
            problem: Exception = error
        except BotoCoreError as error:
            problem = error
        else:
            break
        if time.monotonic() > until:
            sys.stderr.write(f"no bucket {bucket}: {problem}\n")
            return 1
        time.sleep(_PAUSE_SECONDS)
    sys.stdout.write(f"bucket {bucket}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
