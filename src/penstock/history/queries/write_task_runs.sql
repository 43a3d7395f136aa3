INSERT INTO task_runs (:columns)
VALUES :rows
ON CONFLICT (id) DO UPDATE SET
    flow_run_id = excluded.flow_run_id,
    seq = excluded.seq,
    task = excluded.task,
    number = excluded.number,
    name = excluded.name,
    state = excluded.state,
    state_name = excluded.state_name,
    message = excluded.message,
    attempt = excluded.attempt,
    created_at = excluded.created_at,
    started_at = excluded.started_at,
    ended_at = excluded.ended_at,
    identity = excluded.identity,
    parameters = excluded.parameters,
    result = excluded.result,
    result_codec = excluded.result_codec,
    upstream = excluded.upstream,
    states = excluded.states,
    detail = excluded.detail
WHERE excluded.seq > task_runs.seq
    AND task_runs.state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')
