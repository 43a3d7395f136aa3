INSERT INTO flow_runs (
    id, seq, name, flow, flow_key, version, state, state_name, message,
    created_at, started_at, ended_at, attempt, parameters, tags, runner, parent_task_run_id,
    states, error, result, result_codec, host, pid, pid_started_at, penstock_version,
    arguments, origin
)
VALUES :rows
ON CONFLICT (id) DO UPDATE SET
    seq = excluded.seq,
    name = excluded.name,
    flow = excluded.flow,
    flow_key = excluded.flow_key,
    version = excluded.version,
    state = excluded.state,
    state_name = excluded.state_name,
    message = excluded.message,
    created_at = excluded.created_at,
    started_at = excluded.started_at,
    ended_at = excluded.ended_at,
    attempt = excluded.attempt,
    parameters = excluded.parameters,
    tags = excluded.tags,
    runner = excluded.runner,
    parent_task_run_id = excluded.parent_task_run_id,
    states = excluded.states,
    error = excluded.error,
    result = excluded.result,
    result_codec = excluded.result_codec,
    host = excluded.host,
    pid = excluded.pid,
    pid_started_at = excluded.pid_started_at,
    penstock_version = excluded.penstock_version,
    arguments = excluded.arguments,
    origin = excluded.origin
WHERE excluded.seq > flow_runs.seq
    AND (
        flow_runs.state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')
        OR (flow_runs.state <> 'COMPLETED' AND excluded.seq >> 40 > flow_runs.seq >> 40)
    )
