UPDATE flow_runs
SET state = 'RUNNING', state_name = NULL, message = NULL, ended_at = NULL, error = NULL,
    seq = :seq, host = :host, pid = :pid, pid_started_at = :pid_started_at
WHERE id = :id
