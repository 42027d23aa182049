{{ config(
    unique_key=['asset_pair', 'timestamp'],
    meta={'grain': 'asset', 'clock': '5m'},
    partition_by=['asset_pair', 'partition_date'],
    tblproperties={'delta.dataSkippingStatsColumns': 'timestamp,as_of'}
) }}

{%- set timeframes = ['1m', '5m', '15m', '1h', '4h', '1d'] %}

with bars as (
  select
    asset_pair,
    timeframe,
    timestamp,
    close,
    {{ closes_at() }} as closed_at,
    (sign(ema_12 - ema_26) + sign(macd_hist) + sign(rsi_14 - 50)) / 3 as pulse,
    market_regime as regime
  from {{ ref('market_data_enriched') }}
  {%- if is_incremental() %}
  where {{ told('source') }}
  {%- endif %}
),

-- The last bar of each timeframe to close by each 5-minute mark at which one did.
closed as (
  select
    asset_pair,
    {{ next_five_minutes('closed_at') }} as as_of,
    {%- for timeframe in timeframes %}
    max_by(
      struct(closed_at, close, pulse, regime), closed_at
    ) filter (where timeframe = '{{ timeframe }}') as bar_{{ timeframe }},
    {%- endfor %}
    bool_or(timeframe = '5m') as is_clock
  from bars
  group by asset_pair, {{ next_five_minutes('closed_at') }}
),

known as (
  select
    asset_pair,
    as_of,
    is_clock,
    {%- for timeframe in timeframes %}
    last_value(bar_{{ timeframe }}) ignore nulls over (
      partition by asset_pair order by as_of rows between unbounded preceding and current row
    ) as bar_{{ timeframe }}{{ ',' if not loop.last }}
    {%- endfor %}
  from closed
),

pulses as (
  select
    asset_pair,
    as_of - interval '5' minute as timestamp,
    as_of,
    bar_5m.close as close,
    {%- for timeframe in timeframes %}
    bar_{{ timeframe }}.closed_at as closed_at_{{ timeframe }},
    bar_{{ timeframe }}.pulse as pulse_{{ timeframe }},
    bar_{{ timeframe }}.regime as regime_{{ timeframe }},
    {%- endfor %}
    filter(
      array(
        {%- for timeframe in timeframes %}
        bar_{{ timeframe }}.pulse{{ ',' if not loop.last }}
        {%- endfor %}
      ),
      each -> each is not null
    ) as pulses
  from known
  where is_clock
),

scored as (
  select
    asset_pair,
    timestamp,
    as_of,
    close,
    {%- for timeframe in timeframes %}
    closed_at_{{ timeframe }},
    pulse_{{ timeframe }},
    regime_{{ timeframe }},
    {%- endfor %}
    size(pulses) as timeframes_known,
    size(filter(pulses, each -> each > 0)) as timeframes_up,
    size(filter(pulses, each -> each < 0)) as timeframes_down,
    aggregate(pulses, cast(0 as double), (total, each) -> total + each) / nullif(size(pulses), 0) as confluence_score,
    cast(trunc(timestamp, 'month') as date) as partition_date
  from pulses
)

select * from scored
{%- if is_incremental() %}
where {{ told('rows') }}
{%- endif %}
