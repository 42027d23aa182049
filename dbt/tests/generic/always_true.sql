{#- Rows for which one of the conditions is false; where it is null there is nothing to be said. -#}
{% test always_true(model, conditions) %}
select *
from {{ model }}
where
  ({{ told('tested') }})
  and (
    {%- for condition in conditions %}
    not ({{ condition }}){{ ' or' if not loop.last }}
    {%- endfor %}
  )
{% endtest %}
