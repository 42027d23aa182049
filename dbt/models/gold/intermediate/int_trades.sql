{{ config(unique_key=['book', 'asset_pair', 'trade_id']) }}

with trades as (
  select
    book,
    asset_pair,
    quote_currency,
    trade_id,
    cast(max(closed_at) as date) as day,
    min_by(side, struct(opened_at, entry_execution_id)) as side,
    min_by(decision_id, struct(opened_at, entry_execution_id)) as decision_id,
    min(opened_at) as opened_at,
    max(closed_at) as closed_at,
    case when count(*) = count(net_pnl) then sum(net_pnl) end as net_pnl,
    sum(quantity * entry_price) as notional
  from {{ ref('trade_lifecycle') }}
  where status = 'closed'
  group by book, asset_pair, quote_currency, trade_id
),

-- Bars and entries in the order of time; of two at one instant the bar, which closed then, comes first.
instants as (
  select
    asset_pair,
    cast(null as string) as book,
    cast(null as string) as trade_id,
    {{ closes_at() }} as instant,
    0 as place,
    coalesce(market_regime, 'unknown') as regime
  from {{ ref('market_data_enriched') }}
  where
    timeframe = '{{ var("regime_timeframe") }}'
    and asset_pair in (select asset_pair from trades)
  union all
  select
    asset_pair,
    book,
    trade_id,
    opened_at as instant,
    1 as place,
    cast(null as string) as regime
  from trades
),

regimes as (
  select
    asset_pair,
    book,
    trade_id,
    place,
    last_value(regime) ignore nulls over (
      partition by asset_pair order by instant, place
      rows between unbounded preceding and current row
    ) as regime
  from instants
)

select
  trades.book,
  trades.asset_pair,
  trades.quote_currency,
  trades.trade_id,
  trades.day,
  trades.side,
  trades.opened_at,
  trades.closed_at,
  (unix_micros(trades.closed_at) - unix_micros(trades.opened_at)) / 1000000 as holding_seconds,
  trades.notional,
  trades.net_pnl,
  trades.net_pnl / trades.notional as net_return,
  case
    when trades.net_pnl is null then 'unpriced'
    when trades.net_pnl > 1e-12 * trades.notional then 'win'
    when trades.net_pnl < -1e-12 * trades.notional then 'loss'
    else 'tie'
  end as outcome,
  decisions.decision_id,
  coalesce(decisions.strategy, 'none') as strategy,
  coalesce(regimes.regime, 'unknown') as regime
from trades
left join {{ ref('decision_history') }} as decisions
  on
    trades.decision_id = decisions.decision_id
    and trades.asset_pair = decisions.asset_pair
    and trades.opened_at >= decisions.timestamp
left join regimes
  on
    trades.book = regimes.book
    and trades.asset_pair = regimes.asset_pair
    and trades.trade_id = regimes.trade_id
    and regimes.place = 1
