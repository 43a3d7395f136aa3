SELECT f.id, f.seq, f.name, f.flow, f.flow_key, f.state, f.state_name, f.message, f.created_at,
    f.started_at, f.ended_at, f.attempt, f.parameters, f.tags, f.runner, f.parent_task_run_id,
    f.states, f.result, f.result_codec, f.arguments, f.origin,
    max(f.seq >> 40, ifnull(l.epoch, 0)) AS epoch, l.counter, l.beat_at,
    ifnull(l.host, f.host) AS host, ifnull(l.pid, f.pid) AS pid,
    ifnull(l.pid_started_at, f.pid_started_at) AS pid_started_at
FROM flow_runs AS f
LEFT JOIN leases AS l ON l.flow_run_id = f.id
WHERE f.id = :id
