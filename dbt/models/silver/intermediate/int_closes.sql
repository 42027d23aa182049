{{ config(
    unique_key=['asset_pair', 'day'],
    meta={'grain': 'asset', 'clock': '1d'},
    partition_by=['asset_pair', 'partition_date'],
    tblproperties={'delta.dataSkippingStatsColumns': 'timestamp,closed_at'}
) }}

with bars as (
  select
    asset_pair,
    close,
    timestamp,
    {{ closes_at() }} as closed_at
  from {{ ref('market_data_enriched') }}
  {%- if is_incremental() %}
  where {{ told('source') }}
  {%- endif %}
),

closes as (
  select
    asset_pair,
    -- What closes at midnight belongs to the day that ends.
    date_trunc('DAY', closed_at - interval '1' microsecond) as timestamp,
    -- Of bars that closed together the shortest is the one that opened last.
    max_by(close, struct(closed_at, timestamp)) as close,
    max(closed_at) as closed_at
  from bars
  group by asset_pair, date_trunc('DAY', closed_at - interval '1' microsecond)
),

dated as (
  select
    asset_pair,
    cast(timestamp as date) as day,
    timestamp,
    close,
    closed_at,
    cast(trunc(timestamp, 'year') as date) as partition_date
  from closes
)

select * from dated
{%- if is_incremental() %}
where {{ told('rows') }}
{%- endif %}
