"""Where a lake lies and what its tables may be called: nothing outside it can be named."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipelines.errors import StorageError, TableNotFoundError
from pipelines.storage.stores import s3

_TABLE_NAME = re.compile(r"[a-z][a-z0-9_]{0,127}")
# Of these delta-rs alone knows more than the name; it takes what they need by these prefixes.
_OTHER_STORES = {"gs": "GOOGLE_", "az": "AZURE_", "abfs": "AZURE_", "abfss": "AZURE_"}


@dataclass(frozen=True)
class LakeRoot:
    """The folder (or object-store prefix) that holds one folder per table; `lake_root` makes one."""

    address: str

    @property
    def is_local(self) -> bool:
        """Whether the lake is a folder on this machine."""
        return "://" not in self.address

    @property
    def is_s3(self) -> bool:
        """Whether the lake is in S3."""
        return self.address.startswith("s3://")

    @property
    def place(self) -> s3.Place:
        """The lake's bucket and prefix; only for a lake in S3."""
        return s3.place(self.address)

    @property
    def spark_jars(self) -> tuple[str, ...]:
        """The jar sets that Spark needs for this lake beyond those it always needs."""
        return ("s3",) if self.is_s3 else ()

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
        """Return the address of a table as Spark takes it: S3 goes by s3a there.

        Raises:
            StorageError: Spark is not set up for such a lake.
        """
        uri = self.uri(table_name)
        if self.is_s3:
            return f"s3a://{uri.removeprefix('s3://')}"
        if not self.is_local:
            raise StorageError(f"Spark is set up for folders and s3:// alone, not for {self.address}")
        return uri

    def options(self) -> dict[str, str] | None:
        """Return what delta-rs needs from the environment for an object store; None for a local lake."""
        return None if self.is_local else self._options

    @cached_property
    def _options(self) -> dict[str, str]:
        if self.is_s3:
            return s3.delta_options()
        prefix = _OTHER_STORES[self.address.partition("://")[0]]
        return {name: value for name, value in os.environ.items() if name.startswith(prefix)}


def lake_root(storage_path: str | Path) -> LakeRoot:
    """Return the root of a lake; a local path is made absolute.

    Raises:
        StorageError: the path is empty, is a file, or is an address of another kind than those that are known.
    """
    text = str(storage_path)
    if "://" in text:
        scheme, _, rest = text.partition("://")
        if scheme != "file":
            return LakeRoot(_checked_address(text, scheme))
        text = rest
    if not text.strip():
        raise StorageError("the storage path is empty; set delta_lake.storage_path")
    path = Path(text).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise StorageError(f"{path} is a file; delta_lake.storage_path must be a folder")
    return LakeRoot(str(path))


def _checked_address(text: str, scheme: str) -> str:
    if scheme == "s3":
        s3.place(text)
    elif scheme not in _OTHER_STORES:
        hint = f"write s3://{text.partition('://')[2]}" if scheme in {"s3a", "s3n"} else "use a folder or s3://bucket"
        raise StorageError(f"{text!r} is not a lake's address: {scheme}:// is unknown; {hint}")
    return text.rstrip("/")


def is_table_name(text: str) -> bool:
    """Say whether a table may be called that."""
    return isinstance(text, str) and _TABLE_NAME.fullmatch(text) is not None


def checked_name(table_name: str) -> str:
    """Return the name unchanged if it is a plain table name: lower-case letters, digits and _.

    Raises:
        StorageError: it is anything else, such as a path or a piece of SQL.
    """
    if not is_table_name(table_name):
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
