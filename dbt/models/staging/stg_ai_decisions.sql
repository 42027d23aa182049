{{ newest_version(
    source('bronze', 'raw_ai_decisions'),
    ['decision_id'],
    ['decision_id', 'asset_pair', 'timestamp', 'action', 'confidence', 'strategy', 'providers', 'votes', 'timeframe',
     'reasoning', 'model_version', 'provider', 'ingested_at', 'partition_date', 'partition_asset_pair']
) }}
