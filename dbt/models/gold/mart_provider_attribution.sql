{{ config(unique_key=['ai_provider', 'asset_pair', 'day']) }}

with voted as (
  select
    ai_provider,
    asset_pair,
    day,
    count(*) as decisions,
    count_if(action = 'BUY') as buy_votes,
    count_if(action = 'SELL') as sell_votes,
    count_if(action = 'HOLD') as hold_votes,
    count_if(is_agreed) as agreed,
    sum(confidence) as confidence
  from {{ ref('int_votes') }}
  group by ai_provider, asset_pair, day
),

supported as (
  select
    votes.ai_provider,
    trades.asset_pair,
    trades.day,
    trades.net_pnl,
    votes.confidence,
    sum(votes.confidence) over (partition by trades.book, trades.asset_pair, trades.trade_id) as all_confidence,
    count(*) over (partition by trades.book, trades.asset_pair, trades.trade_id) as supporters
  from {{ ref('int_trades') }} as trades
  inner join {{ ref('int_votes') }} as votes
    on
      trades.decision_id = votes.decision_id
      and votes.action = case trades.side when 'LONG' then 'BUY' else 'SELL' end
),

attributed as (
  select
    ai_provider,
    asset_pair,
    day,
    sum(
      net_pnl * case when all_confidence > 0 then confidence / all_confidence else 1 / supporters end
    ) as attributed_pnl
  from supported
  group by ai_provider, asset_pair, day
),

opposed as (
  select
    votes.ai_provider,
    trades.asset_pair,
    trades.day,
    count(*) as opposed_trades,
    sum(trades.net_pnl) as opposed_pnl
  from {{ ref('int_trades') }} as trades
  inner join {{ ref('int_votes') }} as votes
    on
      trades.decision_id = votes.decision_id
      and votes.action = case trades.side when 'LONG' then 'SELL' else 'BUY' end
  group by votes.ai_provider, trades.asset_pair, trades.day
),

begun as (
  select
    ai_provider,
    asset_pair,
    min(day) as first_day
  from voted
  group by ai_provider, asset_pair
),

to_date as (
  select
    begun.ai_provider,
    begun.asset_pair,
    days.day,
    days.known_at,
    sum(voted.decisions) over up_to as decisions,
    sum(voted.buy_votes) over up_to as buy_votes,
    sum(voted.sell_votes) over up_to as sell_votes,
    sum(voted.hold_votes) over up_to as hold_votes,
    sum(voted.agreed) over up_to as agreed,
    sum(voted.confidence) over up_to as confidence,
    coalesce(sum(attributed.attributed_pnl) over up_to, 0) as attributed_pnl,
    coalesce(sum(opposed.opposed_trades) over up_to, 0) as opposed_trades,
    coalesce(sum(opposed.opposed_pnl) over up_to, 0) as opposed_pnl
  from begun
  inner join {{ ref('int_days') }} as days
    on begun.first_day <= days.day
  left join voted
    on
      begun.ai_provider = voted.ai_provider
      and begun.asset_pair = voted.asset_pair
      and days.day = voted.day
  left join attributed
    on
      begun.ai_provider = attributed.ai_provider
      and begun.asset_pair = attributed.asset_pair
      and days.day = attributed.day
  left join opposed
    on
      begun.ai_provider = opposed.ai_provider
      and begun.asset_pair = opposed.asset_pair
      and days.day = opposed.day
  window up_to as (
    partition by begun.ai_provider, begun.asset_pair order by days.day
    rows between unbounded preceding and current row
  )
)

select
  to_date.ai_provider,
  to_date.asset_pair,
  to_date.day,
  instruments.quote_currency,
  to_date.known_at,
  to_date.decisions,
  to_date.buy_votes,
  to_date.sell_votes,
  to_date.hold_votes,
  to_date.agreed,
  to_date.agreed / to_date.decisions as agreement_rate,
  to_date.confidence / to_date.decisions as mean_confidence,
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
  outcomes.mean_holding_seconds,
  to_date.attributed_pnl,
  to_date.opposed_trades,
  to_date.opposed_pnl
from to_date
inner join {{ ref('int_instruments') }} as instruments
  on to_date.asset_pair = instruments.asset_pair
left join {{ ref('int_outcomes') }} as outcomes
  on
    array('ai_provider', to_date.ai_provider, to_date.asset_pair) = outcomes.subject
    and to_date.day = outcomes.day
    and outcomes.subject[0] = 'ai_provider'
