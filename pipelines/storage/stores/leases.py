"""Leases in S3: whoever holds one for a table has the turn. Every change of it is compared and swapped."""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from pipelines.errors import StorageError
from pipelines.storage.stores.s3 import Place, client, error_code, explained

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef

# How long after its last renewal a lease lapses: so long do others wait for a holder that was killed.
LEASE_SECONDS = 15.0
_FIRST_POLL_SECONDS = 0.05
_LAST_POLL_SECONDS = 1.0
_TAKEN = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
_ABSENT = {"NoSuchKey", "404"}


@contextmanager
def lease(place: Place, table_name: str, patience_seconds: float, seconds: float = LEASE_SECONDS) -> Iterator[bool]:
    """Hold the lease of a table; yields whether it was had in time.

    Args:
        place: the lake's bucket and prefix.
        table_name: the table.
        patience_seconds: how long to wait for it.
        seconds: how long after its last renewal it lapses.

    Raises:
        StorageError: there is no such bucket, or it cannot be read and written; names the fix.
    """
    held = Lease(place, table_name, seconds)
    had = _taken(held, patience_seconds)
    if not had:
        yield False
        return
    done = threading.Event()
    renewal = threading.Thread(target=_renew, args=(held, done), name=f"lease-{table_name}", daemon=True)
    renewal.start()
    try:
        yield True
    finally:
        done.set()
        renewal.join()
        # Who cannot give it back lets it lapse; the work under it is done either way.
        with suppress(StorageError):
            held.release()


def _taken(wanted: Lease, patience_seconds: float) -> bool:
    deadline, pause = time.monotonic() + patience_seconds, _FIRST_POLL_SECONDS
    while not wanted.take():
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        # Jitter keeps those who wait from asking all at once.
        time.sleep(min(left, pause * (0.5 + random.random())))  # noqa: S311 - no secret
        pause = min(pause * 1.5, _LAST_POLL_SECONDS)
    return True


def _renew(held: Lease, done: threading.Event) -> None:
    while not done.wait(held.seconds / 3):
        # A failure is made good by the next renewal, and a lease that was taken over is not fought for.
        with suppress(StorageError):
            if not held.renew():
                return


@dataclass(frozen=True, slots=True)
class _Seen:
    """A lease as it was found."""

    holder: str
    etag: str
    lapsed: bool


def _seen(found: GetObjectOutputTypeDef, body: bytes) -> _Seen:
    try:
        content = json.loads(body)
        holder, seconds = str(content["holder"]), float(content["seconds"])
    except (ValueError, KeyError, TypeError):
        # No lease of ours: nobody is held up by it.
        holder, seconds = "", 0.0
    now = parsedate_to_datetime(found["ResponseMetadata"]["HTTPHeaders"]["date"])
    age = (now - found["LastModified"]).total_seconds()
    return _Seen(holder, found["ETag"], lapsed=not seconds or age > seconds)


class Lease:
    """The object `.locks/<table>.lease` of a lake: its holder, and how long it is good for after it was written.

    Its age is the difference of two times that the server gives, so that clocks of machines need not agree.
    """

    def __init__(self, place: Place, table_name: str, seconds: float) -> None:
        self.seconds = seconds
        self._client: S3Client = client()
        self._bucket = place.bucket
        self._key = place.key(f".locks/{table_name}.lease")
        self._doing = f"cannot take turns at s3://{self._bucket}/{self._key}"
        self._holder = uuid.uuid4().hex
        # Makes each writing another object with another ETag.
        self._writings = 0
        self._etag = ""

    def take(self) -> bool:
        """Take the lease if nobody holds it, or its holder let it lapse; says whether it is ours now.

        Raises:
            StorageError: the bucket is missing, or cannot be read and written.
        """
        there = self._read()
        if there is None:
            return self._write(self.seconds, if_none_match="*")
        if there.holder == self._holder:
            # We had written it, and only the answer was lost.
            self._etag = there.etag
            return True
        return there.lapsed and self._write(self.seconds, if_match=there.etag)

    def renew(self) -> bool:
        """Write it anew; says whether it is still ours.

        Raises:
            StorageError: S3 did not answer, or refused.
        """
        return self._write(self.seconds, if_match=self._etag) or self.take()

    def release(self) -> None:
        """Let it lapse at once, if it is still ours.

        Raises:
            StorageError: S3 did not answer, or refused.
        """
        self._write(0.0, if_match=self._etag)

    def _read(self) -> _Seen | None:
        from botocore.exceptions import ClientError  # noqa: PLC0415 - slow to import

        with explained(self._bucket, self._doing):
            try:
                found = self._client.get_object(Bucket=self._bucket, Key=self._key)
                return _seen(found, found["Body"].read())
            except ClientError as error:
                if error_code(error) not in _ABSENT:
                    raise
        return None

    def _write(self, seconds: float, *, if_none_match: str | None = None, if_match: str | None = None) -> bool:
        from botocore.exceptions import ClientError  # noqa: PLC0415 - slow to import

        self._writings += 1
        body = json.dumps({"holder": self._holder, "seconds": seconds, "writing": self._writings}).encode()
        with explained(self._bucket, self._doing):
            try:
                if if_none_match is not None:
                    put = self._client.put_object(
                        Bucket=self._bucket, Key=self._key, Body=body, IfNoneMatch=if_none_match
                    )
                else:
                    put = self._client.put_object(Bucket=self._bucket, Key=self._key, Body=body, IfMatch=if_match or "")
            except ClientError as error:
                if error_code(error) in _TAKEN | _ABSENT:
                    return False
                raise
        self._etag = put["ETag"]
        return True
