"""Kafka's messages as loosely typed rows: Spark decodes them, the driver gets them as Arrow."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.streaming.schemas import avro_schema, message_columns

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import DataType, StructType

    from pipelines.streaming.topics import Topic

PARTITION, OFFSET, TIME, KEY = "kafka_partition", "kafka_offset", "kafka_timestamp", "_key"
BYTES, RAW, UNREADABLE = "_bytes", "_raw", "_unreadable"
_MESSAGE = "_message"


def decoded(frame: DataFrame, topic: Topic, max_bytes: int) -> DataFrame:
    """Return a row for each message of a Kafka source.

    Args:
        frame: Spark's columns key, value, partition, offset, timestamp.
        topic: says how the value is written.
        max_bytes: a larger value is not looked into.

    Returns:
        Where it lay (`kafka_partition`, `kafka_offset`, `kafka_timestamp`), `_key`, `_bytes`, the fields as
        the struct `_message`, null where it could not be read, and then the value as `_raw`.
    """
    from pyspark.sql import functions as F  # noqa: N812, PLC0415 - its usual name; slow to import

    value, small = F.col("value"), F.length("value") <= max_bytes
    rows = frame.select(
        F.col("partition").cast("bigint").alias(PARTITION),
        F.col("offset").alias(OFFSET),
        F.col("timestamp").alias(TIME),
        F.try_validate_utf8(F.col("key").cast("string")).alias(KEY),
        F.coalesce(F.length("value"), F.lit(0)).alias(BYTES),
        _message(topic, F.when(small, value)).alias(_MESSAGE),
        "value",
    )
    return rows.select(
        *(name for name in rows.columns if name != "value"),
        F.when(F.col(_MESSAGE).isNull(), F.col("value")).alias(RAW),
    )


def collected(rows: DataFrame) -> pa.Table:
    """Return decoded rows on the driver, in the order of their offsets, the fields of the messages as columns."""
    table = rows.toArrow()
    messages = table[_MESSAGE].combine_chunks()
    if isinstance(messages, pa.ChunkedArray):
        messages = pa.concat_arrays(messages.chunks) if messages.num_chunks else pa.array([], messages.type)
    table = table.drop_columns([_MESSAGE])
    for field, values in zip(messages.type, messages.flatten(), strict=True):
        table = table.append_column(field.name, values)
    return table.sort_by([(PARTITION, "ascending"), (OFFSET, "ascending")])


def _message(topic: Topic, value: Column) -> Column:
    from pyspark.sql import functions as F  # noqa: N812, PLC0415

    if topic.format == "avro":
        from pyspark.sql.avro.functions import from_avro  # noqa: PLC0415

        return from_avro(value, json.dumps(avro_schema(topic.contract)), {"mode": "PERMISSIVE"})
    options = {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": UNREADABLE}
    # Java would hand over text that is none, and Python's libraries do not bear it.
    return F.from_json(F.try_validate_utf8(value.cast("string")), _json_type(topic), options)


def _json_type(topic: Topic) -> StructType:
    """Return how JSON is read: single values as text, which the edge makes something of or says why not."""
    from pyspark.sql.types import StringType, StructField, StructType  # noqa: PLC0415 - slow to import

    typed = topic.contract.spark_schema()
    fields = [
        StructField(column.name, _loose(typed[column.name].dataType)) for column in message_columns(topic.contract)
    ]
    return StructType([*fields, StructField(UNREADABLE, StringType())])


def _loose(kind: DataType) -> DataType:
    from pyspark.sql.types import ArrayType, StringType, StructType  # noqa: PLC0415 - slow to import

    return kind if isinstance(kind, ArrayType | StructType) else StringType()
