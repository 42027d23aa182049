{#- Without the session that the lakehouse prepares there are no tables, and an incremental model would be created anew
    over what is there. So nothing that runs SQL may go on; what only reads the project finds an empty catalog. -#}

{% macro spark__list_schemas(database) -%}
  {%- if not env_var('LAKEHOUSE_DBT_SESSION', '') -%}
    {%- do require_session() -%}
    {{ return([]) }}
  {%- endif -%}
  {% call statement('list_schemas', fetch_result=True, auto_begin=False) %}
    show databases
  {% endcall %}
  {{ return(load_result('list_schemas').table) }}
{%- endmacro %}

{% macro spark__list_relations_without_caching(relation) -%}
  {%- if not env_var('LAKEHOUSE_DBT_SESSION', '') -%}
    {%- do require_session() -%}
    {{ return([]) }}
  {%- endif -%}
  {% call statement('list_relations_without_caching', fetch_result=True) -%}
    show table extended in {{ relation.schema }} like '*'
  {% endcall %}
  {{ return(load_result('list_relations_without_caching').table) }}
{%- endmacro %}

{% macro require_session() -%}
  {%- if flags.WHICH not in ('compile', 'generate', 'list', 'parse') -%}
    {%- set wanted = 'dbt ' ~ flags.WHICH -%}
    {{ exceptions.raise_compiler_error(
        "`" ~ wanted ~ "` needs the lake, which only the lakehouse's own Spark session has: run `lakehouse transform`, "
        ~ "or `lakehouse " ~ wanted ~ " …` for any other dbt command"
    ) }}
  {%- endif -%}
{%- endmacro %}
