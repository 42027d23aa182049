"""What S3 needs, from the environment, for each of its clients: delta-rs, Spark and boto3. Keys go into no setting."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from pipelines.errors import StorageError

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

DEFAULT_REGION = "us-east-1"
# A commit is put only if its version is absent; the driver's class path has it from `python -m pipelines.jars`.
LOG_STORE = "lakehouse.ConditionalPutLogStore"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"([A-Za-z0-9_.=-]+(/[A-Za-z0-9_.=-]+)*)?")
_DENIED = {"AccessDenied", "403", "Forbidden", "AllAccessDisabled"}
_WRONG_KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
_NO_BUCKET = {"NoSuchBucket"}


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket and a prefix in it, without slashes around it; the prefix may be empty."""

    bucket: str
    prefix: str

    def key(self, path: str) -> str:
        """Return the key of a path under the prefix."""
        return f"{self.prefix}/{path}" if self.prefix else path


def place(address: str) -> Place:
    """Return the bucket and prefix of `s3://bucket[/prefix]`.

    Raises:
        StorageError: it is no such address.
    """
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    prefix = prefix.rstrip("/")
    dots = any(part in {".", ".."} for part in prefix.split("/"))
    if not address.startswith("s3://") or dots or not _BUCKET.fullmatch(bucket) or not _PREFIX.fullmatch(prefix):
        raise StorageError(
            f"{address!r} is not an S3 address; write s3://bucket or s3://bucket/prefix, with a bucket name in "
            "lower-case letters, digits, dots and hyphens, and a prefix in letters, digits and _ . = -"
        )
    return Place(bucket, prefix)


def endpoint(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the address of an S3 server other than Amazon's; None without one."""
    return environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or None


def region(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the region; a server other than Amazon's gets one in any case, since requests are signed with it."""
    named = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    return named or (DEFAULT_REGION if endpoint(environ) else None)


def delta_options(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return what delta-rs needs. It commits by conditional put without being told."""
    options = {name: value for name, value in environ.items() if name.startswith("AWS_") and value}
    address, where = endpoint(environ), region(environ)
    if address:
        options["AWS_ENDPOINT_URL"] = address
    if where:
        options["AWS_REGION"] = where
    if address and address.startswith("http://"):
        options["AWS_ALLOW_HTTP"] = "true"
    return options


def spark_configuration(scratch: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return what Spark needs; it takes the keys from the environment by itself.

    Args:
        scratch: a folder for what is being uploaded.
        environ: the environment.
    """
    values = {
        "spark.delta.logStore.s3a.impl": LOG_STORE,
        # Uploads wait on disk, not in the heap, and few at a time are enough for one machine.
        "spark.hadoop.fs.s3a.fast.upload.buffer": "disk",
        "spark.hadoop.fs.s3a.buffer.dir": scratch,
        "spark.hadoop.fs.s3a.multipart.size": "32M",
        "spark.hadoop.fs.s3a.threads.max": "16",
        "spark.hadoop.fs.s3a.connection.maximum": "64",
        # Retries multiply with those of the SDK below: by default a dead server is given up after minutes.
        "spark.hadoop.fs.s3a.attempts.maximum": "4",
        "spark.hadoop.fs.s3a.retry.limit": "4",
        "spark.hadoop.fs.s3a.connection.establish.timeout": "5s",
    }
    address, where = endpoint(environ), region(environ)
    if address:
        values["spark.hadoop.fs.s3a.endpoint"] = address
        values["spark.hadoop.fs.s3a.path.style.access"] = "true"
    if where:
        values["spark.hadoop.fs.s3a.endpoint.region"] = where
    return values


def client() -> S3Client:
    """Return a client for the environment of now; it may be shared between threads."""
    return _client(tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))))


@lru_cache(maxsize=8)
def _client(environment: tuple[tuple[str, str], ...]) -> S3Client:
    import boto3  # noqa: PLC0415 - slow to import
    from botocore.config import Config  # noqa: PLC0415

    environ = dict(environment)
    address = endpoint(environ)
    config = Config(
        connect_timeout=5,
        read_timeout=30,
        retries={"mode": "standard", "total_max_attempts": 4},
        s3={"addressing_style": "path" if address else "auto"},
    )
    # A session of its own: the default one keeps the first keys it saw.
    found: S3Client = boto3.session.Session().client(
        "s3", endpoint_url=address, region_name=region(environ) or DEFAULT_REGION, config=config
    )
    return found


def has_objects(where: Place, path: str) -> bool:
    """Say whether any object's path under the prefix begins with `path`.

    Raises:
        StorageError: the bucket is missing or cannot be read; names the fix.
    """
    prefix = where.key(path)
    with explained(where.bucket, f"cannot look into s3://{where.bucket}/{prefix}"):
        return client().list_objects_v2(Bucket=where.bucket, Prefix=prefix, MaxKeys=1)["KeyCount"] > 0


def folders(where: Place) -> list[str]:
    """Return the names right under the prefix that have objects under them.

    Raises:
        StorageError: the bucket is missing or cannot be read; names the fix.
    """
    prefix = where.key("")
    found: list[str] = []
    with explained(where.bucket, f"cannot list s3://{where.bucket}/{prefix}"):
        for page in (
            client().get_paginator("list_objects_v2").paginate(Bucket=where.bucket, Prefix=prefix, Delimiter="/")
        ):
            found += [each["Prefix"].removeprefix(prefix).rstrip("/") for each in page.get("CommonPrefixes", [])]
    return found


def error_code(error: Exception) -> str:
    """Return the code of an S3 answer, as NoSuchKey or PreconditionFailed; empty if there was no answer."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


@contextmanager
def explained(bucket: str, doing: str) -> Iterator[None]:
    """Turn what boto3 raises into a StorageError that names the fix.

    Raises:
        StorageError: in place of any error of boto3.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError  # noqa: PLC0415 - slow to import

    try:
        yield
    except NoCredentialsError as error:
        raise StorageError(f"{doing}: no keys; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from error
    except ClientError as error:
        raise StorageError(f"{doing}: {_reason(error, bucket)}") from error
    except BotoCoreError as error:
        where = f"at {endpoint()}; is AWS_ENDPOINT_URL right?" if endpoint() else "from S3; is there a network?"
        raise StorageError(f"{doing}: no answer {where} ({error})") from error


def _reason(error: Exception, bucket: str) -> str:
    code, address = error_code(error), endpoint()
    where = f" at {address}" if address else ""
    if code in _NO_BUCKET:
        option = f" --endpoint-url {address}" if address else ""
        return f"no bucket {bucket}{where}; create it with `aws s3 mb s3://{bucket}{option}`"
    if code in _WRONG_KEYS:
        return f"the keys are not accepted{where} ({code}); check AWS_ACCESS_KEY_ID and those that go with it"
    if code in _DENIED:
        rights = "s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject"
        return f"access to bucket {bucket} denied{where}; the keys in the environment need {rights}"
    return str(error)
