{{ config(unique_key=['book', 'quote_currency', 'day']) }}

with trades as (
  select
    book,
    quote_currency,
    day,
    count(*) as trades
  from {{ ref('int_trades') }}
  group by book, quote_currency, day
)

select
  equity.book,
  equity.quote_currency,
  equity.day,
  equity.known_at,
  equity.initial_balance,
  equity.balance,
  equity.open_pnl,
  equity.equity,
  equity.realised_pnl,
  equity.fees,
  equity.cash,
  equity.market_value,
  equity.gross_exposure,
  performance.daily_return,
  performance.drawdown,
  performance.drawdown_fraction,
  equity.executions,
  coalesce(trades.trades, 0) as trades,
  equity.open_positions,
  equity.long_positions,
  equity.open_positions - equity.long_positions as short_positions,
  equity.open_lots,
  equity.unmarked_positions,
  equity.unconverted_fees_to_date as unconverted_fees
from {{ ref('int_equity_days') }} as equity
inner join {{ ref('int_performance') }} as performance
  on
    equity.book = performance.book
    and equity.quote_currency = performance.quote_currency
    and equity.asset_pair = performance.asset_pair
    and equity.day = performance.day
left join trades
  on
    equity.book = trades.book
    and equity.quote_currency = trades.quote_currency
    and equity.day = trades.day
where equity.asset_pair = 'ALL'
