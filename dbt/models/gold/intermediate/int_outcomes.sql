{{ config(unique_key=['subject', 'day']) }}

{%- set measures = ['trades', 'wins', 'losses', 'ties', 'unpriced_trades', 'gross_profit', 'gross_loss', 'net_pnl',
                    'net_return', 'holding_seconds'] %}

-- A trade counts in several rows: what a row is about is its subject.
with counted as (
  select
    array('book', book, quote_currency, scope) as subject,
    day,
    outcome,
    net_pnl,
    net_return,
    holding_seconds
  from {{ ref('int_trades') }}
  lateral view explode(array(asset_pair, 'ALL')) scopes as scope
  union all
  select
    array('strategy', strategy, quote_currency) as subject,
    day,
    outcome,
    net_pnl,
    net_return,
    holding_seconds
  from {{ ref('int_trades') }}
  union all
  select
    array('regime', asset_pair, regime) as subject,
    day,
    outcome,
    net_pnl,
    net_return,
    holding_seconds
  from {{ ref('int_trades') }}
  union all
  select
    array('ai_provider', votes.ai_provider, trades.asset_pair) as subject,
    trades.day,
    trades.outcome,
    trades.net_pnl,
    trades.net_return,
    trades.holding_seconds
  from {{ ref('int_trades') }} as trades
  inner join {{ ref('int_votes') }} as votes
    on
      trades.decision_id = votes.decision_id
      and votes.action = case trades.side when 'LONG' then 'BUY' else 'SELL' end
),

daily as (
  select
    subject,
    day,
    count(*) as trades,
    count_if(outcome = 'win') as wins,
    count_if(outcome = 'loss') as losses,
    count_if(outcome = 'tie') as ties,
    count_if(outcome = 'unpriced') as unpriced_trades,
    sum(case when outcome = 'win' then net_pnl else 0 end) as gross_profit,
    sum(case when outcome = 'loss' then -net_pnl else 0 end) as gross_loss,
    coalesce(sum(net_pnl), 0) as net_pnl,
    coalesce(sum(net_return), 0) as net_return,
    sum(holding_seconds) as holding_seconds
  from counted
  group by subject, day
),

begun as (
  select
    subject,
    min(day) as first_day
  from daily
  group by subject
),

to_date as (
  select
    begun.subject,
    days.day,
    {%- for measure in measures %}
    sum(daily.{{ measure }}) over up_to as {{ measure }}{{ ',' if not loop.last }}
    {%- endfor %}
  from begun
  inner join {{ ref('int_days') }} as days
    on begun.first_day <= days.day
  left join daily
    on
      begun.subject = daily.subject
      and days.day = daily.day
  window up_to as (
    partition by begun.subject order by days.day
    rows between unbounded preceding and current row
  )
)

select
  subject,
  day,
  trades,
  wins,
  losses,
  ties,
  unpriced_trades,
  wins / nullif(wins + losses, 0) as win_rate,
  gross_profit,
  gross_loss,
  case when losses > 0 then gross_profit / gross_loss end as profit_factor,
  net_pnl,
  net_return / nullif(trades - unpriced_trades, 0) as mean_return,
  holding_seconds / trades as mean_holding_seconds
from to_date
