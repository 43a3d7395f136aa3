UPDATE task_runs
SET state = 'CRASHED', state_name = NULL, message = :message, ended_at = :at, seq = :seq,
    states = json_insert(states, '$[#]', json_array('CRASHED', NULL, :at, :message))
WHERE id = :id
