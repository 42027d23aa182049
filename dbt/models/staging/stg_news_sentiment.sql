{{ newest_version(
    source('bronze', 'raw_news_sentiment'),
    ['article_id', 'asset_pair'],
    ['article_id', 'asset_pair', 'timestamp', 'title', 'url', 'source_name', 'summary', 'sentiment_score',
     'sentiment_label', 'relevance_score', 'topics', 'provider', 'ingested_at', 'partition_date',
     'partition_asset_pair']
) }}
