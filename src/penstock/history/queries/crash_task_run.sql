UPDATE task_runs
SET state = 'CRASHED', state_name = NULL, message = :message, ended_at = :at, seq = :seq
WHERE id = :id
