SELECT id, seq, name, flow, flow_key, version, state, state_name, message,
    created_at, started_at, ended_at, attempt, parameters, tags, runner, parent_task_run_id,
    states, error, result_codec, host, pid, pid_started_at, penstock_version
FROM flow_runs
