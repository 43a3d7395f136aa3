-- By the places of the rows alone: the index by flow run would have all of them sorted each time.
SELECT rowid, id, task, number, name, attempt, created_at, started_at, ended_at, result,
    result_codec
FROM task_runs
WHERE rowid BETWEEN :first AND :last
    AND +flow_run_id = :id AND state = 'COMPLETED' AND identity IS NOT NULL
ORDER BY rowid
LIMIT :limit
