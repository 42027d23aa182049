{#- The number of a provider in var provider_priority, from 1; one that is not listed comes after all of them. -#}
{% macro provider_rank(column='provider') -%}
  case {{ column }}
    {%- for name in var('provider_priority') %}
    when '{{ name }}' then {{ loop.index }}
    {%- endfor %}
    else {{ var('provider_priority') | length + 1 }}
  end
{%- endmacro %}

{#- One row per key out of many versions: the best provider's, by priority and then by name, and of that one the version
    the lake learned of last. Conditions on `prunes`, columns that the key determines, still skip partitions. -#}
{% macro newest_version(relation, keys, columns, prunes=[]) -%}
with ranked as (
  select
    {%- for column in columns + prunes %}
    {{ column }},
    {%- endfor %}
    row_number() over (
      partition by {{ (keys + prunes) | join(', ') }}
      order by {{ provider_rank() | indent(6) }}, provider, ingested_at desc
    ) as version_rank
  from {{ relation }}
)

select
  {%- for column in columns + prunes %}
  {{ column }}{{ ',' if not loop.last }}
  {%- endfor %}
from ranked
where version_rank = 1
{%- endmacro %}

{% macro bars(timeframe) -%}
{{ newest_version(
    source('bronze', 'raw_market_data_' ~ timeframe),
    ['asset_pair', 'timeframe', 'timestamp'],
    ['asset_pair', 'timeframe', 'timestamp', 'open', 'high', 'low', 'close', 'volume', 'provider', 'price_side',
     'is_adjusted', 'is_derived', 'ingested_at'],
    ['partition_date', 'partition_asset_pair']
) }}
{%- endmacro %}
