{#- When a bar closes: what is known of it is known from then on, not before. -#}
{% macro closes_at(timestamp='timestamp', timeframe='timeframe') -%}
  {{ timestamp }} + case {{ timeframe }}
    when '1m' then interval '1' minute
    when '5m' then interval '5' minute
    when '15m' then interval '15' minute
    when '1h' then interval '1' hour
    when '4h' then interval '4' hour
    when '1d' then interval '1' day
  end
{%- endmacro %}

{#- The first 5-minute mark at or after an instant. -#}
{% macro next_five_minutes(instant) -%}
  timestamp_seconds(ceil(unix_micros({{ instant }}) / 300000000) * 300)
{%- endmacro %}
