{{ config(materialized='view', schema='staging') }}

with traded as (
  select distinct asset_pair
  from {{ ref('trade_lifecycle') }}
),

marks as (
  select
    traded.asset_pair,
    days.day,
    last_value(closes.close) ignore nulls over (
      partition by traded.asset_pair order by days.day
      rows between unbounded preceding and current row
    ) as mark
  from traded
  cross join {{ ref('int_days') }} as days
  left join {{ ref('int_closes') }} as closes
    on
      traded.asset_pair = closes.asset_pair
      and days.day = closes.day
),

latest as (
  select max(day) as day
  from {{ ref('int_days') }}
),

-- Lots, with the first and the last day at whose end they were open.
lots as (
  select
    lifecycle.book,
    lifecycle.quote_currency,
    lifecycle.asset_pair,
    lifecycle.side,
    lifecycle.quantity,
    lifecycle.entry_price,
    lifecycle.entry_fee,
    lifecycle.entry_execution_id,
    cast(lifecycle.opened_at as date) as first_day,
    coalesce(date_sub(cast(lifecycle.closed_at as date), 1), latest.day) as last_day
  from {{ ref('trade_lifecycle') }} as lifecycle
  cross join latest
),

held as (
  select
    lots.*,
    explode(sequence(lots.first_day, lots.last_day)) as day
  from lots
  where lots.first_day <= lots.last_day
),

valued as (
  select
    held.book,
    held.quote_currency,
    held.asset_pair,
    held.day,
    held.side,
    held.quantity,
    held.entry_price,
    coalesce(held.entry_fee, 0) as entry_fee,
    held.entry_execution_id,
    coalesce(marks.mark, held.entry_price) as price,
    case held.side when 'LONG' then 1 else -1 end as direction,
    marks.mark is null as is_unmarked
  from held
  inner join marks
    on
      held.asset_pair = marks.asset_pair
      and held.day = marks.day
)

select
  book,
  quote_currency,
  asset_pair,
  day,
  max(side) as side,
  sum(quantity * price) as gross_exposure,
  sum(direction * quantity * price) as market_value,
  sum(direction * quantity * (price - entry_price) - entry_fee) as open_pnl,
  count(distinct entry_execution_id) as open_lots,
  max(is_unmarked) as is_unmarked
from valued
group by book, quote_currency, asset_pair, day
