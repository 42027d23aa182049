{{ config(
    unique_key=['quote_currency', 'timestamp'],
    meta={'grain': 'day', 'timeframe': '1d', 'lookback_days': 96},
    partition_by=['partition_date'],
    tblproperties={'delta.dataSkippingStatsColumns': 'timestamp'}
) }}

{%- set windows = [30, 90] %}
{%- set sides = ['crypto', 'equity'] %}

with bars as (
  select
    asset_pair,
    timestamp,
    close
  from {{ ref('market_data_enriched') }}
  where
    timeframe = '1d'
    and close > 0
    {%- if is_incremental() %}
    and ({{ told('source') }})
    {%- endif %}
),

instruments as (
  select
    asset_pair,
    asset_class,
    quote_currency
  from lakehouse_instruments(
    table (select distinct asset_pair from bars) -- noqa: LT01, LT06
    partition by (asset_pair) -- noqa: LT01, LT06
    order by asset_pair
  )
),

members as (
  select
    instruments.quote_currency,
    instruments.asset_class,
    bars.asset_pair,
    bars.timestamp,
    bars.close
  from bars
  inner join instruments on bars.asset_pair = instruments.asset_pair
  where instruments.asset_class in ('{{ sides | join("', '") }}')
),

sides_there as (
  select
    *,
    {%- for side in sides %}
    bool_or(asset_class = '{{ side }}') over (partition by quote_currency, timestamp) as is_{{ side }}_there{{ ',' if not loop.last }}
    {%- endfor %}
  from members
),

common as (
  select
    *,
    dense_rank() over (partition by quote_currency order by timestamp) as day_number
  from sides_there
  where is_{{ sides | join('_there and is_') }}_there
),

befores as (
  select
    *,
    lag(struct(day_number, timestamp, close)) over (
      partition by quote_currency, asset_pair order by timestamp
    ) as before
  from common
),

ratios as (
  select
    quote_currency,
    asset_class,
    timestamp,
    case
      when before.day_number = day_number - 1 and {{ spannable('before.timestamp', 'timestamp') }}
        then struct(before.timestamp as since, close / before.close as ratio)
    end as change
  from befores
),

indices as (
  select
    quote_currency,
    timestamp,
    max(change.since) as since,
    {%- for side in sides %}
    count(change) filter (where asset_class = '{{ side }}') as {{ side }}_assets,
    -- Sorted: a sum of doubles depends on their order, which no engine promises.
    ln(
      aggregate(
        array_sort(collect_list(change.ratio) filter (where asset_class = '{{ side }}')),
        cast(0 as double),
        (total, each) -> total + each
      ) / nullif(count(change) filter (where asset_class = '{{ side }}'), 0)
    ) as {{ side }}_return{{ ',' if not loop.last }}
    {%- endfor %}
  from ratios
  group by quote_currency, timestamp
),

observed as (
  select
    quote_currency,
    timestamp,
    crypto_assets,
    equity_assets,
    case when crypto_return is not null and equity_return is not null then since end as changed_since,
    case when equity_return is not null then crypto_return end as crypto_return,
    case when crypto_return is not null then equity_return end as equity_return
  from indices
),

moments as (
  select
    *,
    {%- for days in windows %}
    count(crypto_return) over last_{{ days }} as observations_{{ days }}d,
    covar_samp(crypto_return, equity_return) over last_{{ days }} as covariance_{{ days }}d,
    var_samp(crypto_return) over last_{{ days }} as crypto_variance_{{ days }}d,
    var_samp(equity_return) over last_{{ days }} as equity_variance_{{ days }}d{{ ',' if not loop.last }}
    {%- endfor %}
  from observed
  window
    {%- for days in windows %}
    last_{{ days }} as (partition by quote_currency order by timestamp {{ last_days(days) }}){{ ',' if not loop.last }}
    {%- endfor %}
),

correlations as (
  select
    quote_currency,
    timestamp,
    {{ closes_at(timeframe="'1d'") }} as closed_at,
    crypto_assets,
    equity_assets,
    changed_since,
    crypto_return,
    equity_return,
    {%- for days in windows %}
    {%- set observations = 'observations_' ~ days ~ 'd' %}
    {%- set variance = 'variance_' ~ days ~ 'd' %}
    {{ observations }},
    {{ correlation(
        days, observations, 'covariance_' ~ days ~ 'd', 'crypto_' ~ variance, 'equity_' ~ variance
    ) }} as correlation_{{ days }}d,
    {%- endfor %}
    cast(trunc(timestamp, 'year') as date) as partition_date
  from moments
)

select * from correlations
{%- if is_incremental() %}
where {{ told('rows') }}
{%- endif %}
