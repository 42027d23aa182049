"""Errors a user can act on: each message names what is wrong and what to do."""

from __future__ import annotations


class LakehouseError(Exception):
    """Base of every error raised on purpose by the lakehouse."""


class ConfigError(LakehouseError):
    """A setting, a contract or the instrument registry is wrong; names the file, the key and the nearest valid one."""


class UnknownAssetError(LakehouseError):
    """An asset pair is neither registered nor a plausible crypto or forex pair."""


class InvalidRangeError(LakehouseError):
    """A time range is inverted, empty, zoneless where a zone is needed, or in the future."""


class StorageError(LakehouseError):
    """The lake refused or failed an operation; nothing was half-committed."""


class TableNotFoundError(StorageError):
    """The table does not exist in this lake."""


class SnapshotError(StorageError):
    """There is no such snapshot of the lake, or it cannot be made under that name."""


class MixedOriginError(StorageError):
    """Synthetic and real data would have been mixed in one lake."""


class ConcurrentWriteError(StorageError):
    """Another writer committed first more often than the retry limit allows."""


class ContractError(LakehouseError):
    """Data does not have the shape its contract asks for."""


class DeadLetterError(LakehouseError):
    """A dead letter file cannot be read or replayed; it is left where it is."""


class SourceError(LakehouseError):
    """Base of what a source may raise while fetching; `retryable` says whether asking again could help."""

    retryable: bool = False


class SourceUnavailableError(SourceError):
    """The provider did not answer usefully after all retries (5xx, time-out, truncated body, HTML instead of JSON)."""

    retryable = True


class CircuitOpenError(SourceError):
    """The provider failed too often; calls are refused until the circuit half-opens."""

    retryable = True


class QuotaExhaustedError(SourceError):
    """The provider's daily quota is used up."""


class SourceAuthError(SourceError):
    """The key is missing, wrong or lacks the entitlement."""


class MalformedAnswerError(SourceError):
    """The provider answered with something its documented format does not allow."""


class UnsupportedError(SourceError):
    """The provider cannot serve this dataset, asset or timeframe."""
