SELECT rowid, id, task, number, name, attempt, created_at, started_at, ended_at, result,
    result_codec
FROM task_runs
WHERE rowid >= :first AND flow_run_id = :id AND state = 'COMPLETED' AND identity IS NOT NULL
ORDER BY rowid
LIMIT :limit
