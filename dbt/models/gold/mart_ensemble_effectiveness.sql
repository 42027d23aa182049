{{ config(unique_key=['strategy', 'quote_currency', 'day']) }}

with decisions as (
  select
    history.decision_id,
    history.asset_pair,
    history.timestamp,
    cast(history.timestamp as date) as day,
    history.action,
    history.confidence,
    history.strategy,
    instruments.quote_currency
  from {{ ref('decision_history') }} as history
  inner join {{ ref('int_instruments') }} as instruments
    on history.asset_pair = instruments.asset_pair
),

agreement as (
  select
    decision_id,
    avg(cast(is_agreed as int)) as agreement
  from {{ ref('int_votes') }}
  group by decision_id
),

-- The day on which a decision was first acted upon.
acted as (
  select
    decisions.decision_id,
    decisions.strategy,
    decisions.quote_currency,
    min(fills.day) as day
  from decisions
  inner join {{ ref('int_fills') }} as fills
    on
      decisions.decision_id = fills.decision_id
      and decisions.asset_pair = fills.asset_pair
      and decisions.timestamp <= fills.filled_at
  where decisions.action in ('BUY', 'SELL')
  group by decisions.decision_id, decisions.strategy, decisions.quote_currency
),

decided_daily as (
  select
    decisions.strategy,
    decisions.quote_currency,
    decisions.day,
    count(*) as decisions,
    count_if(decisions.action = 'BUY') as buys,
    count_if(decisions.action = 'SELL') as sells,
    count_if(decisions.action = 'HOLD') as holds,
    sum(decisions.confidence) as confidence,
    sum(agreement.agreement) as agreement,
    count(agreement.agreement) as voted
  from decisions
  left join agreement
    on decisions.decision_id = agreement.decision_id
  group by decisions.strategy, decisions.quote_currency, decisions.day
),

acted_daily as (
  select
    strategy,
    quote_currency,
    day,
    count(*) as acted
  from acted
  group by strategy, quote_currency, day
),

begun as (
  select
    quote_currency,
    min(day) as first_day
  from (
    select
      quote_currency,
      day
    from decisions
    union all
    select
      quote_currency,
      day
    from {{ ref('int_fills') }}
  )
  group by quote_currency
),

strategies as (
  select
    quote_currency,
    first_day,
    explode(array('debate', 'voting', 'fallback', 'none')) as strategy
  from begun
),

to_date as (
  select
    strategies.strategy,
    strategies.quote_currency,
    days.day,
    days.known_at,
    coalesce(sum(decided.decisions) over up_to, 0) as decisions,
    coalesce(sum(decided.buys) over up_to, 0) as buys,
    coalesce(sum(decided.sells) over up_to, 0) as sells,
    coalesce(sum(decided.holds) over up_to, 0) as holds,
    sum(decided.confidence) over up_to as confidence,
    sum(decided.agreement) over up_to as agreement,
    sum(decided.voted) over up_to as voted,
    coalesce(sum(acted.acted) over up_to, 0) as acted
  from strategies
  inner join {{ ref('int_days') }} as days
    on strategies.first_day <= days.day
  left join decided_daily as decided
    on
      strategies.strategy = decided.strategy
      and strategies.quote_currency = decided.quote_currency
      and days.day = decided.day
  left join acted_daily as acted
    on
      strategies.strategy = acted.strategy
      and strategies.quote_currency = acted.quote_currency
      and days.day = acted.day
  window up_to as (
    partition by strategies.strategy, strategies.quote_currency order by days.day
    rows between unbounded preceding and current row
  )
)

select
  to_date.strategy,
  to_date.quote_currency,
  to_date.day,
  to_date.known_at,
  to_date.decisions,
  to_date.buys as buy_decisions,
  to_date.sells as sell_decisions,
  to_date.holds as hold_decisions,
  to_date.confidence / nullif(to_date.decisions, 0) as mean_confidence,
  to_date.agreement / nullif(to_date.voted, 0) as mean_agreement,
  to_date.acted as acted_decisions,
  to_date.acted / nullif(to_date.buys + to_date.sells, 0) as action_rate,
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
    array('strategy', to_date.strategy, to_date.quote_currency) = outcomes.subject
    and to_date.day = outcomes.day
    and outcomes.subject[0] = 'strategy'
