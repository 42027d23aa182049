{{ config(unique_key=['book', 'quote_currency', 'asset_pair', 'day']) }}

-- Each instrument by itself, and all of a currency together.
with filled as (
  select
    book,
    quote_currency,
    scope as asset_pair,
    day,
    min(filled_at) as first_at,
    count(*) as executions,
    sum(fee) as fees,
    sum(flow - fee) as flow,
    count_if(is_unconverted) as unconverted_fees
  from {{ ref('int_fills') }}
  lateral view explode(array(asset_pair, 'ALL')) scopes as scope
  group by book, quote_currency, scope, day
),

closed as (
  select
    book,
    quote_currency,
    scope as asset_pair,
    cast(closed_at as date) as day,
    sum(gross_pnl - coalesce(entry_fee, 0) - coalesce(exit_fee, 0)) as realised_pnl
  from {{ ref('trade_lifecycle') }}
  lateral view explode(array(asset_pair, 'ALL')) scopes as scope
  where status = 'closed'
  group by book, quote_currency, scope, cast(closed_at as date)
),

held as (
  select
    book,
    quote_currency,
    scope as asset_pair,
    day,
    sum(gross_exposure) as gross_exposure,
    sum(market_value) as market_value,
    sum(open_pnl) as open_pnl,
    sum(open_lots) as open_lots,
    count(*) as open_positions,
    count_if(side = 'LONG') as long_positions,
    count_if(is_unmarked) as unmarked_positions
  from {{ ref('int_positions') }}
  lateral view explode(array(asset_pair, 'ALL')) scopes as scope
  group by book, quote_currency, scope, day
),

begun as (
  select
    book,
    quote_currency,
    asset_pair,
    min(day) as first_day,
    min(first_at) as first_at,
    coalesce(
      element_at(from_json('{{ var("initial_balances") | tojson }}', 'map<string, double>'), quote_currency),
      cast({{ var("initial_balance") }} as double)
    ) as initial_balance
  from filled
  group by book, quote_currency, asset_pair
),

daily as (
  select
    begun.book,
    begun.quote_currency,
    begun.asset_pair,
    days.day,
    days.known_at,
    begun.initial_balance,
    (unix_micros(days.known_at) - unix_micros(begun.first_at)) / 1000000 as elapsed_seconds,
    coalesce(filled.executions, 0) as executions,
    coalesce(filled.fees, 0) as fees,
    coalesce(filled.flow, 0) as flow,
    coalesce(filled.unconverted_fees, 0) as unconverted_fees,
    coalesce(closed.realised_pnl, 0) as realised_pnl,
    coalesce(held.gross_exposure, 0) as gross_exposure,
    coalesce(held.market_value, 0) as market_value,
    coalesce(held.open_pnl, 0) as open_pnl,
    coalesce(held.open_lots, 0) as open_lots,
    coalesce(held.open_positions, 0) as open_positions,
    coalesce(held.long_positions, 0) as long_positions,
    coalesce(held.unmarked_positions, 0) as unmarked_positions
  from begun
  inner join {{ ref('int_days') }} as days
    on begun.first_day <= days.day
  left join filled
    on
      begun.book = filled.book
      and begun.quote_currency = filled.quote_currency
      and begun.asset_pair = filled.asset_pair
      and days.day = filled.day
  left join closed
    on
      begun.book = closed.book
      and begun.quote_currency = closed.quote_currency
      and begun.asset_pair = closed.asset_pair
      and days.day = closed.day
  left join held
    on
      begun.book = held.book
      and begun.quote_currency = held.quote_currency
      and begun.asset_pair = held.asset_pair
      and days.day = held.day
),

to_date as (
  select
    *,
    sum(executions) over up_to as executions_to_date,
    sum(unconverted_fees) over up_to as unconverted_fees_to_date,
    sum(realised_pnl) over up_to as realised_to_date,
    sum(flow) over up_to as flow_to_date
  from daily
  window up_to as (
    partition by book, quote_currency, asset_pair order by day
    rows between unbounded preceding and current row
  )
)

select
  book,
  quote_currency,
  asset_pair,
  day,
  known_at,
  elapsed_seconds,
  initial_balance,
  initial_balance + realised_to_date as balance,
  open_pnl,
  -- The balance is left out where it can be: a small P&L would drown in its digits.
  realised_to_date + open_pnl as pnl,
  initial_balance + realised_to_date + open_pnl as equity,
  realised_pnl,
  fees,
  initial_balance + flow_to_date as cash,
  market_value,
  gross_exposure,
  executions,
  executions_to_date,
  open_positions,
  long_positions,
  open_lots,
  unmarked_positions,
  unconverted_fees_to_date
from to_date
