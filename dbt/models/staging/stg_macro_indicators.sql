{{ newest_version(
    source('bronze', 'macro_indicators'),
    ['series_id', 'timestamp'],
    ['series_id', 'timestamp', 'value', 'units', 'realtime_start', 'realtime_end', 'provider', 'ingested_at',
     'partition_date']
) }}
