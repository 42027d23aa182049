"""Creates tables from their contracts, and keeps synthetic and real data in different lakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import DeltaError

from pipelines.contracts import Contract, contract_for
from pipelines.errors import MixedOriginError, StorageError
from pipelines.storage.evolution import CONTRACT_ID, CONTRACT_VERSION, bring_to_contract, delta_schema

if TYPE_CHECKING:
    from pipelines.config import DeltaLakeSettings, Granularity
    from pipelines.storage.lake import Lake

Origin = Literal["synthetic", "real"]
ORIGIN = "lakehouse.origin"
GRANULARITY = "lakehouse.partition_granularity"
CODEC = "delta.parquet.compression.codec"
# The first table of every lake: its creation is atomic, so whoever creates it decides the lake's origin.
MARKER_TABLE = "ingest_coverage"


def origin_name(*, synthetic: bool) -> Origin:
    """Return the origin's name as the table properties have it."""
    return "synthetic" if synthetic else "real"


def property_of(table: DeltaTable, name: str) -> str | None:
    """Return a table property, or None."""
    return table.metadata().configuration.get(name)


def claim_origin(lake: Lake, settings: DeltaLakeSettings, *, synthetic: bool) -> None:
    """Make the lake one of synthetic or of real data, or check that it already is.

    Raises:
        MixedOriginError: the lake holds the other kind; names the other lake's setting.
    """
    if not lake.exists(MARKER_TABLE):
        _create(lake, MARKER_TABLE, contract_for(MARKER_TABLE), settings, origin_name(synthetic=synthetic))
    check_origin(lake, synthetic=synthetic)


def check_origin(lake: Lake, *, synthetic: bool) -> None:
    """Make sure that the lake, unless it is new, holds data of that origin.

    Raises:
        MixedOriginError: it holds the other kind; names the other lake's setting.
    """
    if not lake.exists(MARKER_TABLE):
        return
    wanted, found = origin_name(synthetic=synthetic), property_of(lake.open(MARKER_TABLE), ORIGIN)
    if found != wanted:
        other = "delta_lake.sample_storage_path" if synthetic else "delta_lake.storage_path"
        raise MixedOriginError(
            f"the lake {lake.root.address} holds {found} data and cannot take {wanted} data; "
            f"put {wanted} data into a lake of its own ({other} is for it)"
        )


def ensure_table(lake: Lake, table_name: str, settings: DeltaLakeSettings, *, synthetic: bool) -> DeltaTable:
    """Create the table from its contract, or bring it there, and open it; safe when two processes do it at once.

    Raises:
        ContractError: no contract declares the table, or it would have to lose or change data; shows the difference.
        MixedOriginError: the lake holds data of the other origin.
        StorageError: the lake cannot be written.
    """
    lake.root.uri(table_name)
    contract = contract_for(table_name)
    claim_origin(lake, settings, synthetic=synthetic)
    if not lake.exists(table_name):
        _create(lake, table_name, contract, settings, origin_name(synthetic=synthetic))
    return bring_to_contract(lake, table_name, contract)


def _create(lake: Lake, table_name: str, contract: Contract, settings: DeltaLakeSettings, origin: Origin) -> None:
    granularity = contract.granularity(table_name, settings)
    try:
        if lake.root.is_local:
            lake.root.path.mkdir(parents=True, exist_ok=True)
        DeltaTable.create(
            lake.root.uri(table_name),
            schema=delta_schema(contract.columns),
            mode="error",
            partition_by=list(contract.partition_columns) or None,
            name=table_name,
            description=contract.description,
            configuration=_properties(contract, settings, origin, granularity),
            storage_options=lake.root.options(),
            # A retry would commit a second CREATE as version 1, over the winner's properties.
            commit_properties=CommitProperties(max_commit_retries=0),
            raise_if_key_not_exists=False,
        )
    except (DeltaError, OSError) as error:
        # Version 0 is put only if absent: whoever comes second uses the first one's table.
        if not lake.exists(table_name):
            raise StorageError(f"cannot create {table_name} in {lake.root.address}: {_line(error)}") from error


def _properties(
    contract: Contract, settings: DeltaLakeSettings, origin: Origin, granularity: Granularity | None
) -> dict[str, str | None]:
    properties: dict[str, str | None] = {
        CONTRACT_ID: contract.id,
        CONTRACT_VERSION: contract.version,
        ORIGIN: origin,
        CODEC: settings.compression,
        # As in Spark; delta-rs would let a reader go through a hundred commits.
        "delta.checkpointInterval": "10",
        # As long as vacuum keeps them: a checkpoint would forget a removed file after a week.
        "delta.deletedFileRetentionDuration": "interval 30 days",
        # Delta would remove log files that a snapshot of the lake needs: storage.log_cleanup does it instead.
        "delta.enableExpiredLogCleanup": "false",
    }
    properties["delta.appendOnly"] = "true"
    if contract.is_log:
        return properties
    if granularity:
        properties[GRANULARITY] = granularity
    properties["delta.dataSkippingStatsColumns"] = ",".join(_indexed(contract))
    return properties


def _indexed(contract: Contract) -> list[str]:
    """Columns that files are skipped by; statistics of the others would only make the log longer."""
    event_time = [contract.event_time] if contract.event_time else []
    return list(dict.fromkeys([*contract.keys, *event_time, "ingested_at"]))


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
