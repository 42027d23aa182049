{{ config(unique_key=['book', 'quote_currency', 'asset_pair', 'day']) }}

with exposed as (
  select
    spans.book,
    spans.quote_currency,
    spans.asset_pair,
    spans.day,
    spans.exposed_seconds
  from lakehouse_exposed_days(
    table (
      select
        lots.book,
        lots.quote_currency,
        lots.scope as asset_pair,
        lots.opened_at,
        coalesce(lots.closed_at, latest.instant) as closed_at
      from (
        select
          book,
          quote_currency,
          explode(array(asset_pair, 'ALL')) as scope,
          opened_at,
          closed_at
        from {{ ref('trade_lifecycle') }}
      ) as lots
      cross join (
        select max(known_at) as instant
        from {{ ref('int_days') }}
      ) as latest
    )
    partition by (book, quote_currency, asset_pair) -- noqa: LT01, LT06
    order by opened_at
  ) as spans
),

-- From which day on something that trades round the clock has been traded.
round_the_clock as (
  select
    fills.book,
    fills.quote_currency,
    fills.scope as asset_pair,
    min(fills.day) as since
  from (
    select
      book,
      quote_currency,
      asset_pair,
      explode(array(asset_pair, 'ALL')) as scope,
      day
    from {{ ref('int_fills') }}
  ) as fills
  inner join {{ ref('int_instruments') }} as instruments
    on fills.asset_pair = instruments.asset_pair
  where instruments.round_the_clock
  group by fills.book, fills.quote_currency, fills.scope
)

select
  performance.book,
  performance.quote_currency,
  performance.asset_pair,
  performance.day,
  case when performance.day >= always.since then 365 else 252 end as periods_per_year,
  performance.daily_return,
  performance.sharpe,
  performance.sortino,
  performance.drawdown,
  performance.drawdown_fraction,
  performance.max_drawdown,
  performance.max_drawdown_fraction,
  performance.exposure_time,
  performance.exposure_notional
from lakehouse_performance(
  table (
    select
      equity.book,
      equity.quote_currency,
      equity.asset_pair,
      equity.day,
      equity.initial_balance,
      equity.pnl,
      equity.gross_exposure,
      coalesce(exposed.exposed_seconds, 0) as exposed_seconds,
      equity.elapsed_seconds,
      coalesce(equity.day >= round_the_clock.since, false) as round_the_clock,
      cast({{ var('risk_free_rate') }} as double) as risk_free_rate
    from {{ ref('int_equity_days') }} as equity
    left join exposed
      on
        equity.book = exposed.book
        and equity.quote_currency = exposed.quote_currency
        and equity.asset_pair = exposed.asset_pair
        and equity.day = exposed.day
    left join round_the_clock
      on
        equity.book = round_the_clock.book
        and equity.quote_currency = round_the_clock.quote_currency
        and equity.asset_pair = round_the_clock.asset_pair
  )
  partition by (book, quote_currency, asset_pair) -- noqa: LT01, LT06
  order by day
) as performance
left join round_the_clock as always
  on
    performance.book = always.book
    and performance.quote_currency = always.quote_currency
    and performance.asset_pair = always.asset_pair
