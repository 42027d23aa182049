{{ config(materialized='view', schema='staging') }}

with votes as (
  select
    decision_id,
    asset_pair,
    timestamp,
    action as decided,
    explode(votes) as vote
  from {{ ref('decision_history') }}
),

ranked as (
  select
    decision_id,
    asset_pair,
    cast(timestamp as date) as day,
    vote.provider as ai_provider,
    vote.action as action,
    coalesce(vote.confidence, 0) as confidence,
    vote.action = decided as is_agreed,
    row_number() over (
      partition by decision_id, vote.provider
      order by coalesce(vote.confidence, 0) desc, vote.action
    ) as place
  from votes
)

select
  decision_id,
  asset_pair,
  day,
  ai_provider,
  action,
  confidence,
  is_agreed
from ranked
where place = 1
