{{ config(
    unique_key=['book', 'asset_pair', 'lot_id']
) }}

select lots.*
from lakehouse_trade_lots(
  table (
    select
      executions.execution_id,
      executions.order_id,
      executions.decision_id,
      executions.provider,
      executions.asset_pair,
      executions.timestamp,
      executions.side,
      executions.quantity,
      executions.price,
      executions.fee,
      executions.fee_currency,
      marks.mark,
      marks.mark_at
    from {{ ref('stg_trade_executions') }} as executions
    left join (
      select
        asset_pair,
        max_by(close, timestamp) as mark,
        max(closed_at) as mark_at
      from {{ ref('int_closes') }}
      group by asset_pair
    ) as marks on executions.asset_pair = marks.asset_pair
  )
  partition by (provider, asset_pair) -- noqa: LT01, LT06
  order by timestamp
) as lots
