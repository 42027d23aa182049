{{ config(
    unique_key=['timestamp'],
    meta={'grain': 'day', 'timeframe': '1d', 'lookback_days': 0},
    partition_by=['partition_date'],
    tblproperties={'delta.dataSkippingStatsColumns': 'timestamp'}
) }}

{%- set series = {'3m': 'DGS3MO', '2y': 'DGS2', '5y': 'DGS5', '10y': 'DGS10', '30y': 'DGS30'} %}
{%- set assets = {'3m': '^IRX', '5y': '^FVX', '10y': '^TNX', '30y': '^TYX'} %}
{%- set slopes = [('10y', '2y'), ('10y', '3m'), ('30y', '5y')] %}

with levels as (
  select
    case series_id
      {%- for tenor, name in series.items() %}
      when '{{ name }}' then '{{ tenor }}'
      {%- endfor %}
    end as tenor,
    timestamp,
    struct(value as yield, 'macro' as source, ingested_at as known_at) as level
  from {{ ref('stg_macro_indicators') }}
  where
    series_id in ('{{ series.values() | join("', '") }}')
    and value is not null
    {%- if is_incremental() %}
    and ({{ told('source') }})
    {%- endif %}
  union all
  select
    case asset_pair
      {%- for tenor, name in assets.items() %}
      when '{{ name }}' then '{{ tenor }}'
      {%- endfor %}
    end as tenor,
    timestamp,
    struct(close as yield, 'bars' as source, {{ closes_at() }} as known_at) as level
  from {{ ref('market_data_enriched') }}
  where
    timeframe = '1d'
    and asset_pair in ('{{ assets.values() | join("', '") }}')
    {%- if is_incremental() %}
    and ({{ told('source') }})
    {%- endif %}
),

days as (
  select
    timestamp,
    {%- for tenor in series %}
    max_by(level, level.source = 'macro') filter (where tenor = '{{ tenor }}') as level_{{ tenor }}{{ ',' if not loop.last }}
    {%- endfor %}
  from levels
  group by timestamp
),

curve as (
  select
    timestamp,
    {%- for tenor in series %}
    level_{{ tenor }}.yield as yield_{{ tenor }},
    level_{{ tenor }}.source as source_{{ tenor }},
    {%- endfor %}
    {%- for long, short in slopes %}
    level_{{ long }}.yield - level_{{ short }}.yield as slope_{{ long }}_{{ short }},
    level_{{ long }}.yield < level_{{ short }}.yield as is_inverted_{{ long }}_{{ short }},
    {%- endfor %}
    greatest(
      {%- for tenor in series %}
      level_{{ tenor }}.known_at{{ ',' if not loop.last }}
      {%- endfor %}
    ) as known_at,
    cast(trunc(timestamp, 'year') as date) as partition_date
  from days
)

select * from curve
{%- if is_incremental() %}
where {{ told('rows') }}
{%- endif %}
