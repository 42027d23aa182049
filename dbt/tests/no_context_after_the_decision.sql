-- A decision may see only what was known at its instant.
select decision_id
from {{ ref('decision_history') }}
where greatest(context_closed_at, confluence_as_of) > timestamp
