{{ newest_version(
    source('bronze', 'raw_trade_executions'),
    ['execution_id'],
    ['execution_id', 'order_id', 'decision_id', 'asset_pair', 'timestamp', 'side', 'quantity', 'price', 'fee',
     'fee_currency', 'venue', 'status', 'provider', 'ingested_at', 'partition_date', 'partition_asset_pair']
) }}
