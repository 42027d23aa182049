{{ config(materialized='view', schema='staging') }}

-- A fill that closes one lot and opens another is at the end of one and at the beginning of the other.
with ends as (
  select
    book,
    asset_pair,
    quote_currency,
    entry_execution_id as execution_id,
    decision_id,
    opened_at as filled_at,
    entry_fee as fee,
    case side when 'LONG' then -1 else 1 end * quantity * entry_price as flow
  from {{ ref('trade_lifecycle') }}
  union all
  select
    book,
    asset_pair,
    quote_currency,
    exit_execution_id as execution_id,
    exit_decision_id as decision_id,
    closed_at as filled_at,
    exit_fee as fee,
    case side when 'LONG' then 1 else -1 end * quantity * exit_price as flow
  from {{ ref('trade_lifecycle') }}
  where status = 'closed'
)

select
  book,
  asset_pair,
  quote_currency,
  execution_id,
  min(decision_id) as decision_id,
  min(filled_at) as filled_at,
  cast(min(filled_at) as date) as day,
  coalesce(sum(fee), 0) as fee,
  count(*) > count(fee) as is_unconverted,
  sum(flow) as flow
from ends
group by book, asset_pair, quote_currency, execution_id
