"""What `lakehouse doctor` looks at for a lake in S3: keys, bucket, versions, jars. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipelines.cli.checks import Check, State
from pipelines.config import Settings
from pipelines.errors import StorageError
from pipelines.jars import JarsError, jar_paths
from pipelines.storage.stores.s3 import client, endpoint, explained, has_objects, place, region


def bucket_checks(address: str, settings: Settings) -> Iterator[Check]:
    """Yield the checks of a lake's bucket; the first one that is broken is the last but for the jars."""
    if settings.storage.engine == "spark":
        yield _jars(settings)
    keys = _keys()
    yield keys
    if keys.state is State.BROKEN:
        return
    try:
        where = place(address)
        has_objects(where, "")
    except StorageError as error:
        yield Check("bucket", State.BROKEN, str(error))
        return
    at = endpoint() or f"Amazon S3, region {region() or 'not set'}"
    yield Check("bucket", State.OK, f"{where.bucket} answers at {at}")
    yield _versions(where.bucket)


def _jars(settings: Settings) -> Check:
    folder = Path(settings.resolve(settings.spark.jars_dir))
    try:
        found = jar_paths(["s3"], folder)
    except JarsError as error:
        return Check("s3 jars", State.BROKEN, "missing", f"{error}; or set storage.engine to embedded")
    return Check("s3 jars", State.OK, f"{len(found)} jars in {folder / 's3'}")


def _keys() -> Check:
    """Say where keys were found; never what they are."""
    import boto3

    found = boto3.session.Session().get_credentials()
    if found is None:
        return Check("s3 keys", State.BROKEN, "none found", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    return Check("s3 keys", State.OK, "set in the environment" if found.method == "env" else f"from {found.method}")


def _versions(bucket: str) -> Check:
    try:
        with explained(bucket, f"cannot tell whether bucket {bucket} keeps versions"):
            status = client().get_bucket_versioning(Bucket=bucket).get("Status")
    except StorageError as error:
        return Check("bucket versions", State.WARN, str(error), "give the keys s3:GetBucketVersioning")
    if status == "Enabled":
        return Check("bucket versions", State.OK, "kept: a lost file can be brought back")
    what = "not kept, so that a lost file has to be fetched again"
    return Check("bucket versions", State.WARN, what, "docs/operations.md shows how to turn it on")
