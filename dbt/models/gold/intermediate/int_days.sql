{{ config(unique_key=['day']) }}

with events as (
  select
    filled_at as instant,
    day
  from {{ ref('int_fills') }}
  union all
  select
    timestamp as instant,
    cast(timestamp as date) as day
  from {{ ref('decision_history') }}
  union all
  select
    closed_at as instant,
    day
  from {{ ref('int_closes') }}
),

known as (
  select
    min(day) as first_day,
    max(day) as last_day,
    max(instant) as instant
  from events
),

days as (
  select
    explode(sequence(first_day, last_day)) as day,
    instant
  from known
)

select
  day,
  least(cast(date_add(day, 1) as timestamp), instant) as known_at
from days
