{%- for timeframe in ['1m', '5m', '15m', '1h', '4h', '1d'] %}
select *
from {{ ref('stg_market_data_' ~ timeframe) }}
where timeframe = '{{ timeframe }}'
{{ 'union all' if not loop.last }}
{%- endfor %}
