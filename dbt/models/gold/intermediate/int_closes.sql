{{ config(materialized='view', schema='staging') }}

with bars as (
  select
    asset_pair,
    close,
    {{ closes_at() }} as closed_at,
    timestamp
  from {{ ref('market_data_enriched') }}
)

select
  asset_pair,
  -- What closes at midnight belongs to the day that ends.
  cast(closed_at - interval '1' microsecond as date) as day,
  -- Of bars that closed together the shortest is the one that opened last.
  max_by(close, struct(closed_at, timestamp)) as close,
  max(closed_at) as closed_at
from bars
group by asset_pair, cast(closed_at - interval '1' microsecond as date)
