{{ config(
    unique_key=['asset_pair', 'other_pair', 'timestamp'],
    meta={'grain': 'day', 'timeframe': '1d', 'lookback_days': 96},
    partition_by=['partition_date'],
    tblproperties={'delta.dataSkippingStatsColumns': 'timestamp'}
) }}

{%- set windows = [30, 90] %}

with bars as (
  select
    asset_pair,
    timestamp,
    close
  from {{ ref('market_data_enriched') }}
  where
    timeframe = '1d'
    {%- if is_incremental() %}
    and ({{ told('source') }})
    {%- endif %}
),

instruments as (
  select
    asset_pair,
    asset_class
  from lakehouse_instruments(
    table (select distinct asset_pair from bars) -- noqa: LT01, LT06
    partition by (asset_pair) -- noqa: LT01, LT06
    order by asset_pair
  )
),

levels as (
  select
    bars.asset_pair,
    bars.timestamp,
    bars.close,
    instruments.asset_class = 'bond' as is_yield
  from bars
  inner join instruments on bars.asset_pair = instruments.asset_pair
),

days as (
  select
    timestamp,
    collect_list(struct(asset_pair, close, is_yield)) as bars
  from levels
  group by timestamp
),

-- Days on which both have a bar: a change then spans the same time on both sides.
common as (
  select
    one.asset_pair,
    other.asset_pair as other_pair,
    timestamp,
    one.close,
    other.close as other_close,
    one.is_yield,
    other.is_yield as other_is_yield,
    case
      when one.is_yield and other.is_yield then one.close - other.close
      when not one.is_yield and not other.is_yield then {{ log_ratio('one.close', 'other.close') }}
    end as spread
  from days
  lateral view explode(bars) ones as one
  lateral view explode(bars) others as other
  where one.asset_pair < other.asset_pair
),

spans as (
  select
    *,
    lag(timestamp) over pair as previous_timestamp,
    lag(close) over pair as previous_close,
    lag(other_close) over pair as other_previous_close
  from common
  window pair as (partition by asset_pair, other_pair order by timestamp)
),

changes as (
  select
    *,
    case
      when is_yield then close - previous_close
      else {{ log_ratio('close', 'previous_close') }}
    end as change,
    case
      when other_is_yield then other_close - other_previous_close
      else {{ log_ratio('other_close', 'other_previous_close') }}
    end as other_change,
    {{ spannable('previous_timestamp', 'timestamp') }} as is_spannable
  from spans
),

observed as (
  select
    asset_pair,
    other_pair,
    timestamp,
    close,
    other_close,
    spread,
    case when is_spannable and change is not null and other_change is not null then previous_timestamp end
      as changed_since,
    case when is_spannable and other_change is not null then change end as change,
    case when is_spannable and change is not null then other_change end as other_change
  from changes
),

moments as (
  select
    *,
    {%- for days in windows %}
    count(change) over last_{{ days }} as observations_{{ days }}d,
    covar_samp(change, other_change) over last_{{ days }} as covariance_{{ days }}d,
    var_samp(change) over last_{{ days }} as variance_{{ days }}d,
    var_samp(other_change) over last_{{ days }} as other_variance_{{ days }}d,
    count(spread) over last_{{ days }} as spread_observations_{{ days }}d,
    avg(spread) over last_{{ days }} as spread_mean_{{ days }}d,
    var_samp(spread) over last_{{ days }} as spread_variance_{{ days }}d{{ ',' if not loop.last }}
    {%- endfor %}
  from observed
  window
    {%- for days in windows %}
    last_{{ days }} as (partition by asset_pair, other_pair order by timestamp {{ last_days(days) }}){{ ',' if not loop.last }}
    {%- endfor %}
),

pairs as (
  select
    asset_pair,
    other_pair,
    timestamp,
    {{ closes_at(timeframe="'1d'") }} as closed_at,
    close,
    other_close,
    changed_since,
    change,
    other_change,
    spread,
    {%- for days in windows %}
    {%- set observations = 'observations_' ~ days ~ 'd' %}
    {%- set covariance = 'covariance_' ~ days ~ 'd' %}
    {%- set variance = 'variance_' ~ days ~ 'd' %}
    {{ observations }},
    {{ correlation(days, observations, covariance, variance, 'other_' ~ variance) }} as correlation_{{ days }}d,
    {{ if_enough(covariance ~ ' / other_' ~ variance, days, observations, ['other_' ~ variance]) }} as beta_{{ days }}d,
    {{ if_enough(covariance ~ ' / ' ~ variance, days, observations, [variance]) }} as other_beta_{{ days }}d,
    spread_{{ observations }},
    {{ if_enough(
        '(spread - spread_mean_' ~ days ~ 'd) / sqrt(spread_' ~ variance ~ ')',
        days, 'spread_' ~ observations, ['spread_' ~ variance]
    ) }} as spread_zscore_{{ days }}d,
    {%- endfor %}
    cast(trunc(timestamp, 'year') as date) as partition_date
  from moments
)

select * from pairs
{%- if is_incremental() %}
where {{ told('rows') }}
{%- endif %}
