{#- One look at the table for all columns, where dbt's own not_null takes one for each. -#}
{% test never_null(model, columns) %}
select
  {{ columns | join(', ') }}
from {{ model }}
where
  ({{ told('tested') }})
  and (
    {%- for column in columns %}
    {{ column }} is null{{ ' or' if not loop.last }}
    {%- endfor %}
  )
{% endtest %}
