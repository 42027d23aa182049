{{ config(unique_key=['asset_pair', 'regime', 'day']) }}

with bars as (
  select
    asset_pair,
    coalesce(market_regime, 'unknown') as regime,
    -- What closes at midnight belongs to the day that ends.
    cast({{ closes_at() }} - interval '1' microsecond as date) as day,
    log_return
  from {{ ref('market_data_enriched') }}
  where timeframe = '{{ var("regime_timeframe") }}'
),

daily as (
  select
    asset_pair,
    regime,
    day,
    count(*) as bars,
    sum(log_return) as log_return,
    count(log_return) as log_returns
  from bars
  group by asset_pair, regime, day
),

begun as (
  select
    asset_pair,
    min(day) as first_day
  from (
    select
      asset_pair,
      day
    from daily
    union all
    select
      asset_pair,
      day
    from {{ ref('int_fills') }}
  )
  group by asset_pair
),

regimes as (
  select
    begun.asset_pair,
    begun.first_day,
    instruments.quote_currency,
    explode(array('trend', 'range', 'volatile', 'unknown')) as regime
  from begun
  inner join {{ ref('int_instruments') }} as instruments
    on begun.asset_pair = instruments.asset_pair
),

to_date as (
  select
    regimes.asset_pair,
    regimes.regime,
    regimes.quote_currency,
    days.day,
    days.known_at,
    coalesce(sum(daily.bars) over up_to, 0) as bars,
    sum(daily.log_return) over up_to as log_return,
    sum(daily.log_returns) over up_to as log_returns
  from regimes
  inner join {{ ref('int_days') }} as days
    on regimes.first_day <= days.day
  left join daily
    on
      regimes.asset_pair = daily.asset_pair
      and regimes.regime = daily.regime
      and days.day = daily.day
  window up_to as (
    partition by regimes.asset_pair, regimes.regime order by days.day
    rows between unbounded preceding and current row
  )
)

select
  to_date.asset_pair,
  to_date.regime,
  to_date.day,
  to_date.quote_currency,
  to_date.known_at,
  to_date.bars,
  to_date.bars / nullif(sum(to_date.bars) over (partition by to_date.asset_pair, to_date.day), 0) as bar_share,
  to_date.log_return / nullif(to_date.log_returns, 0) as mean_log_return,
  coalesce(outcomes.trades, 0) as trades,
  coalesce(outcomes.wins, 0) as wins,
  coalesce(outcomes.losses, 0) as losses,
  coalesce(outcomes.ties, 0) as ties,
  coalesce(outcomes.unpriced_trades, 0) as unpriced_trades,
  outcomes.win_rate,
  coalesce(outcomes.gross_profit, 0) as gross_profit,
  coalesce(outcomes.gross_loss, 0) as gross_loss,
  outcomes.profit_factor,
  coalesce(outcomes.net_pnl, 0) as net_pnl,
  outcomes.mean_return,
  outcomes.mean_holding_seconds
from to_date
left join {{ ref('int_outcomes') }} as outcomes
  on
    array('regime', to_date.asset_pair, to_date.regime) = outcomes.subject
    and to_date.day = outcomes.day
    and outcomes.subject[0] = 'regime'
