{#- Statistics over the last days. Windows count days, not rows: what a row is made from lies within a known time, and an
    increment that reads so far back gives the very bits of a full refresh. -#}

{#- The frame of the days up to a row's own, that included. -#}
{% macro last_days(days) -%}
  range between interval '{{ days - 1 }}' day preceding and current row
{%- endmacro %}

{#- Whether a change may span from one day to another. A week has room for long weekends and holidays; what stood still for
    longer says nothing about a day. Models that use it look back by a week more than their longest window. -#}
{% macro spannable(before, day) -%}
  {{ before }} >= {{ day }} - interval '7' day
{%- endmacro %}

{#- ln(price / base); null unless both are above zero: the ratio of two negative numbers is a positive one. -#}
{% macro log_ratio(price, base) -%}
  case when {{ price }} > 0 and {{ base }} > 0 then ln({{ price }} / {{ base }}) end
{%- endmacro %}

{#- A figure, or null with fewer observations than half of the window's days, or where a standard deviation is below 1e-12:
    that is rounding, of what does not move. -#}
{% macro if_enough(figure, days, observations, variances) -%}
  case
    when
      {{ observations }} >= {{ days // 2 }}
      {%- for variance in variances %}
      and {{ variance }} >= 1e-24
      {%- endfor %}
      then {{ figure }}
  end
{%- endmacro %}

{#- Pearson's coefficient out of sample moments; rounding must not carry it beyond -1 or 1. -#}
{% macro correlation(days, observations, covariance, variance, other_variance) -%}
  {{ if_enough(
      'greatest(-1, least(1, ' ~ covariance ~ ' / sqrt(' ~ variance ~ ' * ' ~ other_variance ~ ')))',
      days, observations, [variance, other_variance]
  ) }}
{%- endmacro %}
