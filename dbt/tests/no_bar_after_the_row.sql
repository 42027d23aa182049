-- Nothing that a row of the multi-timeframe analysis knows may have closed after the row's instant.
select
  asset_pair,
  timestamp
from {{ ref('multi_timeframe_analysis') }}
where
  ({{ told('tested') }})
  and greatest(closed_at_1m, closed_at_5m, closed_at_15m, closed_at_1h, closed_at_4h, closed_at_1d) > as_of
