{{ config(unique_key=['book', 'quote_currency', 'asset_pair', 'day']) }}

select
  equity.book,
  equity.quote_currency,
  equity.asset_pair,
  equity.day,
  equity.known_at,
  equity.executions_to_date as executions,
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
  equity.pnl,
  equity.equity,
  performance.daily_return,
  performance.periods_per_year,
  performance.sharpe,
  performance.sortino,
  performance.drawdown,
  performance.drawdown_fraction,
  performance.max_drawdown,
  performance.max_drawdown_fraction,
  performance.exposure_time,
  performance.exposure_notional
from {{ ref('int_equity_days') }} as equity
inner join {{ ref('int_performance') }} as performance
  on
    equity.book = performance.book
    and equity.quote_currency = performance.quote_currency
    and equity.asset_pair = performance.asset_pair
    and equity.day = performance.day
left join {{ ref('int_outcomes') }} as outcomes
  on
    array('book', equity.book, equity.quote_currency, equity.asset_pair) = outcomes.subject
    and equity.day = outcomes.day
    and outcomes.subject[0] = 'book'
