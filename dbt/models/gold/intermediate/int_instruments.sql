{{ config(unique_key=['asset_pair']) }}

select
  instruments.asset_pair,
  instruments.quote_currency,
  instruments.round_the_clock
from lakehouse_instruments(
  table (
    select asset_pair from {{ ref('trade_lifecycle') }}
    union
    select asset_pair from {{ ref('decision_history') }}
    union
    select asset_pair from {{ ref('int_closes') }}
  )
  partition by (asset_pair) -- noqa: LT01, LT06
  order by asset_pair
) as instruments
