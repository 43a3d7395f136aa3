-- The end of what the last driver did, still under its epoch: the next one may go on with it.
UPDATE flow_runs
SET state = 'CRASHED', state_name = NULL, message = :message, ended_at = :at, seq = seq + 1,
    states = json_insert(states, '$[#]', json_array('CRASHED', NULL, :at, :message))
WHERE id = :id AND state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')
