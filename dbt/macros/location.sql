{#- Every table lies in the lake, in a folder of its schema; the catalog is gone when the process ends, the tables stay. -#}
{% macro spark__location_clause() -%}
  {%- set location = told('location') -%}
  {%- if location.endswith('/' ~ model.alias) %}
  location '{{ location }}'
  {%- endif %}
{%- endmacro %}
