"""Files of a lake in S3: brought back from a bucket that keeps versions, or set aside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.storage.recovery.held_files import rows_in
from pipelines.storage.stores.s3 import client, error_code, explained, place

if TYPE_CHECKING:
    from pipelines.storage.names import LakeRoot

# What servers answer that keep no versions at all.
_NO_VERSIONS = {"NotImplemented", "MethodNotAllowed", "501", "405"}


def bring_back(root: LakeRoot, path: str, size: int, rows: int | None) -> bool:
    """Make the newest kept version that is sound the present one; returns whether there is one.

    Args:
        root: of a lake in S3.
        path: from the lake's root.
        size: the bytes that the log says the file has.
        rows: the rows that the log says it has; None if it does not say.

    Raises:
        StorageError: S3 refused or did not answer.
    """
    from botocore.exceptions import ClientError  # noqa: PLC0415 - slow to import

    where, s3 = place(root.address), client()
    key = where.key(path)
    with explained(where.bucket, f"cannot bring back {path} (it needs s3:ListBucketVersions too)"):
        try:
            found = s3.list_object_versions(Bucket=where.bucket, Prefix=key)
        except ClientError as error:
            if error_code(error) in _NO_VERSIONS:
                return False
            raise
        kept = [each for each in found.get("Versions", []) if each["Key"] == key and each.get("Size") == size]
        for each in sorted(kept, key=lambda each: each["LastModified"], reverse=True):
            version = each["VersionId"]
            content = s3.get_object(Bucket=where.bucket, Key=key, VersionId=version)["Body"].read()
            # One that is garbled has the right size too.
            if (has := rows_in(pa.BufferReader(content))) is not None and rows in (None, has):
                source = {"Bucket": where.bucket, "Key": key, "VersionId": version}
                s3.copy_object(Bucket=where.bucket, Key=key, CopySource=source)  # type: ignore[arg-type]
                return True
    return False


def move(root: LakeRoot, path: str, target: str) -> None:
    """Give a file another name: a copy, then a removal.

    Raises:
        StorageError: S3 refused or did not answer.
    """
    where, s3 = place(root.address), client()
    with explained(where.bucket, f"cannot set {path} aside"):
        source = {"Bucket": where.bucket, "Key": where.key(path)}
        s3.copy(source, where.bucket, where.key(target))  # type: ignore[arg-type]
        s3.delete_object(Bucket=where.bucket, Key=where.key(path))
