{{ config(
    unique_key=['decision_id'],
    meta={'grain': 'asset', 'clock': '1m'},
    partition_by=['asset_pair', 'partition_date'],
    tblproperties={'delta.dataSkippingStatsColumns': 'timestamp'}
) }}

with timed as (
  select
    *,
    coalesce(timeframe, '1h') as context_timeframe
  from {{ ref('stg_ai_decisions') }}
),

decisions as (
  select * from timed
  {%- if is_incremental() %}
  where {{ told('rows') }}
  {%- endif %}
),

-- Decisions and what became known, in the order of time; of two at one instant the knowledge comes first.
bars as (
  select
    cast(null as string) as decision_id,
    asset_pair,
    timeframe,
    {{ closes_at() }} as known_at,
    0 as place,
    struct(
      {{ closes_at() }} as closed_at, close, sma_50, sma_200, rsi_14, macd_hist, adx_14, atr_14, hist_volatility_20,
      percent_b, drawdown, market_regime
    ) as bar
  from {{ ref('market_data_enriched') }}
  where
    (asset_pair, timeframe) in (
      select
        asset_pair,
        context_timeframe
      from decisions
    )
    {%- if is_incremental() %}
    and ({{ told('source') }})
    {%- endif %}
  union all
  select
    decision_id,
    asset_pair,
    context_timeframe as timeframe,
    timestamp as known_at,
    1 as place,
    null as bar
  from decisions
),

bar_known as (
  select
    decision_id,
    last_value(bar) ignore nulls over (
      partition by asset_pair, timeframe order by known_at, place
      rows between unbounded preceding and current row
    ) as bar
  from bars
),

pulses as (
  select
    cast(null as string) as decision_id,
    asset_pair,
    as_of as known_at,
    0 as place,
    struct(as_of, confluence_score, timeframes_known, timeframes_up, timeframes_down) as pulse
  from {{ ref('multi_timeframe_analysis') }}
  where
    asset_pair in (select asset_pair from decisions)
    {%- if is_incremental() %}
    and ({{ told('pulses') }})
    {%- endif %}
  union all
  select
    decision_id,
    asset_pair,
    timestamp as known_at,
    1 as place,
    null as pulse
  from decisions
),

pulse_known as (
  select
    decision_id,
    last_value(pulse) ignore nulls over (
      partition by asset_pair order by known_at, place
      rows between unbounded preceding and current row
    ) as pulse
  from pulses
)

select
  decisions.decision_id,
  decisions.asset_pair,
  decisions.timestamp,
  decisions.action,
  decisions.confidence,
  decisions.strategy,
  decisions.providers,
  decisions.votes,
  decisions.timeframe,
  decisions.reasoning,
  decisions.model_version,
  decisions.provider,
  decisions.ingested_at,
  decisions.context_timeframe,
  bar_known.bar.closed_at as context_closed_at,
  bar_known.bar.close,
  bar_known.bar.sma_50,
  bar_known.bar.sma_200,
  bar_known.bar.rsi_14,
  bar_known.bar.macd_hist,
  bar_known.bar.adx_14,
  bar_known.bar.atr_14,
  bar_known.bar.hist_volatility_20,
  bar_known.bar.percent_b,
  bar_known.bar.drawdown,
  bar_known.bar.market_regime,
  pulse_known.pulse.as_of as confluence_as_of,
  pulse_known.pulse.confluence_score,
  pulse_known.pulse.timeframes_known,
  pulse_known.pulse.timeframes_up,
  pulse_known.pulse.timeframes_down,
  cast(trunc(decisions.timestamp, 'month') as date) as partition_date
from decisions
left join bar_known on decisions.decision_id = bar_known.decision_id
left join pulse_known on decisions.decision_id = pulse_known.decision_id
