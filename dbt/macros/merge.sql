{#- The rows of the run replace the stored ones from the first change on, in one commit. The condition is of literals, so
    that files before it are not even opened, and rows that bronze no longer has go too. A MERGE would have to rewrite the
    whole table for that: it skips no files where it deletes what the source lacks. Without a change nothing is done. -#}
{% macro spark__get_merge_sql(target, source, unique_key, dest_columns, incremental_predicates) -%}
  {%- set rows = told('rows') -%}
  {%- if rows == 'false' -%}
  select 'nothing has changed' as answer
  {%- else -%}
  insert into {{ target }}
  replace where {{ rows }}
  select {{ adapter.get_columns_in_relation(target) | map(attribute='quoted') | join(', ') }}
  from {{ source }}
  {%- endif -%}
{%- endmacro %}
