"""Where a lake lies and what its tables may be called: nothing outside it can be named."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import StorageError, TableNotFoundError

_TABLE_NAME = re.compile(r"[a-z][a-z0-9_]{0,127}")
# What object stores may need; delta-rs takes them by these names.
_STORAGE_VARIABLES = ("AWS_", "AZURE_", "GOOGLE_")


@dataclass(frozen=True, slots=True)
class LakeRoot:
    """The folder (or object-store prefix) that holds one folder per table."""

    address: str

    @property
    def is_local(self) -> bool:
        """Whether the lake is a folder on this machine."""
        return "://" not in self.address

    @property
    def path(self) -> Path:
        """The lake's folder; only for a local lake."""
        return Path(self.address)

    def uri(self, table_name: str) -> str:
        """Return the address of a table.

        Raises:
            StorageError: the name is not a plain table name.
        """
        return f"{self.address.rstrip('/')}/{checked_name(table_name)}"

    def spark_uri(self, table_name: str) -> str:
        """Return the address of a table as Spark takes it: S3 goes by s3a there."""
        uri = self.uri(table_name)
        return f"s3a://{uri.removeprefix('s3://')}" if uri.startswith("s3://") else uri

    def options(self, environ: Mapping[str, str] = os.environ) -> dict[str, str] | None:
        """Return what an object store needs from the environment; None for a local lake."""
        if self.is_local:
            return None
        return {name: value for name, value in environ.items() if name.startswith(_STORAGE_VARIABLES)}


def lake_root(storage_path: str | Path) -> LakeRoot:
    """Return the root of a lake; a local path is made absolute.

    Raises:
        StorageError: the path is empty or is a file.
    """
    text = str(storage_path)
    if "://" in text:
        scheme, rest = text.split("://", 1)
        if scheme != "file":
            return LakeRoot(text.rstrip("/"))
        text = rest
    if not text.strip():
        raise StorageError("the storage path is empty; set delta_lake.storage_path")
    path = Path(text).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise StorageError(f"{path} is a file; delta_lake.storage_path must be a folder")
    return LakeRoot(str(path))


def checked_name(table_name: str) -> str:
    """Return the name unchanged if it is a plain table name: lower-case letters, digits and _.

    Raises:
        StorageError: it is anything else, such as a path or a piece of SQL.
    """
    if not isinstance(table_name, str) or not _TABLE_NAME.fullmatch(table_name):
        raise StorageError(
            f"{table_name!r} is not a table name; use lower-case letters, digits and _, for example raw_market_data_1h"
        )
    return table_name


def table_missing(table_name: str, known: Sequence[str], root: LakeRoot) -> TableNotFoundError:
    """Return the error for a table that is not there, naming the nearest ones."""
    close = difflib.get_close_matches(table_name, known, n=2)
    if close:
        hint = f"did you mean {' or '.join(close)}?"
    else:
        hint = f"it has {', '.join(known)}" if known else "it is empty: run a backfill first"
    return TableNotFoundError(f"no table {table_name} in the lake {root.address}; {hint}")
