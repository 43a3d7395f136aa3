UPDATE flow_runs
SET state = 'CRASHED', state_name = NULL, message = :message, ended_at = :at, seq = :seq
WHERE id = :id AND state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')
