-- Still under its own epoch, so that it can go on under the next one.
UPDATE flow_runs
SET state = 'CRASHED', state_name = NULL, message = :message, ended_at = :at, seq = seq + 1
WHERE id = :id AND state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')
