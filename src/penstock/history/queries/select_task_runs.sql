SELECT r.id, r.flow_run_id, r.seq, t.name AS task, r.number, r.name, r.state, r.state_name,
    r.message, r.attempt, r.created_at, r.started_at, r.ended_at, r.identity, r.parameters,
    r.result_codec, r.upstream, r.states, r.detail
FROM task_runs AS r
LEFT JOIN tasks AS t ON t.flow_run_id = ifnull(r.flow_run_id, zeroblob(16)) AND t.number = r.task
