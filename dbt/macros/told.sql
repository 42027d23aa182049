{#- What the lakehouse tells the model or test that is about to run, found out from the logs of the lake: `source`, `pulses`,
    `rows`, `before` and `tested` are conditions on rows, `rebuild` is true or false, `location` an address,
    `computed` the columns that a function adds. Without the session the answer is the `otherwise`. A table that is told
    nothing must not be made. -#}
{% macro told(name, otherwise='true') -%}
  {%- if execute and env_var('LAKEHOUSE_DBT_SESSION', '') -%}
    {%- set answer = run_query('set lakehouse.dbt.' ~ name) -%}
    {%- if answer.rows[0][1] == '<undefined>' and model.config.materialized not in ('view', 'unit') -%}
      {{ exceptions.raise_compiler_error('nobody has told what to do: ' ~ name) }}
    {%- endif -%}
    {{ return(answer.rows[0][1]) }}
  {%- endif -%}
  {{ return(otherwise) }}
{%- endmacro %}

{#- A table that was not made by the model as it is now, or from bronze tables that are gone, is made as a whole. -#}
{% macro should_full_refresh() -%}
  {%- set wanted = config.get('full_refresh') -%}
  {%- if wanted is none -%}
    {%- set wanted = flags.FULL_REFRESH -%}
  {%- endif -%}
  {{ return(wanted or (execute and model.config.materialized == 'incremental' and told('rebuild') == 'true')) }}
{%- endmacro %}
