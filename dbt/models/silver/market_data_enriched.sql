{{ config(
    unique_key=['timeframe', 'asset_pair', 'timestamp'],
    meta={'grain': 'series'},
    partition_by=['timeframe', 'asset_pair', 'partition_date'],
    tblproperties={'delta.dataSkippingStatsColumns': 'timestamp,ingested_at'}
) }}

{%- set bar = [
    'asset_pair', 'timeframe', 'timestamp', 'open', 'high', 'low', 'close', 'volume', 'provider', 'price_side',
    'is_adjusted', 'is_derived', 'ingested_at'
] %}
{%- set computed = told('computed', 'sma_20 double').split(', ') if is_incremental() else [] %}

select
  enriched.*,
  cast(
    case when enriched.timeframe in ('1m', '5m', '15m') then trunc(enriched.timestamp, 'month')
      else trunc(enriched.timestamp, 'year')
    end as date
  ) as partition_date
from lakehouse_indicators(
  table (
    select
      {%- for name in bar %}
      {{ name }}{{ ',' if not loop.last or computed }}
      {%- endfor %}
      {%- for column in computed %}
      cast(null as {{ column.split(' ')[1] }}) as {{ column.split(' ')[0] }},
      {%- endfor %}
      {%- if computed %}
      false as is_known
      {%- endif %}
    from {{ ref('stg_market_data') }}
    {%- if computed %}
    where {{ told('source') }}
    union all
    select
      {%- for name in bar %}
      {{ name }},
      {%- endfor %}
      {%- for column in computed %}
      {{ column.split(' ')[0] }},
      {%- endfor %}
      true as is_known
    from (
      select
        stored.*,
        row_number() over (partition by asset_pair, timeframe order by timestamp desc) as bars_before
      from {{ this }} as stored
      where {{ told('before') }}
    )
    where bars_before <= {{ told('state_bars') }}
    {%- endif %}
  )
  partition by (asset_pair, timeframe) -- noqa: LT01, LT06
  order by timestamp
) as enriched
